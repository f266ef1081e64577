//! Streams read by RTSP: by other people's programs, frame by frame, and while everything around them changes.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stream_manager_core::frame::WallTime;
use stream_manager_core::hub::{Hub, HubItem, ReaderOptions};
use stream_manager_core::rtp::Receiver;
use stream_manager_core::rtp::format::parse;
use stream_manager_core::rtp::rtcp::{self, Reception, Report};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::client::{Client, Received};
use stream_manager_tests::media::{assert_contiguous, check, counters, describe, reading_rtsp};
use stream_manager_tests::program::{OPEN_API, Server, finish, finish_reading, run};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);

fn server(folder: &Path, rest: &str, camera: &str) -> Server {
    let config = format!("{rest}\n[[streams]]\nid = \"cam\"\nsource_url = \"{camera}\"\n");
    let server = Server::start(folder, Some(&config));
    server.wait_for("cam", "running", LIMIT, |s| s["state"] == "running");
    server
}

/// Copies some seconds of a stream into a file with ffmpeg.
fn ffmpeg(url: &str, options: &[&str], seconds: &str, file: &Path) -> (bool, String) {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-y"])
        .args(options)
        .args(["-i", url, "-t", seconds, "-c", "copy"])
        .arg(file);
    command.stdin(Stdio::null());
    let output = finish(command, LIMIT);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn kinds(file: &Path) -> Vec<String> {
    let streams = describe(file)["streams"].clone();
    streams.as_array().unwrap().iter().map(|s| s["codec_name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn ffmpeg_reads_every_frame_by_tcp_and_udp() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    for transport in ["tcp", "udp"] {
        let file = folder.path().join(format!("{transport}.mkv"));
        let (good, complaint) = ffmpeg(&server.rtsp_url("cam"), &["-rtsp_transport", transport], "4", &file);
        assert!(good, "{transport}: {complaint}");
        assert_eq!(kinds(&file), ["h264", "aac"], "{transport}");
        let numbers = counters(&file);
        assert!(numbers.len() > 75, "{transport}: {}", numbers.len());
        assert_contiguous(&numbers, transport);
        // Sound and picture begin and end together.
        let packets = check(&file);
        let ends = |kind: &str| {
            let times: Vec<f64> = packets.iter().filter(|p| p.kind == kind).map(|p| p.pts).collect();
            (times[0], times[times.len() - 1])
        };
        let (video, audio) = (ends("video"), ends("audio"));
        assert!((video.0 - audio.0).abs() < 0.3 && (video.1 - audio.1).abs() < 0.5, "{video:?} {audio:?}");
    }
    server.stop();
}

/// One track: gst-launch links tracks from threads of their own, and does not survive two that come together.
#[test]
fn gstreamer_reads_every_frame_by_tcp_and_udp() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    for transport in ["tcp", "udp"] {
        let file = folder.path().join(format!("{transport}.mkv"));
        let mut command = Command::new("gst-launch-1.0");
        let source = format!("location={}", server.rtsp_url("cam"));
        command.args(["-q", "rtspsrc", &source, &format!("protocols={transport}"), "buffer-mode=none"]);
        command
            .args("! rtph264depay ! h264parse ! identity eos-after=70 ! matroskamux ! filesink".split(' '));
        command.arg(format!("location={}", file.display()));
        finish_reading(command, LIMIT, transport);
        let numbers = counters(&file);
        assert!(numbers.len() >= 60, "{transport}: {numbers:?}");
        assert_contiguous(&numbers, transport);
    }
    server.stop();
}

#[test]
fn one_server_reads_from_another() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    for transport in ["tcp", "udp"] {
        let name = format!("{transport}.mp4");
        let url = server.rtsp_url("cam");
        let (code, text) =
            run(&["record", &url, "-o", &name, "--duration", "3s", "--transport", transport], folder.path());
        assert_eq!(code, 0, "{text}");
        let file = folder.path().join(name);
        check(&file);
        assert_contiguous(&counters(&file), transport);
    }
    server.stop();
}

#[test]
fn other_codecs_arrive_as_they_left() {
    let cases = [
        (
            "h265",
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph265pay name=pay0 pt=96 config-interval=-1",
            "hevc",
        ),
        (
            "mjpeg",
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! jpegenc ! rtpjpegpay name=pay0",
            "mjpeg",
        ),
        (
            "vp8",
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! vp8enc deadline=1 keyframe-max-dist=25 ! rtpvp8pay name=pay0 pt=96",
            "vp8",
        ),
        (
            "opus",
            "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay name=pay0 pt=96",
            "opus",
        ),
        (
            "l16",
            "audiotestsrc is-live=true ! audio/x-raw,rate=44100,channels=2 ! audioconvert ! rtpL16pay name=pay0 pt=96",
            "pcm_s16be",
        ),
        (
            "mp3",
            "audiotestsrc is-live=true ! audio/x-raw,rate=44100,channels=2 ! lamemp3enc ! mpegaudioparse ! rtpmpapay name=pay0",
            "mp3",
        ),
        (
            "ac3",
            "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_ac3 ! ac3parse ! rtpac3pay name=pay0 pt=96",
            "ac3",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    // One after the other: encoders are slow on small machines.
    for (id, line, codec) in cases {
        let camera = Camera::start(Feed::custom(format!("( {line} )")));
        let body = json!({"id": id, "source_url": camera.url()});
        assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
        server.wait_for(id, "running", LIMIT, |s| s["state"] == "running");
        let file = folder.path().join(format!("{id}.mkv"));
        let (good, complaint) = ffmpeg(&server.rtsp_url(id), &["-rtsp_transport", "tcp"], "2", &file);
        assert!(good, "{id}: {complaint}");
        assert_eq!(kinds(&file), [codec], "{id}");
        // And it can be decoded without a complaint.
        let mut decode = Command::new("ffmpeg");
        decode.args(["-v", "error", "-i"]).arg(&file).args(["-f", "null", "-"]).stdin(Stdio::null());
        let output = finish(decode, LIMIT);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaint.is_empty(), "{id}: {complaint}");
        assert_eq!(server.call("DELETE", &format!("/api/streams/{id}"), None).0, 204);
    }
    server.stop();
}

#[test]
fn vp9_reaches_gstreamer() {
    // ffmpeg calls its own support of VP9 by RTP experimental.
    let line = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 \
        ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=25 ! rtpvp9pay name=pay0 pt=96";
    let camera = Camera::start(Feed::custom(format!("( {line} )")));
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-v", "rtspsrc", &format!("location={}", server.rtsp_url("cam")), "protocols=tcp"]);
    command.args("! rtpvp9depay ! vp9dec ! fakesink silent=false num-buffers=50".split(' '));
    let output = finish(command, LIMIT);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.matches("chain  ").count() >= 50 && text.contains("width=(int)320"), "{text}");
    server.stop();
}

fn certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.args(
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
            .split(' '),
    );
    command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]).current_dir(folder);
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rtsps_by_ffmpeg_gstreamer_and_ourselves() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let keys =
        "[rtsp]\ntls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    let server = server(folder.path(), keys, &camera.url());
    let log = server.log();
    let port = log.split("tls=\"127.0.0.1:").nth(1).unwrap().split('"').next().unwrap();
    let url = format!("rtsps://127.0.0.1:{port}/cam");
    let file = folder.path().join("tls.mkv");
    let (good, complaint) = ffmpeg(&url, &["-rtsp_transport", "tcp"], "3", &file);
    assert!(good, "{complaint}");
    assert_contiguous(&counters(&file), "ffmpeg over TLS");
    let (code, text) = run(&["record", &url, "-o", "ours.mp4", "--duration", "3s"], folder.path());
    assert_eq!(code, 0, "{text}");
    assert_contiguous(&counters(&folder.path().join("ours.mp4")), "rtspsrc over TLS");
    server.stop();
}

#[test]
fn users_prove_themselves_by_basic_and_digest() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    for methods in
        ["\"basic\"", "\"digest\"", "\"digest-sha-256\"", "\"basic\", \"digest\", \"digest-sha-256\""]
    {
        let auth = format!(
            "[auth]\nmethods = [{methods}]\n[[auth.users]]\nname = \"viewer\"\npassword = \"ge:heim\"\n\
             [[auth.users]]\nname = \"other\"\npassword = \"x\"\nread = [\"yard/*\"]\n{OPEN_API}"
        );
        let server = server(folder.path(), &auth, &camera.url());
        let with = |who: &str| format!("rtsp://{who}@{}/cam", server.rtsp);
        let (code, text) = run(
            &["record", &with("viewer:ge%3Aheim"), "-o", "a.mp4", "--duration", "1s", "-y"],
            folder.path(),
        );
        assert_eq!(code, 0, "{methods}: {text}");
        let (code, text) = run(
            &[
                "record",
                &with("viewer:wrong"),
                "-o",
                "b.mp4",
                "--duration",
                "1s",
                "-y",
                "--reconnect-for",
                "0s",
            ],
            folder.path(),
        );
        assert_eq!(code, 3, "{methods}: {text}");
        if methods != "\"digest-sha-256\"" {
            // Which ffmpeg does not know.
            let file = folder.path().join("f.mkv");
            let (good, complaint) =
                ffmpeg(&with("viewer:ge%3Aheim"), &["-rtsp_transport", "tcp"], "1", &file);
            assert!(good, "{methods}: {complaint}");
            let (good, complaint) = ffmpeg(&with("other:x"), &["-rtsp_transport", "tcp"], "1", &file);
            assert!(!good && complaint.contains("403"), "{methods}: {complaint}");
        }
        let (good, complaint) =
            ffmpeg(&server.rtsp_url("cam"), &["-rtsp_transport", "tcp"], "1", &folder.path().join("n.mkv"));
        assert!(!good && complaint.contains("401"), "{methods}: {complaint}");
        let log = server.stop();
        assert!(!log.contains("heim"), "a password in the log: {log}");
    }
}

/// The first RTP packet that comes over a connection.
async fn first_rtp(client: &mut Client) -> Vec<u8> {
    loop {
        if let Some(Received::Packet(0, packet)) = client.receive().await {
            return packet;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_with_the_kept_gop() {
    // A keyframe every ten seconds: whoever waits for the next one would notice.
    let camera =
        Camera::start(Feed::custom(Feed::h264().launch.replace("key-int-max=25", "key-int-max=250")));
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    server.wait_for("cam", "some frames", LIMIT, |s| s["frames"].as_u64() > Some(30));
    for _ in 0..2 {
        let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
        let answer = client.play_tcp(&server.rtsp_url("cam")).await;
        let played = Instant::now();
        let packet = first_rtp(&mut client).await;
        assert!(played.elapsed() < Duration::from_secs(1), "{:?}", played.elapsed());
        // What PLAY promised, and parameter sets in front.
        let info = answer.header("rtp-info").to_owned();
        let expected = format!(
            "url={}/trackID=0;seq={};rtptime={}",
            server.rtsp_url("cam"),
            u16::from_be_bytes([packet[2], packet[3]]),
            u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
        );
        assert_eq!(info, expected);
        assert!(matches!(packet[12] & 0x1f, 24 | 7 | 6), "{:x?}", &packet[..20]);
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paced_start_takes_its_time() {
    let camera =
        Camera::start(Feed::custom(Feed::h264().launch.replace("key-int-max=25", "key-int-max=500")));
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "[rtsp]\nstart = \"paced\"\n", &camera.url());
    server.wait_for("cam", "some frames", LIMIT, |s| s["frames"].as_u64() > Some(75));
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    client.play_tcp(&server.rtsp_url("cam")).await;
    first_rtp(&mut client).await;
    let start = Instant::now();
    // Three seconds of frames are kept; four times as fast as they were they take three quarters of one.
    let mut frames = 0;
    while frames < 70 {
        frames += u32::from(first_rtp(&mut client).await[1] >> 7);
    }
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
    server.stop();
}

/// One that only listens has no picture to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_sound_alone() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "[defaults]\ngop_max_size = \"1KiB\"\n", &camera.url());
    let url = server.rtsp_url("cam");
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    // On channels of the client's own choice.
    let transport = [("Transport", "RTP/AVP/TCP;unicast;interleaved=10-11")];
    assert_eq!(client.request("SETUP", &format!("{url}/trackID=1"), &transport, "").await.status, 200);
    let answer = client.request("PLAY", &url, &[], "").await;
    assert!(answer.header("rtp-info").starts_with(&format!("url={url}/trackID=1;seq=")), "{answer:?}");
    let mut packets = 0;
    while packets < 20 {
        match client.receive().await.unwrap() {
            Received::Packet(10, packet) => {
                // The payload type of the second track.
                assert_eq!(packet[1] & 0x7f, 97);
                packets += 1;
            }
            Received::Packet(11, _) => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_go_both_ways() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    client.play_tcp(&server.rtsp_url("cam")).await;
    let (mut ssrc, mut media) = (None, None);
    let (ntp, timestamp, sender) = loop {
        match client.receive().await.unwrap() {
            Received::Packet(0, packet) => {
                media = Some(u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]));
                ssrc = Some(u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]));
            }
            Received::Packet(1, packet) => {
                let Report::Sender { ssrc, ntp, timestamp } = rtcp::parse(&packet).unwrap()[0] else {
                    panic!()
                };
                break (ntp, timestamp, ssrc);
            }
            _ => {}
        }
    };
    assert_eq!(Some(sender), ssrc);
    let wall = WallTime::from_ntp(ntp);
    assert!(WallTime::now().saturating_since(wall) < Duration::from_secs(5));
    // The report's clock is the media's: the newest frame is at most a GOP away.
    let ahead = timestamp.wrapping_sub(media.unwrap()) as i32;
    assert!((-90_000..300_000).contains(&ahead), "{ahead}");

    let reception = Reception {
        ssrc: sender,
        lost: 7,
        jitter: 900,
        last_report: (ntp >> 16) as u32,
        delay: 0,
        ..Reception::default()
    };
    let report = rtcp::receiver_report(1, &reception);
    let mut packet = vec![b'$', 1];
    packet.extend_from_slice(&(report.len() as u16).to_be_bytes());
    packet.extend_from_slice(&report);
    client.send(&packet).await;
    let start = Instant::now();
    loop {
        let (_, sessions) = server.call("GET", "/api/streams/cam/sessions", None);
        let session = &sessions["items"][0];
        if session["packets_lost"] == 7 {
            assert_eq!(session["jitter_ms"], 10.0);
            assert!(session["round_trip_ms"].as_f64().is_some_and(|ms| ms < 20_000.0), "{session}");
            assert_eq!((&session["transport"], &session["kind"]), (&json!("tcp"), &json!("reader")));
            break;
        }
        assert!(start.elapsed() < LIMIT, "{sessions}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_play_kick_and_teardown() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    let url = server.rtsp_url("cam");
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    client.play_tcp(&url).await;
    first_rtp(&mut client).await;
    assert_eq!(client.request("PAUSE", &url, &[], "").await.status, 200);
    let sessions =
        |server: &Server| server.call("GET", "/api/sessions", None).1["items"].as_array().unwrap().len();
    wait_until("it is held", LIMIT, || sessions(&server) == 0);
    // Nothing comes but the answer.
    client.send(b"GET_PARAMETER * RTSP/1.0\r\nCSeq: 90\r\n\r\n").await;
    let mut answered = false;
    let mut packets = 0;
    while !answered {
        match client.receive().await.unwrap() {
            Received::Answer(_) => answered = true,
            Received::Packet(..) => packets += 1,
        }
    }
    assert!(packets <= 30, "{packets} packets after PAUSE");
    let answer = client.request("PLAY", &url, &[("Range", "npt=0.000-"), ("Scale", "1.0")], "").await;
    assert_eq!(answer.status, 200);
    first_rtp(&mut client).await;
    let (_, list) = server.call("GET", "/api/sessions", None);
    let id = list["items"][0]["id"].as_u64().unwrap();
    assert_eq!(server.call("GET", &format!("/api/sessions/{id}"), None).1["stream"], "cam");
    assert_eq!(server.call("DELETE", &format!("/api/sessions/{id}"), None).0, 204);
    assert!(client.is_closed().await);
    assert_eq!(server.call("DELETE", &format!("/api/sessions/{id}"), None).0, 404);

    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    client.play_tcp(&url).await;
    assert_eq!(client.request("TEARDOWN", &url, &[], "").await.status, 200);
    wait_until("it is gone", LIMIT, || sessions(&server) == 0);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_cut_off_and_nobody_notices() {
    let camera = Camera::start(Feed::custom(
        Feed::h264()
            .launch
            .replace("bitrate=300", "bitrate=8000")
            .replace("videotestsrc is-live=true pattern=black", "videotestsrc is-live=true pattern=snow")
            .replace("identity name=stamp", "identity"),
    ));
    let folder = tempfile::tempdir().unwrap();
    let settings =
        "[rtsp]\nqueue_size = \"256KiB\"\nwrite_timeout = \"3s\"\n[defaults.recording]\nenabled = true\n";
    let server = server(folder.path(), settings, &camera.url());
    let url = server.rtsp_url("cam");
    let mut good = Client::connect(server.rtsp.parse().unwrap()).await;
    good.play_tcp(&url).await;
    let mut slow = Client::connect(server.rtsp.parse().unwrap()).await;
    slow.play_tcp(&url).await;
    // The slow one reads nothing from here on.
    let reading = tokio::spawn(async move {
        let (mut last, mut lost, mut packets) = (None, 0u32, 0u32);
        let end = Instant::now() + Duration::from_secs(12);
        while Instant::now() < end {
            if let Some(Received::Packet(0, packet)) = good.receive().await {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                if let Some(last) = last.replace(sequence) {
                    lost += u32::from(sequence.wrapping_sub(last).wrapping_sub(1));
                }
                packets += 1;
            }
        }
        (lost, packets, good)
    });
    let start = Instant::now();
    loop {
        let (_, sessions) = server.call("GET", "/api/sessions", None);
        if sessions["items"].as_array().unwrap().len() == 1 {
            break;
        }
        let queued = sessions["items"][1]["queued_bytes"].as_u64().unwrap();
        // The queue and at most the GOP that it began with.
        assert!(queued < (256 << 10) + (3 << 20), "{sessions}");
        assert!(start.elapsed() < LIMIT, "the slow reader is still there: {sessions}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(slow.is_closed().await);
    let (lost, packets, _good) = reading.await.unwrap();
    assert_eq!(lost, 0);
    assert!(packets > 500, "{packets}");
    let stream = server.stream("cam");
    assert_eq!(stream["recording"]["lost_frames"], 0);
    assert!(stream["consumers"].as_array().unwrap().iter().all(|c| c["dropped_frames"] == 0), "{stream}");
    server.stop();
}

#[test]
fn readers_stay_while_the_camera_restarts_and_changes_its_picture() {
    let mut camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "[defaults]\nretry_initial = \"200ms\"\n", &camera.url());
    let file = folder.path().join("through.ts");
    let mut command = Command::new("ffmpeg");
    command.args(reading_rtsp(&server.rtsp_url("cam")));
    command.args(["-t", "12", "-c", "copy"]).arg(&file).stdin(Stdio::null());
    let reader = std::thread::spawn(move || finish(command, LIMIT));
    let one = |s: &Value| {
        s["consumers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "rtsp" && c["frames"].as_u64() > Some(60))
    };
    server.wait_for("cam", "a reader that reads", LIMIT, one);
    camera.kill();
    server.wait_for("cam", "the outage", LIMIT, |s| s["state"] == "backoff");
    camera.revive();
    server.wait_for("cam", "running again", LIMIT, |s| s["state"] == "running");
    camera.resize(512, 288);
    let output = reader.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Times only go up, all through it.
    let packets = stream_manager_tests::media::packets(&file);
    assert!(packets.len() > 150, "{}", packets.len());
    assert!(packets.windows(2).all(|p| p[0].dts < p[1].dts));
    let mut probe = Command::new("ffprobe");
    probe.args("-v quiet -select_streams v -show_entries frame=width -of json".split(' ')).arg(&file);
    let frames: Value = serde_json::from_slice(&finish(probe, LIMIT).stdout).unwrap();
    let widths: std::collections::BTreeSet<u64> =
        frames["frames"].as_array().unwrap().iter().filter_map(|f| f["width"].as_u64()).collect();
    assert_eq!(widths.into_iter().collect::<Vec<_>>(), [384, 512]);
    server.stop();
}

#[test]
fn a_stream_that_has_no_tracks_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        "[rtsp]\nstart_timeout = \"1s\"\n[[streams]]\nid = \"dead\"\nsource_url = \"rtsp://127.0.0.1:1/x\"\n";
    let server = Server::start(folder.path(), Some(config));
    let (good, complaint) = ffmpeg(&server.rtsp_url("dead"), &[], "1", &folder.path().join("x.mkv"));
    assert!(!good && complaint.contains("503"), "{complaint}");
    let (good, complaint) = ffmpeg(&server.rtsp_url("none"), &[], "1", &folder.path().join("x.mkv"));
    assert!(!good && complaint.contains("404"), "{complaint}");
    let url = server.rtsp_url("late");
    let file = folder.path().join("late.mkv");
    let reader = {
        let file = file.clone();
        std::thread::spawn(move || ffmpeg(&url, &["-rtsp_transport", "tcp"], "1", &file))
    };
    drop(reader);
    // Made now; whoever asks meanwhile waits.
    server.call("POST", "/api/streams", Some(&json!({"id": "late", "source_url": "test://smpte"})));
    let (good, complaint) = ffmpeg(&server.rtsp_url("late"), &["-rtsp_transport", "tcp"], "1", &file);
    assert!(good, "{complaint}");
    server.stop();
}

/// A reader by UDP behind a network that swaps packets, and then one that also loses some.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_by_udp_on_a_bad_network() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    let url = server.rtsp_url("cam");
    for lossy in [false, true] {
        let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
        let described = client.request("DESCRIBE", &url, &[], "").await;
        let mut receiver = Receiver::new(&parse(described.body.as_bytes()).unwrap(), 64).unwrap();
        let (rtp, rtcp) = client.play_udp(&url).await;
        let hub = Hub::default();
        let mut frames = hub.subscribe("test", ReaderOptions::default());
        let writer = hub.writer();
        let (mut held, mut count, mut dropped) = (Vec::new(), 0u64, 0u64);
        let mut buffer = vec![0u8; 2048];
        let mut other = vec![0u8; 2048];
        let mut to = None;
        while count < 400 {
            tokio::select! {
                packet = rtp.recv_from(&mut buffer) => {
                    let (length, _) = packet.unwrap();
                    count += 1;
                    if lossy && count % 20 == 7 {
                        dropped += 1;
                        continue;
                    }
                    held.push(bytes::Bytes::copy_from_slice(&buffer[..length]));
                    // Four at a time, the wrong way round.
                    if held.len() == 4 {
                        for packet in held.drain(..).rev() {
                            receiver.rtp(0, &packet, &writer).unwrap();
                        }
                    }
                }
                report = rtcp.recv_from(&mut other) => to = Some(report.unwrap().1),
            }
        }
        let mut last = None;
        let mut jumps = 0;
        while let Some(item) = frames.try_next() {
            if let HubItem::Frame(frame) = item
                && let Some(last) = last.replace(frame.pts.as_nanos())
            {
                jumps += u32::from(frame.pts.as_nanos() - last > 50_000_000);
            }
        }
        let lost = receiver.stats().lost;
        if lossy {
            // The first hole may lie before the first packet that counts, the last one behind the last.
            assert!(lost >= dropped - 2 && lost <= dropped, "{lost} of {dropped}");
            // What the receiver reports shows with the session.
            let report = receiver.report(0).unwrap();
            rtcp.send_to(&report, to.expect("no sender report came")).await.unwrap();
            let start = Instant::now();
            loop {
                let (_, sessions) = server.call("GET", "/api/sessions", None);
                if sessions["items"][0]["packets_lost"].as_u64() > Some(10) {
                    assert_eq!(sessions["items"][0]["transport"], "udp");
                    break;
                }
                assert!(start.elapsed() < LIMIT, "{sessions}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        } else {
            assert_eq!((lost, jumps), (0, 0));
        }
        client.request("TEARDOWN", &url, &[], "").await;
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_for_both_families() {
    let folder = tempfile::tempdir().unwrap();
    let listens = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !listens {
        println!("SKIPPED: there is no IPv6 here");
        return;
    }
    let config = "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte\"\n";
    let server = Server::start_with(folder.path(), Some(config), |command| {
        command.env("STREAM_MANAGER_RTSP__LISTEN", "[::]:0");
    });
    server.wait_for("cam", "running", LIMIT, |s| s["state"] == "running");
    let port = server.rtsp.rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("rtsp://{host}:{port}/cam");
        let mut client = Client::connect(format!("{host}:{port}").parse().unwrap()).await;
        let (rtp, _rtcp) = client.play_udp(&url).await;
        let mut buffer = [0u8; 2048];
        let received =
            tokio::time::timeout(LIMIT, rtp.recv_from(&mut buffer)).await.expect("no media").unwrap();
        assert!(received.0 > 12);
        let file = folder.path().join("six.mkv");
        let (good, complaint) = ffmpeg(&url, &["-rtsp_transport", "tcp"], "1", &file);
        assert!(good, "{host}: {complaint}");
        client.request("TEARDOWN", &url, &[], "").await;
    }
    server.stop();
}

/// A client that comes again with the ports that it had: the old session does not keep it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_again_from_the_same_ports() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "", &camera.url());
    let url = server.rtsp_url("cam");
    let rtp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = rtp.local_addr().unwrap().port();
    let transport = format!("RTP/AVP;unicast;client_port={port}-{}", port ^ 1);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
        let track = format!("{url}/trackID=0");
        assert_eq!(client.request("SETUP", &track, &[("Transport", &transport)], "").await.status, 200);
        assert_eq!(client.request("PLAY", &url, &[], "").await.status, 200);
        clients.push(client);
    }
    assert!(clients[0].is_closed().await);
    let mut buffer = [0u8; 2048];
    for _ in 0..50 {
        tokio::time::timeout(LIMIT, rtp.recv(&mut buffer)).await.expect("no media").unwrap();
    }
    let (_, sessions) = server.call("GET", "/api/sessions", None);
    assert_eq!(sessions["items"].as_array().unwrap().len(), 1, "{sessions}");
    server.stop();
}
