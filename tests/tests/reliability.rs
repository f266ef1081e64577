//! Kills, power cuts, disks that are full, slow, read-only, failing or gone: at most what is promised is lost,
//! and the recording comes back by itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use stream_manager_tests::disk::Disk;
use stream_manager_tests::media::{check, counters, files};
use stream_manager_tests::program::{Server, finish, run};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);
const FPS: u64 = 25;
const LOOP_FRAMES: u32 = 250;

/// A camera whose frames are counted, on a runtime of its own.
struct Cameras {
    server: ReplayServer,
    _runtime: tokio::runtime::Runtime,
}

impl Cameras {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let media = Loop::encode(320, 240, FPS as u32, 25, 400, LOOP_FRAMES / FPS as u32, true);
        let server = runtime.block_on(ReplayServer::start(Arc::new(media), Mischief::default()));
        Self { server, _runtime: runtime }
    }

    fn config(&self, head: &str, streams: usize) -> String {
        let mut config = head.to_owned();
        for number in 0..streams {
            config.push_str(&format!(
                "[[streams]]\nid = \"cam-{number}\"\nsource_url = \"{}\"\nrecording.enabled = true\n",
                self.server.url("live")
            ));
        }
        config
    }
}

const SHORT: &str = "[storage]\nmin_free = 0\n[defaults]\nretry_initial = \"200ms\"\n[defaults.recording]\nsegment_duration = \"2s\"\n";

fn state(stream: &Value) -> &str {
    stream["recording"]["state"].as_str().unwrap_or("?")
}

fn recording(server: &Server, id: &str) {
    server.wait_for(id, "recording", LIMIT, |s| s["recording"]["frames"].as_u64().is_some_and(|n| n > 0));
}

fn segments(server: &Server, id: &str) -> Vec<Value> {
    let (status, page) =
        server.call("GET", &format!("/api/streams/{id}/recordings?view=segments&limit=1000"), None);
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

fn items(server: &Server, id: &str) -> Vec<Value> {
    let (status, page) = server.call("GET", &format!("/api/streams/{id}/recordings?limit=1000"), None);
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

/// Waits until files and index have been compared.
fn checked(server: &Server) {
    wait_until("the check at the start", LIMIT, || {
        server.call("GET", "/api/storage", None).1["checked"] == true
    });
}

fn frames_of(segment: &Value) -> u64 {
    segment["frames"].as_u64().unwrap()
}

/// Every file of a stream plays, begins with a keyframe, and lacks no frame in the middle. Gives the number of
/// frames.
fn check_files(folder: &Path) -> usize {
    let mut total = 0;
    for file in files(folder).iter().filter(|f| f.extension().is_some_and(|e| e == "mp4")) {
        check(file);
        let numbers = counters(file);
        for pair in numbers.windows(2) {
            assert_eq!((pair[0] + 1) % LOOP_FRAMES, pair[1], "{}: {numbers:?}", file.display());
        }
        total += numbers.len();
    }
    // The first and the last one by GStreamer too, which is stricter about some things and laxer about others.
    let files: Vec<_> =
        files(folder).into_iter().filter(|f| f.extension().is_some_and(|e| e == "mp4")).collect();
    for file in files.first().into_iter().chain(files.last()) {
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "filesrc"]).arg(format!("location={}", file.display()));
        command.args("! qtdemux ! h264parse ! avdec_h264 ! fakesink sync=false".split(' '));
        let output = finish(command, LIMIT);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !complaint.contains("ERROR"), "{}: {complaint}", file.display());
    }
    total
}

#[test]
fn twenty_kills_cost_at_most_a_second_each() {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let config = cameras.config(SHORT, 3);
    let mut random = 0x9e37_79b9_u32;
    let mut counted: HashMap<String, u64> = HashMap::new();
    let mut killed: Option<(f64, HashMap<String, u64>)> = None;
    for round in 0..=20 {
        let server = Server::start(folder.path(), Some(&config));
        checked(&server);
        let ids: Vec<String> = (0..3).map(|n| format!("cam-{n}")).collect();
        if let Some((at, received)) = killed.take() {
            for id in &ids {
                let (_, page) = server.call(
                    "GET",
                    &format!("/api/streams/{id}/recordings?view=segments&limit=1000&end={at}"),
                    None,
                );
                let rows = page["items"].as_array().unwrap();
                assert!(rows.iter().all(|r| r["complete"] == true), "round {round}, {id}: {page:#}");
                let before = counted.entry(id.clone()).or_default();
                let total: u64 = rows.iter().map(frames_of).sum();
                let recorded = total - std::mem::replace(before, total);
                let lost = received[id].saturating_sub(recorded);
                assert!(lost <= FPS, "round {round}, {id}: {recorded} of {} frames", received[id]);
            }
        }
        if round == 20 {
            server.stop();
            break;
        }
        recording(&server, "cam-2");
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_millis(u64::from(random >> 21)));
        let received =
            ids.iter().map(|id| (id.clone(), server.stream(id)["frames"].as_u64().unwrap())).collect();
        server.kill();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        killed = Some((now, received));
    }
    for number in 0..3 {
        assert!(check_files(&folder.path().join(format!("data/recordings/cam-{number}"))) > 0);
    }
    let (code, text) = run(&["recordings", "verify"], folder.path());
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["fsck"], folder.path());
    assert_eq!(code, 0, "{text}");
    // Each kill is a gap with its reason.
    let (_, text) = run(&["recordings", "list", "cam-0", "--json"], folder.path());
    let listed: Value = serde_json::from_str(text.trim()).unwrap();
    let gaps = listed["items"].as_array().unwrap().iter().filter(|i| i["reason"] == "killed").count();
    assert!(gaps >= 15, "only {gaps} gaps of 20 kills: {listed:#}");
}

#[test]
fn a_power_cut_costs_at_most_a_part_and_a_sync_interval() {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let config = cameras.config(SHORT, 2);
    let mut lost_in_all = 0;
    let mut before = 0;
    for round in 0..4 {
        let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
        checked(&server);
        recording(&server, "cam-1");
        std::thread::sleep(Duration::from_millis(2500 + round * 700));
        let received = server.stream("cam-1")["frames"].as_u64().unwrap();
        server.kill();
        disk.cut_power();
        let (code, text) = run(&["fsck", "--repair"], disk.root());
        assert_eq!(code, 0, "{text}");
        let recorded = check_files(&disk.root().join("data/recordings/cam-1")) as u64;
        let lost = received.saturating_sub(recorded - before);
        before = recorded;
        lost_in_all += lost;
        // Half a second of part, one of sync interval, the frame whose length is not known yet, and what arrives
        // while the sync is under way.
        assert!(lost <= FPS * 3 / 2 + 3, "round {round}: {lost} of {received} frames are lost");
        let (code, text) = run(&["recordings", "verify"], disk.root());
        assert_eq!(code, 0, "{text}");
    }
    assert!(lost_in_all > 0, "this disk forgets nothing: the test shows nothing");
}

#[test]
fn with_every_part_synced_a_power_cut_costs_a_part() {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let config = cameras.config(&format!("{SHORT}sync_interval = \"0\"\n"), 1);
    let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
    recording(&server, "cam-0");
    std::thread::sleep(Duration::from_millis(3300));
    let received = server.stream("cam-0")["frames"].as_u64().unwrap();
    server.kill();
    disk.cut_power();
    let (code, text) = run(&["fsck", "--repair"], disk.root());
    assert_eq!(code, 0, "{text}");
    let recorded = check_files(&disk.root().join("data/recordings/cam-0")) as u64;
    // Half a second and a frame; the rest is for a machine that is busy with other things.
    assert!(received.saturating_sub(recorded) <= FPS, "{recorded} of {received}");
}

#[test]
fn what_is_never_synced_does_not_survive() {
    // The other side of the test above: the disk of the tests really forgets.
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let config = cameras.config(&format!("{SHORT}sync_interval = \"off\"\n"), 1);
    let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
    server.wait_for("cam-0", "five seconds", LIMIT, |s| s["recording"]["segments"].as_u64() >= Some(2));
    server.kill();
    disk.cut_power();
    assert_eq!(check_files(&disk.root().join("data/recordings/cam-0")), 0);
    // What the index knew of is told as gone, and the server starts.
    let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
    checked(&server);
    recording(&server, "cam-0");
    server.stop();
}

/// The recording is blocked with a reason while there is trouble, streams go on, and afterwards it comes back.
fn trouble_and_back(what: &str, said: &str) {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let config = cameras.config(SHORT, 2);
    let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
    recording(&server, "cam-0");
    recording(&server, "cam-1");
    disk.trouble(what);
    let blocked = server.wait_for("cam-0", "blocked", LIMIT, |s| state(s) == "blocked");
    assert!(blocked["recording"]["reason"].as_str().unwrap().contains(said), "{blocked:#}");
    let frames = blocked["frames"].as_u64().unwrap();
    server.wait_for("cam-0", "the stream goes on", LIMIT, |s| s["frames"].as_u64() > Some(frames + 2 * FPS));
    assert_eq!(state(&server.stream("cam-0")), "blocked");
    disk.trouble("");
    let since = Instant::now();
    server.wait_for("cam-0", "back", LIMIT, |s| state(s) == "recording");
    server.wait_for("cam-1", "back", LIMIT, |s| state(s) == "recording");
    eprintln!("{what}: back after {:?}", since.elapsed());
    let segments = server.stream("cam-0")["recording"]["segments"].as_u64();
    server.wait_for("cam-0", "a segment more", LIMIT, |s| s["recording"]["segments"].as_u64() > segments);
    // The index is on that disk as well, and is written again in a moment.
    let mut gap = None;
    wait_until("the gap is in the index", LIMIT, || {
        gap =
            items(&server, "cam-0").into_iter().find(|i| i["reason"] == "disk_error" && i["end"].is_string());
        gap.is_some()
    });
    assert!(gap.as_ref().unwrap()["frames"].as_u64() > Some(FPS), "{gap:#?}");
    server.stop();
    for id in ["cam-0", "cam-1"] {
        let folder = disk.root().join("data/recordings").join(id);
        assert!(files(&folder).iter().all(|f| std::fs::metadata(f).unwrap().len() > 0), "empty files");
        assert!(check_files(&folder) > 0);
    }
    let (code, text) = run(&["recordings", "verify"], disk.root());
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_disk_that_returns_errors() {
    trouble_and_back("eio", "Input/output error");
}

#[test]
fn a_disk_that_becomes_read_only() {
    trouble_and_back("erofs", "Read-only file system");
}

#[test]
fn a_slow_disk_is_told_before_anything_is_lost() {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let server = Server::start_with(disk.root(), Some(&cameras.config(SHORT, 1)), |c| disk.attach(c));
    recording(&server, "cam-0");
    disk.trouble("slow");
    wait_until("the disk shows as slow", LIMIT, || {
        server.call("GET", "/api/storage", None).1["directories"][0]["state"] == "slow"
    });
    assert_eq!(server.stream("cam-0")["recording"]["lost_frames"], 0);
    disk.trouble("");
    wait_until("the disk shows as well", LIMIT, || {
        server.call("GET", "/api/storage", None).1["directories"][0]["state"] == "ok"
    });
    let log = server.stop();
    assert_eq!(log.matches("the disk is slow").count(), 1, "{log}");
    assert_eq!(log.matches("as fast as it should be again").count(), 1, "{log}");
    check_files(&disk.root().join("data/recordings/cam-0"));
}

#[test]
fn a_clock_that_is_set_back_and_forth() {
    let cameras = Cameras::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/recordings");
    let config = cameras.config(&SHORT.replace("2s", "20s"), 1);
    let server = Server::start_with(disk.root(), Some(&config), |c| disk.attach(c));
    recording(&server, "cam-0");
    for (expected, clock) in (1..).zip(["clock -7200", "clock 0", "clock 10800", "clock 0"]) {
        disk.trouble(clock);
        server.wait_for("cam-0", clock, LIMIT, |s| s["recording"]["segments"].as_u64() >= Some(expected));
        recording(&server, "cam-0");
    }
    // What was opened last is in the index a moment later.
    let mut rows = Vec::new();
    wait_until("five segments in the index", LIMIT, || {
        rows = segments(&server, "cam-0");
        rows.len() >= 5
    });
    let names: std::collections::HashSet<&str> = rows.iter().map(|r| r["path"].as_str().unwrap()).collect();
    assert_eq!(names.len(), rows.len());
    // In the order in which they were recorded, media follows media.
    rows.sort_by_key(|r| r["id"].as_u64());
    let media: Vec<i64> = rows.iter().map(|r| r["media_start_nanos"].as_i64().unwrap()).collect();
    assert!(media.is_sorted(), "{rows:#?}");
    server.stop();
    assert!(check_files(&disk.root().join("data/recordings/cam-0")) > 0);
    let (code, text) = run(&["recordings", "verify"], disk.root());
    assert_eq!(code, 0, "{text}");
}

/// A file system of this size, for as long as it lives. None where that is not allowed.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self(path.to_owned()));
        }
        eprintln!("SKIPPED: no tmpfs can be mounted here");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_blocks_and_room_brings_the_recording_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_tmpfs) = Tmpfs::mount(&folder.path().join("small"), "30m") else { return };
    let cameras = Cameras::start();
    let head = SHORT.replace("[storage]\n", "[storage]\nrecordings_dir = \"small/video\"\n");
    let server = Server::start(folder.path(), Some(&cameras.config(&head, 2)));
    recording(&server, "cam-0");
    recording(&server, "cam-1");
    let ballast = folder.path().join("small/ballast");
    let fill = |bytes: usize| std::fs::write(&ballast, vec![1; bytes]);
    assert!(fill(40 << 20).is_err(), "the disk is not full");
    let blocked = server.wait_for("cam-0", "blocked", LIMIT, |s| state(s) == "blocked");
    assert!(blocked["recording"]["reason"].as_str().unwrap().contains("No space left"), "{blocked:#}");
    let frames = blocked["frames"].as_u64().unwrap();
    server.wait_for("cam-0", "the stream goes on", LIMIT, |s| s["frames"].as_u64() > Some(frames + 5 * FPS));
    let video = folder.path().join("small/video/cam-0");
    assert!(
        files(&video).iter().all(|f| std::fs::metadata(f).unwrap().len() > 0),
        "litter: {:?}",
        files(&video)
    );
    std::fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    server.wait_for("cam-0", "back", LIMIT, |s| state(s) == "recording");
    eprintln!("back after {:?}", since.elapsed());
    server.wait_for("cam-1", "back", LIMIT, |s| state(s) == "recording");
    let segments = server.stream("cam-0")["recording"]["segments"].as_u64();
    server.wait_for("cam-0", "a segment more", LIMIT, |s| s["recording"]["segments"].as_u64() > segments);
    assert!(items(&server, "cam-0").iter().any(|i| i["reason"] == "disk_full" && i["end"].is_string()));
    let log = server.stop();
    assert_eq!(log.matches("recording is blocked").count(), 2, "one for each stream: {log}");
    assert!(check_files(&video) > 0);
    assert!(files(&video).iter().all(|f| std::fs::metadata(f).unwrap().len() > 0));
}

#[test]
fn an_index_on_a_full_disk_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_tmpfs) = Tmpfs::mount(&folder.path().join("small"), "30m") else { return };
    let cameras = Cameras::start();
    let head = SHORT.replace("[storage]\n", "[storage]\ndata_dir = \"small/data\"\n");
    let server = Server::start(folder.path(), Some(&cameras.config(&head, 1)));
    recording(&server, "cam-0");
    let ballast = folder.path().join("small/ballast");
    assert!(std::fs::write(&ballast, vec![1; 40 << 20]).is_err(), "the disk is not full");
    server.wait_for("cam-0", "blocked", LIMIT, |s| state(s) == "blocked");
    let frames = server.stream("cam-0")["frames"].as_u64().unwrap();
    server.wait_for("cam-0", "the stream goes on", LIMIT, |s| s["frames"].as_u64() > Some(frames + 3 * FPS));
    std::fs::remove_file(&ballast).unwrap();
    server.wait_for("cam-0", "back", LIMIT, |s| state(s) == "recording");
    let segments = server.stream("cam-0")["recording"]["segments"].as_u64();
    server.wait_for("cam-0", "a segment more", LIMIT, |s| s["recording"]["segments"].as_u64() > segments);
    wait_until("the index is written again", LIMIT, || {
        server.call("GET", "/api/storage", None).1["index_problem"].is_null()
    });
    assert!(items(&server, "cam-0").iter().any(|i| i["reason"] == "disk_full" && i["end"].is_string()));
    server.stop();
    for arguments in [&["fsck"][..], &["recordings", "verify"]] {
        let (code, text) = run(arguments, folder.path());
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn the_oldest_go_before_the_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_tmpfs) = Tmpfs::mount(&folder.path().join("small"), "30m") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Twelve megabits a second fill the disk in twenty seconds.
    let media = Loop::encode(640, 480, 25, 25, 12_000, 4, false);
    let camera = runtime.block_on(ReplayServer::start(Arc::new(media), Mischief::default()));
    let config = format!(
        "[storage]\nrecordings_dir = \"small/video\"\nmin_free = \"14MiB\"\n[defaults.recording]\nsegment_duration = \"1s\"\n\
         [[streams]]\nid = \"cam-0\"\nsource_url = \"{}\"\nrecording.enabled = true\n",
        camera.url("live")
    );
    let server = Server::start(folder.path(), Some(&config));
    recording(&server, "cam-0");
    let (status, answer) =
        server.call("POST", "/api/streams/cam-0/recordings/protect?start=0&end=9000000000", None);
    assert_eq!((status, &answer["segments"]), (200, &1.into()), "{answer}");
    let first = segments(&server, "cam-0")[0]["path"].as_str().unwrap().to_owned();
    wait_until("more is recorded than fits", Duration::from_secs(90), || {
        let stream = server.stream("cam-0");
        assert_eq!(state(&stream), "recording", "{stream:#}");
        stream["recording"]["bytes"].as_u64().unwrap() > 40_000_000
    });
    let (_, storage) = server.call("GET", "/api/storage", None);
    assert!(storage["directories"][0]["free_bytes"].as_u64().unwrap() > 6 << 20, "{storage:#}");
    assert!(storage["streams"][0]["protected_bytes"].as_u64().unwrap() > 0, "{storage:#}");
    assert!(storage["days_of_room"].is_number() && storage["unmet"] == serde_json::json!({}), "{storage:#}");
    assert!(Path::new(&first).is_file(), "the protected segment is gone");
    let log = server.stop();
    assert!(log.contains("old recordings deleted"), "{log}");
    let (code, text) = run(&["fsck"], folder.path());
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["recordings", "verify"], folder.path());
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_disk_that_vanishes_is_not_written_around() {
    let folder = tempfile::tempdir().unwrap();
    let (mount, backing) = (folder.path().join("mount"), folder.path().join("backing"));
    let Some(_tmpfs) = Tmpfs::mount(&backing, "60m") else { return };
    std::fs::create_dir(&mount).unwrap();
    let bind = || {
        let done = Command::new("mount").arg("--bind").arg(&backing).arg(&mount).status().unwrap();
        assert!(done.success());
    };
    bind();
    let cameras = Cameras::start();
    let head = SHORT.replace("[storage]\n", "[storage]\nrecordings_dir = \"mount\"\n");
    let server = Server::start(folder.path(), Some(&cameras.config(&head, 1)));
    recording(&server, "cam-0");
    assert!(Command::new("umount").arg("-l").arg(&mount).status().unwrap().success());
    let blocked = server.wait_for("cam-0", "blocked", LIMIT, |s| state(s) == "blocked");
    assert!(
        blocked["recording"]["reason"].as_str().unwrap().contains("does not seem to be mounted"),
        "{blocked:#}"
    );
    wait_until("the folder shows as away", LIMIT, || {
        server.call("GET", "/api/storage", None).1["directories"][0]["state"] == "unavailable"
    });
    let before = segments(&server, "cam-0").len();
    assert_eq!(files(&mount), Vec::<PathBuf>::new(), "something was written below the mount point");
    bind();
    server.wait_for("cam-0", "back", LIMIT, |s| state(s) == "recording");
    assert!(segments(&server, "cam-0").len() >= before, "what is on the disk was forgotten");
    server.stop();
    let (code, text) = run(&["fsck"], folder.path());
    let _ = Command::new("umount").arg("-l").arg(&mount).output();
    assert_eq!(code, 0, "{text}");
}
