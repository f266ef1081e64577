//! Streams published by RTSP: by other people's programs, by TCP and UDP, recorded and read again.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stream_manager_core::frame::{CodecParameters, Frame};
use stream_manager_core::hub::{Hub, HubItem, ReaderOptions};
use stream_manager_core::rtp::{Packetizer, PacketizerOptions};
use stream_manager_core::source::{Source, TestSource};
use stream_manager_tests::client::Client;
use stream_manager_tests::media::{assert_contiguous, check, counters, files, reading_rtsp};
use stream_manager_tests::program::{OPEN_API, Server, clip, run, signal, wait};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(40);

const CONFIG: &str = "[[streams]]\nid = \"cam/*\"\nsource_url = \"publisher\"\n[streams.recording]\nenabled = true\n\
    [[streams]]\nid = \"strict\"\nsource_url = \"publisher\"\noverride_publisher = false\n\
    [[streams]]\nid = \"own\"\nsource_url = \"test://smpte\"\n";

fn publish(file: &Path, url: &str, transport: &str) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(file);
    command.args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, url]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

fn recorded(folder: &Path, id: &str) -> Vec<u32> {
    let all = files(&folder.join("data/recordings").join(id));
    let mut numbers = Vec::new();
    for file in &all {
        check(file);
        numbers.extend(counters(file));
    }
    numbers
}

#[test]
fn ffmpeg_publishes_by_tcp_and_udp_and_all_of_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 6);
    let server = Server::start(folder.path(), Some(CONFIG));
    for transport in ["tcp", "udp"] {
        let id = format!("cam/{transport}");
        let mut publisher = publish(&file, &server.rtsp_url(&id), transport);
        let stream = server.wait_for(&id, "running", LIMIT, |s| s["state"] == "running");
        assert_eq!(stream["source_url"], "publisher");
        let codecs: Vec<&str> =
            stream["tracks"].as_array().unwrap().iter().map(|t| t["codec"].as_str().unwrap()).collect();
        assert_eq!(codecs, ["h264", "aac"]);
        let (_, sessions) = server.call("GET", &format!("/api/streams/{id}/sessions"), None);
        assert_eq!(sessions["items"][0]["kind"], "publisher", "{sessions}");
        assert_eq!(sessions["items"][0]["transport"], transport);
        // Read while it is published.
        let (code, text) = run(
            &["record", &server.rtsp_url(&id), "-o", "read.mp4", "--duration", "2s", "-y"],
            folder.path(),
        );
        assert_eq!(code, 0, "{text}");
        assert_contiguous(&counters(&folder.path().join("read.mp4")), &id);
        assert!(wait(&mut publisher, LIMIT).success());
        server.wait_for(&id, "idle again", LIMIT, |s| s["state"] == "idle");
    }
    server.stop();
    for transport in ["tcp", "udp"] {
        let numbers = recorded(folder.path(), &format!("cam/{transport}"));
        assert_contiguous(&numbers, transport);
        assert!(numbers.len() >= 148, "{transport}: {} frames of 150", numbers.len());
    }
}

#[test]
fn gstreamer_publishes_by_tcp_and_udp() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    for transport in ["tcp", "udp"] {
        let id = format!("cam/gst-{transport}");
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "-e"]).args(
            "videotestsrc is-live=true num-buffers=120 ! video/x-raw,width=320,height=240,framerate=25/1,format=I420 \
             ! x264enc key-int-max=25 tune=zerolatency ! h264parse ! rtspclientsink name=sink \
             audiotestsrc is-live=true num-buffers=200 ! audioconvert ! avenc_aac ! aacparse ! sink."
                .split_whitespace(),
        );
        let location = format!("location={}", server.rtsp_url(&id));
        let at = "name=sink";
        let args: Vec<String> = command.get_args().map(|a| a.to_str().unwrap().to_owned()).collect();
        let mut command = Command::new("gst-launch-1.0");
        for arg in args {
            let is_sink = arg == at;
            command.arg(arg);
            if is_sink {
                command.args([&location, &format!("protocols={transport}")]);
            }
        }
        let mut publisher = command.stdin(Stdio::null()).spawn().unwrap();
        let stream = server.wait_for(&id, "frames", LIMIT, |s| s["frames"].as_u64() > Some(100));
        assert_eq!(stream["tracks"].as_array().unwrap().len(), 2, "{stream}");
        // This element's own end does not always come (GStreamer 1.22): once all is sent, it is ended.
        server.wait_for(&id, "all frames", LIMIT, |s| s["frames"].as_u64() >= Some(120 + 190));
        publisher.kill().unwrap();
        publisher.wait().unwrap();
        server.wait_for(&id, "idle again", LIMIT, |s| s["state"] == "idle");
    }
    server.stop();
}

#[test]
fn who_may_take_a_stream_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 12);
    let server = Server::start(folder.path(), Some(CONFIG));
    // The first one is replaced, readers stay.
    let mut first = publish(&file, &server.rtsp_url("cam/1"), "tcp");
    server.wait_for("cam/1", "running", LIMIT, |s| s["state"] == "running");
    let mut reader = Command::new("ffmpeg");
    let through = folder.path().join("through.mkv");
    reader.args(reading_rtsp(&server.rtsp_url("cam/1")));
    reader.args(["-t", "8", "-c", "copy"]).arg(&through).stdin(Stdio::null());
    let mut reader = reader.spawn().unwrap();
    let reads = |s: &serde_json::Value| {
        s["consumers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "rtsp" && c["frames"].as_u64() > Some(100))
    };
    server.wait_for("cam/1", "a reader", LIMIT, reads);
    let mut second = publish(&file, &server.rtsp_url("cam/1"), "tcp");
    assert!(!wait(&mut first, LIMIT).success());
    assert!(wait(&mut reader, LIMIT).success());
    // Both publishers' pictures, one after the other, without a complaint.
    let numbers = counters(&through);
    let jumps = numbers.windows(2).filter(|n| n[0] + 1 != n[1]).count();
    assert!(numbers.len() > 150 && jumps == 1, "{numbers:?}");
    signal(&second, "TERM");
    wait(&mut second, LIMIT);

    // Where it is so set, the second one is refused.
    let mut first = publish(&file, &server.rtsp_url("strict"), "tcp");
    server.wait_for("strict", "running", LIMIT, |s| s["state"] == "running");
    assert!(!wait(&mut publish(&file, &server.rtsp_url("strict"), "tcp"), LIMIT).success());
    assert_eq!(server.stream("strict")["state"], "running");
    // A publisher that dies leaves the stream free.
    first.kill().unwrap();
    first.wait().unwrap();
    server.wait_for("strict", "idle again", LIMIT, |s| s["state"] == "idle");
    let mut again = publish(&file, &server.rtsp_url("strict"), "udp");
    server.wait_for("strict", "running again", LIMIT, |s| s["state"] == "running");
    // One that is ended by request, too.
    let (_, sessions) = server.call("GET", "/api/streams/strict/sessions", None);
    let id = sessions["items"][0]["id"].as_u64().unwrap();
    assert_eq!(server.call("DELETE", &format!("/api/sessions/{id}"), None).0, 204);
    server.wait_for("strict", "idle again", LIMIT, |s| s["state"] == "idle");
    let _ = again.kill();
    wait(&mut again, LIMIT);

    // A stream with a source of its own, and one that no pattern fits.
    for id in ["own", "elsewhere"] {
        assert!(!wait(&mut publish(&file, &server.rtsp_url(id), "tcp"), LIMIT).success(), "{id}");
    }
    assert_eq!(server.call("GET", "/api/streams/elsewhere", None).0, 404);
    server.stop();
}

#[test]
fn publishing_needs_the_right_user() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 4);
    let config = format!(
        "{CONFIG}[auth]\n[[auth.users]]\nname = \"camera\"\npassword = \"geheim\"\nread = []\npublish = [\"cam/*\"]\n\
         [[auth.users]]\nname = \"viewer\"\npassword = \"v\"\n{OPEN_API}"
    );
    let server = Server::start(folder.path(), Some(&config));
    let with = |who: &str, id: &str| format!("rtsp://{who}{}/{id}", server.rtsp);
    for (who, id) in
        [("", "cam/1"), ("viewer:v@", "cam/1"), ("camera:geheim@", "strict"), ("camera:falsch@", "cam/1")]
    {
        assert!(!wait(&mut publish(&file, &with(who, id), "tcp"), LIMIT).success(), "{who} {id}");
    }
    let mut good = publish(&file, &with("camera:geheim@", "cam/1"), "tcp");
    server.wait_for("cam/1", "running", LIMIT, |s| s["state"] == "running");
    let (_, sessions) = server.call("GET", "/api/sessions", None);
    assert_eq!(sessions["items"][0]["user"], "camera");
    assert!(wait(&mut good, LIMIT).success());
    let log = server.stop();
    assert!(!log.contains("geheim") && !log.contains("falsch"), "{log}");
}

/// Frames of the test picture, as a source delivers them.
async fn frames(count: usize) -> Vec<Frame> {
    let hub = Hub::default();
    let mut reader = hub.subscribe("test", ReaderOptions::default());
    let writer = hub.writer();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let source = tokio::spawn(async move { TestSource::default().run(&writer, stop).await });
    let mut frames = Vec::new();
    while frames.len() < count {
        if let Some(HubItem::Frame(frame)) = reader.next().await
            && frame.is_video()
        {
            frames.push(frame);
        }
    }
    cancel.cancel();
    source.await.unwrap().unwrap();
    frames
}

/// Announces one H.264 track for publishing by UDP, and gives where the server listens.
async fn announce(
    client: &mut Client,
    url: &str,
    parameters: &CodecParameters,
    ports: (u16, u16),
) -> SocketAddr {
    let track = stream_manager_core::frame::Track {
        id: stream_manager_core::frame::TrackId(0),
        parameters: std::sync::Arc::new(parameters.clone()),
    };
    let sdp = stream_manager_core::rtp::format::describe(&[track], "127.0.0.1".parse().unwrap(), "test");
    let answer = client.request("ANNOUNCE", url, &[("Content-Type", "application/sdp")], &sdp).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let transport = format!("RTP/AVP/UDP;unicast;client_port={}-{};mode=record", ports.0, ports.1);
    let answer = client.request("SETUP", &format!("{url}/trackID=0"), &[("Transport", &transport)], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let port = answer.header("transport").split("server_port=").nth(1).unwrap();
    let port: u16 = port.split('-').next().unwrap().parse().unwrap();
    assert_eq!(client.request("RECORD", url, &[], "").await.status, 200);
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A bad network between: packets swapped, doubled, some lost.
#[tokio::test(flavor = "multi_thread")]
async fn packets_out_of_order_doubled_and_lost() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    let frames = frames(150).await;
    let (rtp, rtcp) = (
        tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let ports = (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    let to = announce(&mut client, &server.rtsp_url("cam/bad"), &frames[0].parameters, ports).await;
    let options = PacketizerOptions { packet_bytes: 400, sequence: Some(65_000), ..Default::default() };
    let mut packetizer = Packetizer::new(0, &frames[0].parameters, options);
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for frame in &frames {
        let made = packetizer.packetize(frame, frame.keyframe).unwrap();
        for index in 0..made.len() {
            let mut slices = Vec::new();
            made.datagram(index, &mut slices);
            packets.push(slices.iter().flat_map(|s| s.to_vec()).collect());
        }
    }
    // Swapped within twenty places, every tenth twice; nothing lost.
    let mut order: Vec<(usize, usize)> = (0..packets.len()).map(|n| (n + n * 7919 % 20, n)).collect();
    order[0].0 = 0;
    order.extend((0..packets.len()).step_by(10).map(|n| (n + 5, n)));
    order.sort_unstable();
    for (count, (_, index)) in order.iter().enumerate() {
        rtp.send_to(&packets[*index], to).await.unwrap();
        if count % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let stream = server.wait_for("cam/bad", "all frames", LIMIT, |s| s["frames"].as_u64() >= Some(148));
    assert_eq!(stream["packets_lost"], 0, "{stream}");
    client.request("TEARDOWN", &server.rtsp_url("cam/bad"), &[], "").await;
    server.stop();
    let numbers = recorded(folder.path(), "cam/bad");
    assert!(numbers.len() >= 145, "{}", numbers.len());
    assert_contiguous(&numbers, "swapped and doubled");

    // Now with holes: what is lost is counted, and what is recorded can be decoded.
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    let to = announce(&mut client, &server.rtsp_url("cam/bad"), &frames[0].parameters, ports).await;
    for (count, packet) in packets.iter().enumerate() {
        // Not at the very end: what never has a successor is not known to be missing.
        if count % 97 != 50 || count + 200 > packets.len() {
            rtp.send_to(packet, to).await.unwrap();
        }
        if count % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let lost = (50..=packets.len() - 200).step_by(97).count() as u64;
    let stream =
        server.wait_for("cam/bad", "the losses", LIMIT, |s| s["packets_lost"].as_u64() == Some(lost));
    assert!(stream["frames"].as_u64().unwrap() > 50, "{stream}");
    server.stop();
}

/// Media from somewhere else than was announced does not get in.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_into_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    let frames = frames(30).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut client = Client::connect(server.rtsp.parse().unwrap()).await;
    let to = announce(&mut client, &server.rtsp_url("cam/x"), &frames[0].parameters, (port, port ^ 1)).await;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut packetizer = Packetizer::new(0, &frames[0].parameters, PacketizerOptions::default());
    let mut sent = 0;
    for (number, frame) in frames.iter().enumerate() {
        let made = packetizer.packetize(frame, frame.keyframe).unwrap();
        for index in 0..made.len() {
            let mut slices = Vec::new();
            made.datagram(index, &mut slices);
            let data: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
            socket.send_to(&data, to).await.unwrap();
            stranger.send_to(&data, to).await.unwrap();
            stranger.send_to(b"garbage", to).await.unwrap();
            sent += 1;
        }
        if number % 5 == 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    server.wait_for("cam/x", "the frames", LIMIT, |s| s["frames"].as_u64() >= Some(29));
    let (_, sessions) = server.call("GET", "/api/sessions", None);
    assert_eq!(sessions["items"][0]["packets"], json!(sent), "{sessions}");
    server.stop();
}
