//! Recordings by RTSP: read by ffmpeg and GStreamer, and held, sought and sped up by a client that looks at every packet.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::client::{Client, Received};
use stream_manager_tests::media::{assert_contiguous, check, counters, packets};
use stream_manager_tests::program::{Server, finish, finish_reading};
use stream_manager_tests::recorded::{
    of_kind, path_of, record, seconds, segments, start, stopped, until_segments,
};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(60);

fn address(server: &Server, query: &str) -> String {
    format!("{}?{query}", server.rtsp_url("yard/cam"))
}

fn numbers_of(server: &Server) -> Vec<u32> {
    segments(server).iter().flat_map(|row| counters(path_of(row))).collect()
}

/// Copies all of it into a file with ffmpeg.
fn copy(url: &str, transport: &str, file: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-rtsp_transport", transport, "-i", url, "-c", "copy"]).arg(file);
    command.stdin(Stdio::null());
    let output = finish(command, SOON);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{transport}: {complaint}");
}

#[test]
fn other_programs_play_every_frame() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    until_segments(&server, 3);
    let rows = stopped(&server);
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows.last().unwrap()["end"]));
    let numbers = numbers_of(&server);
    let url = address(&server, &format!("start={from:.3}&end={to:.3}"));
    for transport in ["tcp", "udp"] {
        let file = folder.path().join(format!("{transport}.mkv"));
        let begun = Instant::now();
        copy(&url, transport, &file);
        // As fast as it was recorded, and no faster.
        assert!(begun.elapsed().as_secs_f64() > to - from - 1.0, "{transport}: {:?}", begun.elapsed());
        assert_eq!(counters(&file), numbers, "{transport}");
        let packets = check(&file);
        let first = |kind| of_kind(&packets, kind).next().unwrap().pts;
        assert!((first("audio") - first("video")).abs() < 0.1, "{} {}", first("audio"), first("video"));
        assert!(of_kind(&packets, "audio").count() as f64 > (to - from) * 46.0);
    }
    // ffmpeg goes to a place in it by itself.
    let file = folder.path().join("sought.mkv");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-rtsp_transport", "tcp", "-ss", "2.5", "-i", &url, "-c", "copy"]);
    command.arg(&file).stdin(Stdio::null());
    assert!(finish(command, SOON).status.success());
    let sought = counters(&file);
    assert!(sought[0] >= numbers[37] && sought[0] <= numbers[63], "{} of {numbers:?}", sought[0]);
    assert!(numbers.ends_with(&sought), "{sought:?}");
    assert!(!server.stop().contains("panicked"));
}

/// Without an end it goes on with what is being recorded.
#[test]
fn the_past_goes_over_into_live() {
    let camera = Camera::start(Feed::h264());
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 1);
    let url = address(&server, &format!("start={:.3}", seconds(&rows[0]["start"])));
    let file = folder.path().join("followed.mkv");
    let rows = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&url, "tcp", &file));
        wait_until("it is a session", SOON, || server.sessions("rtsp").len() == 1);
        until_segments(&server, 4);
        let rows = stopped(&server);
        copying.join().unwrap();
        rows
    });
    let numbers = numbers_of(&server);
    assert_eq!(counters(&file), numbers);
    // All of it by GStreamer too, which ends by itself.
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows.last().unwrap()["end"]));
    let url = address(&server, &format!("start={from:.3}&end={to:.3}"));
    let file = folder.path().join("gst.mkv");
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "-e", "rtspsrc", &format!("location={url}"), "protocols=tcp", "!", "rtph264depay"]);
    command.args(["!", "h264parse", "!", "matroskamux", "!", "filesink"]);
    command.arg(format!("location={}", file.display())).stdin(Stdio::null());
    finish_reading(command, SOON, "all that is recorded");
    let played = counters(&file);
    assert_contiguous(&played, "GStreamer");
    assert!(played.len() + 2 >= numbers.len() && numbers.ends_with(&played), "{played:?}");
    server.stop();
}

/// A client, and what it has been sent.
struct Viewer {
    client: Client,
    url: String,
    began: Option<(u16, u32)>,
}

/// A packet of the picture.
#[derive(Clone, Copy, Debug)]
struct Rtp {
    sequence: u16,
    time: u32,
    keyframe: bool,
    at: Instant,
}

impl Viewer {
    /// Sets up the picture of a recording.
    async fn new(server: &Server, query: &str) -> Self {
        let url = address(server, query);
        let host: SocketAddr =
            url.strip_prefix("rtsp://").unwrap().split('/').next().unwrap().parse().unwrap();
        let mut client = Client::connect(host).await;
        let described = client.request("DESCRIBE", &url, &[("Accept", "application/sdp")], "").await;
        assert_eq!(described.status, 200, "{described:?}");
        assert!(described.body.contains("a=range:npt=0-"), "{}", described.body);
        let track = described.body.lines().find_map(|line| line.strip_prefix("a=control:rtsp://")).unwrap();
        let track = format!("rtsp://{}", track.trim());
        let transport = [("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")];
        let answer = client.request("SETUP", &track, &transport, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { client, url, began: None }
    }

    /// Plays; gives the answer's `Range` and `Scale`.
    async fn play(&mut self, headers: &[(&str, &str)]) -> (String, String) {
        let answer = self.client.request("PLAY", &self.url, headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let info = answer.header("rtp-info").to_owned();
        let field = |name: &str| -> u64 {
            let text = info.split(';').find_map(|part| part.strip_prefix(name)).unwrap();
            text.split(',').next().unwrap().parse().unwrap()
        };
        self.began = Some((field("seq=") as u16, field("rtptime=") as u32));
        (answer.header("range").to_owned(), answer.header("scale").to_owned())
    }

    /// Packets until there are so many pictures, or it ends.
    async fn pictures(&mut self, number: usize) -> Vec<Rtp> {
        let (mut all, mut seen) = (Vec::<Rtp>::new(), 0);
        while seen < number {
            match self.client.receive().await {
                Some(Received::Packet(0, data)) => {
                    let keyframe = is_key(&data[12..]);
                    let time = u32::from_be_bytes(data[4..8].try_into().unwrap());
                    if all.last().is_none_or(|last| last.time != time) {
                        seen += 1;
                    }
                    let sequence = u16::from_be_bytes([data[2], data[3]]);
                    all.push(Rtp { sequence, time, keyframe, at: Instant::now() });
                }
                // A report; the last one says goodbye (203).
                Some(Received::Packet(1, data)) if data.windows(2).any(|w| w == [0x81, 203]) => break,
                Some(_) => {}
                None => break,
            }
        }
        all
    }

    async fn pause(&mut self) -> Vec<Rtp> {
        let sequence = 900;
        let session = self.client.session.clone().unwrap();
        let text = format!("PAUSE {} RTSP/1.0\r\nCSeq: {sequence}\r\nSession: {session}\r\n\r\n", self.url);
        self.client.send(text.as_bytes()).await;
        let mut last = Vec::new();
        loop {
            match self.client.receive().await.unwrap() {
                Received::Answer(answer) => {
                    assert_eq!(answer.status, 200);
                    return last;
                }
                Received::Packet(0, data) => last.push(Rtp {
                    sequence: u16::from_be_bytes([data[2], data[3]]),
                    time: u32::from_be_bytes(data[4..8].try_into().unwrap()),
                    keyframe: is_key(&data[12..]),
                    at: Instant::now(),
                }),
                Received::Packet(..) => {}
            }
        }
    }
}

/// Whether a payload has something of an IDR picture (RFC 6184: alone, among others, or a piece of one).
fn is_key(payload: &[u8]) -> bool {
    match payload[0] & 0x1f {
        24 => {
            let mut rest = &payload[1..];
            while rest.len() > 2 {
                let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                if rest[2] & 0x1f == 5 {
                    return true;
                }
                rest = &rest[2 + length..];
            }
            false
        }
        28 => payload[1] & 0x1f == 5,
        kind => kind == 5,
    }
}

fn pictures_of(packets: &[Rtp]) -> Vec<Rtp> {
    let mut all: Vec<Rtp> = Vec::new();
    for packet in packets {
        match all.last_mut() {
            Some(last) if last.time == packet.time => last.keyframe |= packet.keyframe,
            _ => all.push(*packet),
        }
    }
    all
}

fn npt(range: &str) -> f64 {
    range.strip_prefix("npt=").unwrap().split('-').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn held_sought_and_sped_up() {
    let (_folder, server) = tokio::task::spawn_blocking(|| start("test://ball?gop=25", "")).await.unwrap();
    let server = std::sync::Arc::new(server);
    let waited = server.clone();
    let rows = tokio::task::spawn_blocking(move || {
        let rows = until_segments(&waited, 8);
        record(&waited, "stop");
        rows
    })
    .await
    .unwrap();
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows[7]["end"]));
    let recorded: usize = rows[..8].iter().map(|row| of_kind(&packets(path_of(row)), "video").count()).sum();
    let query = format!("start={from:.3}&end={to:.3}");
    let mut viewer = Viewer::new(&server, &query).await;

    // From the beginning, each picture 40 ms behind the one before, numbers without a gap.
    let (range, scale) = viewer.play(&[("Range", "npt=0-")]).await;
    assert!(npt(&range).abs() < 0.05 && scale == "1.0", "{range} {scale}");
    let first = viewer.pictures(40).await;
    let began = viewer.began.unwrap();
    // The time is that of the range's beginning, with which sound may begin.
    assert!(first[0].sequence == began.0 && first[0].time.wrapping_sub(began.1) < 9000, "{began:?}");
    let even = |packets: &[Rtp], ticks: u32| {
        let shown = pictures_of(packets);
        let steps: Vec<u32> = shown.windows(2).map(|w| w[1].time.wrapping_sub(w[0].time)).collect();
        assert!(steps.iter().all(|step| step.abs_diff(ticks) <= 2), "{steps:?}");
    };
    let gapless =
        |packets: &[Rtp]| packets.windows(2).all(|w| w[1].sequence == w[0].sequence.wrapping_add(1));
    even(&first, 3600);
    assert!(gapless(&first));
    let took = first.last().unwrap().at - first[0].at;
    assert!(took > Duration::from_millis(1300), "40 pictures in {took:?}");

    // Held: nothing comes. Going on: the next picture, the next number, no gap in RTP's time.
    let mut rest = viewer.pause().await;
    rest.splice(..0, first.iter().copied());
    let quiet = tokio::time::timeout(Duration::from_millis(600), viewer.client.receive()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let held = pictures_of(&rest).len();
    viewer.play(&[]).await;
    let next = viewer.pictures(20).await;
    let last = rest.last().unwrap();
    assert_eq!(next[0].sequence, last.sequence.wrapping_add(1));
    assert!(next[0].time.wrapping_sub(last.time).abs_diff(3600) <= 2, "{last:?} {:?}", next[0]);
    even(&next, 3600);
    // The keyframes are where they have to be: every 25th.
    let shown: Vec<Rtp> = pictures_of(&rest).into_iter().chain(pictures_of(&next)).collect();
    let keys: Vec<usize> = shown.iter().enumerate().filter(|(_, p)| p.keyframe).map(|(n, _)| n).collect();
    assert!(held >= 40 && keys.iter().all(|n| n % 25 == 0) && keys.len() >= 2, "{keys:?} of {held}");

    // To another place, while it plays: the keyframe at or before it.
    let (range, _) = viewer.play(&[("Range", "npt=7.5-")]).await;
    let at = npt(&range);
    assert!(at <= 7.5 && at > 6.4, "{range}");
    let sought = viewer.pictures(30).await;
    let behind: Vec<Rtp> =
        sought.iter().copied().skip_while(|p| p.sequence != viewer.began.unwrap().0).collect();
    assert!(pictures_of(&behind)[0].keyframe, "{:?}", behind[0]);
    even(&behind, 3600);

    // Twice as fast: all pictures, at half their distance. Eight times: keyframes alone.
    let (range, scale) = viewer.play(&[("Range", "npt=2-"), ("Scale", "2.0")]).await;
    assert!(npt(&range) <= 2.0 && scale == "2.0", "{range} {scale}");
    let fast = viewer.pictures(60).await;
    let fast: Vec<Rtp> = fast.into_iter().skip_while(|p| p.sequence != viewer.began.unwrap().0).collect();
    even(&fast, 1800);
    let (_, scale) = viewer.play(&[("Range", "npt=0-"), ("Scale", "8")]).await;
    assert_eq!(scale, "8.0");
    let begun = Instant::now();
    let keys = viewer.pictures(1000).await;
    let keys: Vec<Rtp> = keys.into_iter().skip_while(|p| p.sequence != viewer.began.unwrap().0).collect();
    let shown = pictures_of(&keys);
    assert!(shown.iter().all(|p| p.keyframe), "{shown:?}");
    assert_eq!(shown.len(), recorded.div_ceil(25));
    even(&keys, 90_000 / 8);
    let length = begun.elapsed().as_secs_f64();
    assert!(length > (to - from) / 8.0 - 0.7, "{length}");

    // Behind the end one can go back; by the clock on the wall, too; and stop before the end.
    let noon = |time: f64| {
        let time = stream_manager_core::frame::WallTime::from_unix_nanos((time * 1e9) as i64);
        time.format_utc("%Y%m%dT%H%M%S%.3fZ")
    };
    let clock = format!("clock={}-{}", noon(from + 5.2), noon(from + 6.0));
    let (range, _) = viewer.play(&[("Range", &clock)]).await;
    // From the keyframe before: which that is goes by when the pictures were there, as far as this machine was in time.
    let begin = range.strip_prefix("clock=").unwrap().split('-').next().unwrap();
    let begin =
        begin.parse::<stream_manager_core::frame::WallTime>().unwrap().as_unix_nanos() as f64 / 1e9 - from;
    assert!((4.0..5.201).contains(&begin), "{range} {begin}");
    let few = viewer.pictures(1000).await;
    let few = pictures_of(&few);
    // Each file's clock is its own: where one ends the next may be a picture or two apart.
    let expected = (6.0 - begin) * 25.0;
    assert!(few[0].keyframe && (few.len() as f64 - expected).abs() <= 3.0, "{} {begin}", few.len());

    // What is not to be had is said; it stands still then.
    for (headers, status) in [
        (&[("Range", "smpte=0:10:00-")][..], 457),
        (&[("Range", "npt=9-3")], 457),
        (&[("Range", "npt=9999-")], 457),
        (&[("Scale", "fast")], 400),
    ] {
        let answer = viewer.client.request("PLAY", &viewer.url, headers, "").await;
        assert_eq!(answer.status, status, "{headers:?} {answer:?}");
    }
    let (_, scale) = viewer.play(&[("Range", "npt=0-"), ("Scale", "-1")]).await;
    assert_eq!(scale, "1.0", "backwards is not to be had");
    assert_eq!(viewer.client.request("TEARDOWN", &viewer.url, &[], "").await.status, 200);
    let log = tokio::task::spawn_blocking(move || std::sync::Arc::try_unwrap(server).ok().unwrap().stop());
    assert!(!log.await.unwrap().contains("panicked"));
}

/// What is asked for wrongly, or is not there.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_played_is_said() {
    let (_folder, server) = tokio::task::spawn_blocking(|| start("test://ball", "")).await.unwrap();
    let server = std::sync::Arc::new(server);
    let waited = server.clone();
    let rows = tokio::task::spawn_blocking(move || until_segments(&waited, 2)).await.unwrap();
    let from = seconds(&rows[0]["start"]);
    let host: SocketAddr =
        server.rtsp_url("").strip_prefix("rtsp://").unwrap().trim_end_matches('/').parse().unwrap();
    for (path, status) in [
        (format!("yard/cam?start={from:.3}&end={:.3}", from - 1.0), 400),
        ("yard/cam?start=then".to_owned(), 400),
        ("yard/cam?end=2030-01-01T00:00:00Z".to_owned(), 400),
        (format!("yard/cam?start={from:.3}&end=5&duration=1s"), 400),
        ("yard/cam?start=2100-01-01T00:00:00Z".to_owned(), 404),
        ("yard/cam?start=2000-01-01T00:00:00Z&duration=1h".to_owned(), 404),
        (format!("none?start={from:.3}"), 404),
        (format!("yard/cam?start={from:.3}&duration=2s"), 200),
    ] {
        let mut client = Client::connect(host).await;
        let url = format!("rtsp://{host}/{path}");
        let answer = client.request("DESCRIBE", &url, &[], "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    // Whoever takes nothing is cut off, and nobody else is disturbed.
    let mut viewer = Viewer::new(&server, &format!("start={from:.3}")).await;
    viewer.play(&[]).await;
    drop(viewer);
    let gone = server.clone();
    tokio::task::spawn_blocking(move || {
        wait_until("it is gone", SOON, || gone.sessions("rtsp").is_empty());
    })
    .await
    .unwrap();
    let log = tokio::task::spawn_blocking(move || std::sync::Arc::try_unwrap(server).ok().unwrap().stop());
    assert!(!log.await.unwrap().contains("panicked"));
}
