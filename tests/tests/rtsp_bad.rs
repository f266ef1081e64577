//! RTSP clients that do wrong: each gets the right status, its session ends, and nobody else notices.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};
use stream_manager_tests::client::{Client, Received};
use stream_manager_tests::program::Server;

const LIMIT: Duration = Duration::from_secs(40);

const CONFIG: &str = "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte\"\n\
    [[streams]]\nid = \"in\"\nsource_url = \"publisher\"\n";
const TCP: (&str, &str) = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
const SDP: (&str, &str) = ("Content-Type", "application/sdp");

fn start(config: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(config));
    server.wait_for("cam", "running", LIMIT, |s| s["state"] == "running");
    (server, folder)
}

async fn connect(server: &Server) -> Client {
    Client::connect(server.rtsp.parse().unwrap()).await
}

/// A reader that must not notice anything.
struct Witness {
    task: tokio::task::JoinHandle<(u32, u32)>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Witness {
    async fn start(server: &Server) -> Self {
        let mut client = connect(server).await;
        client.play_tcp(&server.rtsp_url("cam")).await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut last, mut lost, mut packets) = (None, 0u32, 0u32);
            while !*stopped.borrow() {
                if let Received::Packet(0, packet) = client.receive().await.expect("the witness was cut off")
                {
                    let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                    if let Some(last) = last.replace(sequence) {
                        lost += u32::from(sequence.wrapping_sub(last).wrapping_sub(1));
                    }
                    packets += 1;
                }
            }
            (lost, packets)
        });
        Self { task, stop }
    }

    async fn has_noticed_nothing(self) {
        self.stop.send_replace(true);
        let (lost, packets) = self.task.await.unwrap();
        assert_eq!(lost, 0);
        assert!(packets > 10, "{packets}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_rtsp() {
    let (server, _folder) = start(CONFIG);
    let witness = Witness::start(&server).await;
    let huge = [
        b"ANNOUNCE rtsp://h/in RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 10485760\r\n\r\n".to_vec(),
        vec![b'x'; 10 << 20],
    ]
    .concat();
    let endless = [b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n".to_vec(), b"X-Header: y\r\n".repeat(10_000)].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("10 MB", huge, 413),
        ("endless headers", endless, 400),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        ("RTSP/2.0", b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n".to_vec(), 505),
        ("noise", (0..5000u32).map(|n| ((n * 7919) >> 3) as u8 | 0x80).collect(), 400),
    ];
    for (name, bytes, status) in cases {
        let mut client = connect(&server).await;
        client.try_send(&bytes).await;
        // A server that closes while it is being sent more may take its answer back with it.
        if let Some(answer) = client.answer().await {
            assert_eq!(answer.status, status, "{name}: {answer:?}");
        } else {
            assert_eq!(name, "10 MB", "no answer to {name}");
        }
        assert!(client.is_closed().await, "{name}");
    }
    witness.has_noticed_nothing().await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_wrong_time_or_for_the_wrong_thing() {
    let (server, _folder) = start(CONFIG);
    let witness = Witness::start(&server).await;
    let url = server.rtsp_url("cam");
    let track = format!("{url}/trackID=0");
    let mut client = connect(&server).await;

    // Without CSeq, or with one that is none.
    client.send(b"OPTIONS * RTSP/1.0\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: x\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 400);
    assert_eq!(client.answer().await.unwrap().status, 400);
    // One that goes back is only repeated.
    client.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 3\r\n\r\n").await;
    let (first, second) = (client.answer().await.unwrap(), client.answer().await.unwrap());
    assert_eq!((first.header("cseq"), second.header("cseq")), ("7", "3"));
    assert!(first.header("public").contains("ANNOUNCE"));

    let absent = server.rtsp_url("none");
    let transports = |t: &'static str| [("Transport", t)];
    type Headers<'a> = Vec<(&'a str, &'a str)>;
    let cases: Vec<(&str, &str, Headers<'_>, u16)> = vec![
        ("PLAY", &url, vec![], 455),
        ("RECORD", &url, vec![], 455),
        ("PAUSE", &url, vec![], 455),
        ("PLAY", &url, vec![("Session", "12345")], 454),
        ("TEARDOWN", &url, vec![("Session", "12345")], 454),
        ("GET_PARAMETER", &url, vec![], 200),
        ("REDIRECT", &url, vec![], 455),
        ("DESCRIBE", &absent, vec![], 404),
        ("DESCRIBE", "rtsp://h/", vec![], 404),
        ("DESCRIBE", "*", vec![], 400),
        ("DESCRIBE", &url, vec![("Accept", "text/html")], 406),
        ("DESCRIBE", &url, vec![("Require", "www.onvif.org/ver20/backchannel")], 551),
        ("SETUP", &track, vec![], 400),
        ("SETUP", &absent, vec![TCP], 404),
        ("SETUP", "rtsp://h/cam/trackID=9", vec![TCP], 404),
        ("SETUP", "rtsp://h/cam/trackID=99999999999999999999", vec![TCP], 404),
        ("SETUP", &track, transports("RTP/AVP/TCP;unicast;interleaved=300-301").to_vec(), 400),
        ("SETUP", &track, transports("RTP/AVP/TCP;unicast;interleaved=255").to_vec(), 400),
        ("SETUP", &track, transports("RTP/AVP/TCP;unicast;interleaved=4-4").to_vec(), 400),
        ("SETUP", &track, transports("RTP/AVP;multicast").to_vec(), 461),
        ("SETUP", &track, transports("RTP/SAVP/TCP;unicast;interleaved=0-1").to_vec(), 461),
        ("SETUP", &track, transports("RAW/RAW/UDP;unicast").to_vec(), 461),
        ("SETUP", &track, transports("RTP/AVP;unicast").to_vec(), 461),
        ("SETUP", &track, transports("RTP/AVP;unicast;client_port=0-1").to_vec(), 400),
        (
            "SETUP",
            &track,
            transports("RTP/AVP;unicast;client_port=5000-5001;destination=192.0.2.9").to_vec(),
            403,
        ),
        ("SETUP", &track, transports("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record").to_vec(), 461),
        ("SETUP", &track, vec![TCP, ("Session", "12345")], 454),
    ];
    for (method, url, headers, status) in cases {
        let answer = client.request(method, url, &headers, "").await;
        assert_eq!(answer.status, status, "{method} {url} {headers:?}: {answer:?}");
        assert_eq!(client.session, None, "{method} {url} {headers:?}");
        if status == 551 {
            assert_eq!(answer.header("unsupported"), "www.onvif.org/ver20/backchannel");
        }
    }
    // Within a session.
    assert_eq!(client.request("SETUP", &track, &[TCP], "").await.status, 200);
    let second = format!("{url}/trackID=1");
    assert_eq!(client.request("SETUP", &second, &[TCP], "").await.status, 400, "channels that are taken");
    let udp = [("Transport", "RTP/AVP;unicast;client_port=5000-5001")];
    assert_eq!(client.request("SETUP", &second, &udp, "").await.status, 461, "TCP and UDP mixed");
    let other = server.rtsp_url("in/trackID=0");
    assert_eq!(client.request("SETUP", &other, &[TCP], "").await.status, 459);
    assert_eq!(client.request("ANNOUNCE", &url, &[SDP], "v=0").await.status, 455);
    assert_eq!(client.request("RECORD", &url, &[], "").await.status, 455);
    assert_eq!(client.request("PLAY", &url, &[], "").await.status, 200);
    assert_eq!(
        client.request("SETUP", &second, &[("Transport", "RTP/AVP/TCP;interleaved=2-3")], "").await.status,
        455
    );
    assert_eq!(client.request("SET_PARAMETER", &url, &[], "volume: 11").await.status, 451);
    assert_eq!(client.request("PLAY", &url, &[], "").await.status, 200, "again, to stay alive");
    // RTP and RTCP for nothing.
    client.send(b"$\x00\x00\x04abcd$\x01\x00\x04abcd$\xff\x00\x00$\x07\x00\x01x").await;
    assert_eq!(client.request("GET_PARAMETER", &url, &[], "").await.status, 200);
    assert_eq!(client.request("TEARDOWN", &url, &[], "").await.status, 200);
    witness.has_noticed_nothing().await;
    server.stop();
}

fn sdp(media: &str) -> String {
    format!("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n{media}")
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_that_do_wrong() {
    let (server, _folder) = start(CONFIG);
    let witness = Witness::start(&server).await;
    let url = server.rtsp_url("in");
    let h264 = sdp("m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n");
    let mut client = connect(&server).await;
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        (&url, "text/plain", h264.clone(), 415, "application/sdp"),
        (&url, "application/sdp", "nonsense".into(), 400, "session description"),
        (&url, "application/sdp", sdp(""), 400, "no tracks"),
        (&url, "application/sdp", sdp("m=video 0 RTP/AVP 96\r\na=rtpmap:96 H999/90000\r\n"), 415, "h999"),
        (&url, "application/sdp", sdp("m=video 0 RTP/AVP 96\r\n"), 415, "without a=rtpmap"),
        (&url, "application/sdp", sdp("m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/0\r\n"), 400, "rate"),
        (
            &url,
            "application/sdp",
            sdp("m=audio 0 RTP/AVP 96\r\na=rtpmap:96 mpeg4-generic/48000/2\r\n"),
            400,
            "aac",
        ),
        (&url, "application/sdp", sdp(&"m=audio 0 RTP/AVP 0\r\n".repeat(17)), 400, "17 tracks"),
        ("rtsp://h/cam", "application/sdp", h264.clone(), 403, "source of its own"),
        ("rtsp://h/none", "application/sdp", h264.clone(), 404, "no pattern"),
        ("rtsp://h/a/../b%20c", "application/sdp", h264.clone(), 404, "stream id"),
    ];
    for (url, kind, body, status, words) in cases {
        let answer = client.request("ANNOUNCE", url, &[("Content-Type", kind)], &body).await;
        assert_eq!(answer.status, status, "{url} {body}: {answer:?}");
        assert!(answer.reason.contains(words), "{words}: {answer:?}");
        assert_eq!(client.session, None);
    }
    assert_eq!(client.request("ANNOUNCE", &url, &[SDP], &h264).await.status, 200);
    assert_eq!(client.request("RECORD", &url, &[], "").await.status, 455, "before SETUP");
    assert_eq!(client.request("PLAY", &url, &[], "").await.status, 455);
    assert_eq!(client.request("SETUP", &format!("{url}/streamid=7"), &[TCP], "").await.status, 404);
    let play = [("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=play")];
    assert_eq!(client.request("SETUP", &format!("{url}/streamid=0"), &play, "").await.status, 461);
    let record = [("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record")];
    assert_eq!(client.request("SETUP", &format!("{url}/streamid=0"), &record, "").await.status, 200);
    assert_eq!(client.request("RECORD", &url, &[], "").await.status, 200);
    // Garbage as media: counted, and nothing comes of it.
    for length in [0u8, 1, 11, 12, 40] {
        let mut packet = vec![b'$', 0, 0, length];
        packet.extend((0..length).map(|n| n.wrapping_mul(77)));
        packet.extend_from_slice(&[b'$', 1, 0, length]);
        packet.extend((0..length).map(|n| n.wrapping_mul(33)));
        client.send(&packet).await;
    }
    let mut rtp = vec![b'$', 0, 0, 20, 0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    rtp.extend_from_slice(&[0x1c, 0x85, 1, 2, 3, 4, 5, 6]);
    client.send(&rtp).await;
    assert_eq!(client.request("GET_PARAMETER", &url, &[], "").await.status, 200);
    let stream = server.stream("in");
    assert_eq!(
        (stream["frames"].as_u64(), stream["state"].as_str()),
        (Some(0), Some("connecting")),
        "{stream}"
    );
    // Nobody reads a stream that has no picture yet for ever.
    drop(client);
    server.wait_for("in", "idle again", LIMIT, |s| s["state"] == "idle");
    let mut reader = connect(&server).await;
    assert_eq!(reader.request("DESCRIBE", &url, &[], "").await.status, 404);
    witness.has_noticed_nothing().await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_from_one_address() {
    let config = format!("[rtsp]\nmax_connections_per_address = 20\n{CONFIG}");
    let (server, _folder) = start(&config);
    let witness = Witness::start(&server).await;
    // Ten thousand, a hundred at a time; all but nineteen are turned away at once.
    let mut kept = Vec::new();
    for _ in 0..100 {
        let connects = (0..100).map(|_| tokio::net::TcpStream::connect(server.rtsp.clone()));
        let mut tasks = tokio::task::JoinSet::new();
        connects.for_each(|c| drop(tasks.spawn(c)));
        for socket in tasks.join_all().await.into_iter().flatten() {
            let mut byte = [0u8; 1];
            // Those that are let in say nothing; the others are closed.
            match tokio::time::timeout(Duration::from_millis(1), socket.readable()).await {
                Ok(_) if matches!(socket.try_read(&mut byte), Ok(0) | Err(_)) => drop(socket),
                _ => kept.push(socket),
            }
        }
    }
    let fds = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(fds < 100, "{fds}");
    assert_eq!(server.call("GET", "/health/live", None).0, 200);
    witness.has_noticed_nothing().await;
    drop(kept);
    // Then there is room again.
    let start = Instant::now();
    loop {
        let mut client = connect(&server).await;
        if client.try_send(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await && client.answer().await.is_some()
        {
            break;
        }
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_are_disconnected() {
    let config = format!("[rtsp]\nsession_timeout = \"5s\"\n{CONFIG}");
    let (server, _folder) = start(&config);
    let url = server.rtsp_url("cam");
    // By UDP nobody knows whether a reader that says nothing is still there.
    let mut silent = connect(&server).await;
    let _sockets = silent.play_udp(&url).await;
    let mut ready = connect(&server).await;
    assert_eq!(ready.request("SETUP", &format!("{url}/trackID=0"), &[TCP], "").await.status, 200);
    let mut mute = connect(&server).await;
    // One that plays by TCP shows by taking what is sent that it is there.
    let mut plays = connect(&server).await;
    plays.play_tcp(&url).await;
    let (a, b, c) = tokio::join!(silent.is_closed(), ready.is_closed(), mute.is_closed());
    assert!(a && b && c, "{a} {b} {c}");
    for _ in 0..200 {
        assert!(plays.receive().await.is_some());
    }
    // A client that does not read its answers.
    let mut deaf = connect(&server).await;
    let many = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1000);
    let start = Instant::now();
    while deaf.try_send(&many).await {
        assert!(start.elapsed() < LIMIT, "it is never disconnected");
    }
    server.stop();
}
