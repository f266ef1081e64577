//! WebRTC: who watches by WHEP gets every picture, also over a bad line, and whoever sends rubbish harms nobody.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use str0m::RtcConfig;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::{Answer, get, request, send};
use stream_manager_tests::media::assert_contiguous;
use stream_manager_tests::player::{Playing, missing};
use stream_manager_tests::program::{OPEN_API, Server, finish, tool, webrtcbin};
use stream_manager_tests::relay::{Conditions, Relay};
use stream_manager_tests::turn::Turn;
use stream_manager_tests::wait_until;
use stream_manager_tests::whep::{Client, Offer, candidate, post};

const SOON: Duration = Duration::from_secs(30);

fn with(camera: &Camera, more: &str) -> (tempfile::TempDir, Server) {
    let started = Server::alone(&format!(
        "{more}\n[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\n",
        camera.url()
    ));
    started.1.wait_for("yard/cam", "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    started
}

fn whep(server: &Server) -> String {
    server.url("/webrtc/yard/cam/whep")
}

fn sessions(server: &Server) -> Vec<Value> {
    server.sessions("webrtc")
}

/// What begins with the kept GOP has all its pictures, then all that come; sound comes along, as Opus; who says that the
/// picture is broken gets the GOP again.
#[test]
fn every_picture_comes_and_again_when_asked_for() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = with(&camera, "");
    let mut client = Client::connect(&whep(&server));
    client.until("pictures and sound", SOON, |c| c.video.len() >= 60 && c.sound.len() >= 40);
    assert!(client.video.iter().all(|picture| picture.contiguous));
    // Opus has frames of 20 ms.
    let steps: Vec<u64> = client.sound.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
    assert!(steps.iter().filter(|step| **step == 960).count() * 10 >= steps.len() * 9, "{steps:?}");
    // Times of pictures are the camera's, but for those that were there already when it began.
    let times: Vec<u64> =
        client.video.windows(2).rev().take(20).map(|pair| pair[1].time - pair[0].time).collect();
    assert!(times.iter().all(|step| (3000..=4200).contains(step)), "{times:?}");
    client.ask_for_keyframe();
    let asked = client.video.len();
    // What comes again has no time to lose: the first is a tick behind what was sent last.
    let pressed =
        |c: &mut Client| (asked..c.video.len()).find(|n| c.video[*n].time == c.video[n - 1].time + 1);
    client.until("pictures again", SOON, |c| pressed(c).is_some());
    let enough = client.video.len() + 60;
    client.until("pictures after these", SOON, |c| c.video.len() >= enough);
    // From the keyframe before on, the same again; without that, each comes once.
    let again = pressed(&mut client).unwrap();
    assert!(client.video[again].is_idr());
    let first = (0..again).rev().find(|n| client.video[*n].is_idr()).unwrap();
    let same = |n: usize| client.video[n].data == client.video[again + n - first].data;
    assert!((first..again).all(same), "{first} {again}");
    client.video.drain(again..again + (again - first));
    assert_contiguous(&client.counters(), "from the kept GOP on");
    let listed = sessions(&server);
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0]["packets"].as_u64() > Some(100) && listed[0]["transport"] == "udp", "{listed:?}");
    assert_eq!(request("DELETE", &client.session, &[]).status, 200);
    client.until("goodbye", SOON, |c| c.closed);
    wait_until("the session's end", SOON, || sessions(&server).is_empty());
    assert_eq!(request("DELETE", &client.session, &[]).status, 404);
    // Nobody watches, so nothing is packetized.
    wait_until("the feed's end", SOON, || {
        let consumers = server.stream("yard/cam")["consumers"].to_string();
        !consumers.contains("webrtc")
    });
    server.stop();
}

/// A line that loses one datagram in twenty, both ways: all of the picture is there all the same.
#[test]
fn the_picture_stays_whole_on_a_bad_line() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let mut line = None;
    let mut client = Client::connect_through(&whep(&server), |server| {
        let lossy = Relay::losing(server, 5);
        let address = lossy.address();
        line = Some(lossy);
        Some(address)
    });
    client.until("pictures", SOON, |c| c.video.len() >= 200);
    assert!(line.unwrap().lost.load(std::sync::atomic::Ordering::Relaxed) > 10);
    let missing = client.video.iter().filter(|picture| !picture.contiguous).count();
    assert_eq!(missing, 0);
    assert_contiguous(&client.counters(), "on a bad line");
    server.stop();
}

/// More than the line of the tests carries: 1.5 Mbit/s.
fn rich() -> Feed {
    Feed::custom(
        "( videotestsrc is-live=true pattern=black ! capsfilter name=size \
         caps=video/x-raw,format=I420,width=384,height=240,framerate=25/1 ! identity name=stamp \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=1500 vbv-buf-capacity=300 \
         option-string=nal-hrd=cbr:filler=1 ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
    )
}

/// 0.7 Mbit/s, with a queue of 0.4 s as routers have.
const THIN: Conditions =
    Conditions { loss_percent: 0, carries: Some((90_000.0, Duration::from_millis(400))) };

fn by_relay(server: &Server, config: RtcConfig, conditions: Conditions) -> (Client, Relay) {
    let offer = Offer::with(config);
    let answer = post(&whep(server), &offer.sdp, &[]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let relay = Relay::start(candidate(&answer.text()), conditions);
    let client = offer.accept(&whep(server), &answer, Some(relay.address()));
    (client, relay)
}

/// A line that carries half: whole GOPs are left out, so that what is there is whole, and it is not late either. When the
/// line is better, everything comes.
#[test]
fn on_a_thin_line_whole_gops_are_left_out() {
    let camera = Camera::start(rich());
    let (_folder, server) = with(&camera, "");
    // Packets that are sent again are waited for, as browsers do.
    let config = RtcConfig::new().set_reordering_size_video(250);
    let (mut client, relay) = by_relay(&server, config, THIN);
    let mut looked = Instant::now();
    let mut limited = |c: &mut Client, wanted: bool| {
        // Its steps are many, and the server has other things to do.
        looked.elapsed() > Duration::from_millis(300) && {
            looked = Instant::now();
            let entry = &sessions(&server)[0];
            assert!(!c.closed);
            entry["state"] == "connected" && entry["line_bps"].is_number() == wanted
        }
    };
    client.until("the thin line is known", SOON, |c| limited(c, true));
    let mut lost = (0, Instant::now());
    client.until("it has settled", SOON, |_| {
        let now = relay.lost.load(std::sync::atomic::Ordering::Relaxed);
        if now != lost.0 {
            lost = (now, Instant::now());
        }
        lost.1.elapsed() > Duration::from_secs(3)
    });
    client.video.clear();
    client.until("pictures on a thin line", SOON * 2, |c| c.video.len() >= 100);
    let first = client.video.iter().position(|p| p.is_idr()).unwrap();
    client.video.drain(..first);
    // In ticks; 3600 from one picture to the next.
    let leaps: Vec<_> =
        client.video.windows(2).filter(|p| p[1].time - p[0].time > 5400).map(|p| &p[1]).collect();
    assert!(leaps.len() > 2, "it is too much for this line");
    assert!(leaps.iter().all(|p| p.is_idr() || !p.contiguous), "pictures of a GOP were left out");
    // When it finds out that the line is still no better, a few are lost.
    let broken = client.video.iter().filter(|p| !p.contiguous && !p.is_idr()).count();
    assert!(broken <= 8, "{broken} of {}", client.video.len());
    assert!(sessions(&server)[0]["dropped_frames"].as_u64() > Some(0));
    relay.set(Conditions::default());
    client.until("all of it again", SOON * 2, |c| limited(c, false));
    client.video.clear();
    client.until("pictures", SOON, |c| c.video.len() >= 75);
    assert_contiguous(&client.counters()[25..], "on a line that has become better");
    server.stop();
}

/// If there is a lower stream, it is sent instead, in one go with the other one, and the better one is tried again.
#[test]
fn on_a_thin_line_the_lower_stream_is_sent() {
    let (main, sub) = (Camera::start(rich()), Camera::start(Feed::h264()));
    let (_folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\nhls = {{ variants = [\"yard/sub\"] }}\n\
         [[streams]]\nid = \"yard/sub\"\nsource_url = \"{}\"\n",
        main.url(),
        sub.url()
    ));
    for id in ["yard/cam", "yard/sub"] {
        server.wait_for(id, "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    }
    // Told of by transport-wide feedback.
    let mut transport_wide = str0m::rtp::ExtensionMap::empty();
    transport_wide.set(3, str0m::rtp::Extension::TransportSequenceNumber);
    transport_wide.set(4, str0m::rtp::Extension::RtpMid);
    let config = RtcConfig::new().set_extension_map(transport_wide);
    let (mut client, relay) = by_relay(&server, config, THIN);
    let mut looked = Instant::now();
    let mut gets = |wanted: &Value| {
        looked.elapsed() > Duration::from_millis(300) && {
            looked = Instant::now();
            let entry = &sessions(&server)[0];
            entry["state"] == "connected" && entry["gets"] == *wanted
        }
    };
    client.until("the lower one", SOON, |_| gets(&Value::from("yard/sub")));
    client.video.clear();
    client.until("its pictures", SOON, |c| c.video.len() >= 75);
    let first = client.video.iter().position(|p| p.is_idr()).unwrap();
    let small: usize = client.video[first..].iter().map(|p| p.data.len()).sum();
    assert!(small / (client.video.len() - first) < 3000, "{small}");
    let times: Vec<u64> = client.video.iter().map(|p| p.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    relay.set(Conditions::default());
    client.until("the better one", SOON * 2, |_| gets(&Value::Null));
    client.video.clear();
    client.until("its pictures", SOON, |c| c.video.len() >= 50);
    let times: Vec<u64> = client.video.iter().map(|p| p.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_contiguous(&client.counters()[25..], "of the better one");
    client.leave();
    wait_until("it is gone", SOON, || sessions(&server).is_empty());
    server.stop();
}

/// By a data channel a viewer is told what happens to its stream, and to no other, if that is wanted.
#[test]
fn a_viewer_is_told_the_stream_s_events() {
    let camera = Camera::start(Feed::h264());
    for wanted in [true, false] {
        let more = format!(
            "[webrtc]\nevents = {wanted}\n[[streams]]\nid = \"other\"\nsource_url = \"test://ball\"\n"
        );
        let (_folder, server) = with(&camera, &more);
        let offer = Offer::with_channel();
        let answer = post(&whep(&server), &offer.sdp, &[]);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let mut client = offer.accept(&whep(&server), &answer, None);
        client.until("pictures", SOON, |c| c.video.len() >= 50);
        for id in ["other", "yard/cam"] {
            let path = format!("/api/streams/{id}/recording/start");
            assert_eq!(server.call("POST", &path, None).0, 200);
        }
        let seen = client.video.len();
        client.until("more pictures", SOON, |c| c.video.len() >= seen + 50);
        let told: Vec<Value> = client.told.iter().map(|t| serde_json::from_str(t).unwrap()).collect();
        assert_eq!(told.iter().any(|e| e["kind"] == "recording_state"), wanted, "{told:?}");
        assert!(told.iter().all(|event| event["stream"] == "yard/cam"), "{told:?}");
        client.leave();
        server.stop();
    }
}

#[test]
fn it_is_watched_by_ipv6() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\n", camera.url());
    let server = Server::start_with(folder.path(), Some(&config), |command| {
        command.env("STREAM_MANAGER_WEBRTC__LISTEN", "[::1]:0");
    });
    let offer = Offer::from("[::1]:0");
    let answer = post(&whep(&server), &offer.sdp, &[]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(!answer.text().contains(" 127.0.0.1 "), "{}", answer.text());
    let mut client = offer.accept(&whep(&server), &answer, None);
    client.until("pictures", SOON, |c| c.video.len() >= 50);
    assert!(client.video.iter().all(|picture| picture.contiguous));
    client.leave();
    server.stop();
}

/// Another network, for which ICE begins anew: the same session goes on, from another address.
#[test]
fn a_viewer_changes_its_network() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let mut client = Client::connect(&whep(&server));
    client.until("pictures", SOON, |c| c.video.len() >= 30);
    let before = sessions(&server);
    let tag = client.move_elsewhere().header("etag").to_owned();
    let old = tag.replace("-1\"", "-0\"");
    assert_ne!(old, tag);
    let seen = client.video.len();
    client.until("pictures there", SOON, |c| c.video.len() >= seen + 100);
    let after = sessions(&server);
    assert_eq!((after.len(), &after[0]["id"]), (1, &before[0]["id"]));
    let fragment = [("content-type", "application/trickle-ice-sdpfrag")];
    let patch = |tag: &str| {
        let headers = [&fragment[..], &[("if-match", tag)]].concat();
        send("PATCH", &client.session, &headers, b"a=end-of-candidates\r\n").status
    };
    assert_eq!((patch(&old), patch(&tag)), (412, 204));
    // A second time, since that is another one.
    client.move_elsewhere();
    let seen = client.video.len();
    client.until("pictures elsewhere", SOON, |c| c.video.len() >= seen + 50);
    client.leave();
    server.stop();
}

/// The camera goes and comes back, and the viewer sees it again without doing anything. With another codec, what was
/// agreed on does not hold any more, and the viewer is told.
#[test]
fn the_camera_may_go_and_come_back() {
    let mut camera = Camera::start(Feed::h264());
    let (_folder, server) = Server::alone("");
    let stream = serde_json::json!({ "id": "yard/cam", "source_url": camera.url() });
    assert_eq!(server.call("POST", "/api/streams", Some(&stream)).0, 201);
    let mut client = Client::connect(&whep(&server));
    client.until("pictures", SOON, |c| c.video.len() >= 30);
    camera.kill();
    server.wait_for("yard/cam", "loss", SOON, |stream| stream["state"] == "backoff");
    let before = client.video.len();
    camera.revive();
    client.until("pictures again", SOON, |c| c.video.len() >= before + 50);
    assert!(!client.closed);
    let vp8 = Camera::start(Feed::custom(
        "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 ! vp8enc deadline=1 \
         keyframe-max-dist=25 ! rtpvp8pay name=pay0 pt=96 )",
    ));
    let patch = serde_json::json!({ "source_url": vp8.url() });
    assert_eq!(server.call("PATCH", "/api/streams/yard/cam", Some(&patch)).0, 200);
    client.until("goodbye", SOON, |c| c.closed);
    let mut client = Client::connect(&whep(&server));
    client.until("pictures of VP8", SOON, |c| c.video.len() >= 30);
    server.stop();
}

fn body(kind: &str, url: &str, body: &[u8]) -> Answer {
    send("POST", url, &[("content-type", kind)], body)
}

#[test]
fn what_is_wrong_with_an_offer_is_said() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let url = whep(&server);
    let answer = request(
        "OPTIONS",
        &url,
        &[("origin", "https://a.example"), ("access-control-request-method", "POST")],
    );
    assert_eq!((answer.status, answer.header("accept-post")), (204, "application/sdp"));
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    let offer = Offer::new().sdp;
    for (kind, text, status, code) in [
        ("application/sdp", "rubbish".to_owned(), 400, "invalid_offer"),
        ("application/sdp", String::new(), 400, "invalid_offer"),
        // The parser takes what is behind such a line for media, and panics.
        (
            "application/sdp",
            "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nrubbish\r\nc=IN IP4 0.0.0.0\r\n".to_owned(),
            400,
            "invalid_offer",
        ),
        ("application/sdp", offer.replace("a=fingerprint", "a=thumbprint"), 400, "invalid_offer"),
        ("application/sdp", offer.replace("a=recvonly", "a=inactive"), 400, "invalid_offer"),
        ("application/sdp", offer.replace("a=mid:", "a=mid:long"), 400, "invalid_offer"),
        ("application/json", offer.clone(), 415, "unsupported_media_type"),
    ] {
        let answer = body(kind, &url, text.as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{kind} {text:.80} {}",
            answer.text()
        );
    }
    let large = body("application/sdp", &url, &vec![b'a'; 100 << 10]);
    assert_eq!((large.status, large.code().as_str()), (413, "body_too_large"));
    let vp8 = Offer::with(RtcConfig::new().clear_codecs().enable_vp8(true)).sdp;
    let answer = post(&url, &vp8, &[]);
    assert_eq!((answer.status, answer.code().as_str()), (406, "no_common_codec"));
    assert!(answer.text().contains("offers no h264"), "{}", answer.text());
    assert_eq!(post(&server.url("/webrtc/nobody/whep"), &offer, &[]).status, 404);
    for (method, status) in [("GET", 405), ("PUT", 405), ("DELETE", 405)] {
        assert_eq!(request(method, &url, &[]).status, status, "{method}");
    }
    // A session that does not exist, and one that does.
    let fragment = [("content-type", "application/trickle-ice-sdpfrag")];
    let none = format!("{url}/0123456789abcdef0123456789abcdef");
    assert_eq!(send("PATCH", &none, &fragment, "").status, 404);
    let answer = post(&url, &offer, &[]);
    assert_eq!((answer.status, answer.header("content-type")), (201, "application/sdp"), "{}", answer.text());
    let session = stream_manager_tests::http::join(&url, answer.header("location"));
    let etag = answer.header("etag").to_owned();
    assert!(
        answer.text().contains("a=ice-lite") && answer.text().contains("a=sendonly"),
        "{}",
        answer.text()
    );
    let lines = "a=ice-ufrag:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n\
                 a=candidate:2 1 udp 2130706431 abc.local 9 typ host\r\na=candidate:rubbish\r\na=end-of-candidates\r\n";
    let patch =
        |more: &[(&str, &str)]| send("PATCH", &session, &[&fragment[..], more].concat(), lines).status;
    assert_eq!(patch(&[]), 204);
    assert_eq!(patch(&[("if-match", &etag)]), 204);
    assert_eq!(patch(&[("if-match", "\"other\"")]), 412);
    // ICE anew wants a name and a password.
    assert_eq!(patch(&[("if-match", "*")]), 422);
    assert_eq!(send("PATCH", &session, &[("content-type", "text/plain")], lines).status, 415);
    // Another stream's name does not help.
    let elsewhere = session.replace("yard/cam", "yard/other");
    assert_eq!(request("DELETE", &elsewhere, &[]).status, 404);
    assert_eq!(request("DELETE", &session, &[]).status, 200);
    server.stop();
}

fn with_b_frames() -> Feed {
    Feed::custom(
        "( videotestsrc is-live=true pattern=black ! capsfilter name=size \
         caps=video/x-raw,format=I420,width=384,height=240,framerate=25/1 ! identity name=stamp \
         ! x264enc bframes=2 b-adapt=false speed-preset=ultrafast key-int-max=25 rc-lookahead=5 \
         ! video/x-h264,profile=main ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
    )
}

#[test]
fn cameras_with_b_frames_are_refused_with_a_reason() {
    let camera = Camera::start(with_b_frames());
    let (_folder, server) = with(&camera, "");
    let answer = post(&whep(&server), &Offer::new().sdp, &[]);
    assert_eq!((answer.status, answer.code().as_str()), (406, "no_common_codec"), "{}", answer.text());
    assert!(answer.text().contains("turn B frames off"), "{}", answer.text());
    assert!(sessions(&server).is_empty());
    server.stop();
}

/// With `transcode`, it is encoded anew, once for all viewers, and no longer than there are any; sound is that of the camera.
#[test]
fn cameras_with_b_frames_are_encoded_anew() {
    let camera = Camera::start(with_b_frames());
    let (_folder, server) = with(&camera, "[webrtc]\ntranscode = \"auto\"\n");
    let made = || {
        let consumers = server.stream("yard/cam")["consumers"].clone();
        consumers.as_array().unwrap().iter().filter(|c| c["name"] == "transcoding").count()
    };
    assert_eq!(made(), 0);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(&whep(&server))).collect();
    for client in &mut clients {
        client.until("pictures", SOON, |c| c.video.len() >= 60);
        assert!(client.video.iter().all(|picture| picture.contiguous));
        assert!(
            client.video.windows(2).all(|pair| pair[0].time < pair[1].time),
            "in the order they are shown"
        );
    }
    assert_eq!(made(), 1);
    for client in &clients {
        let numbers = client.counters();
        assert_contiguous(&numbers[numbers.len() - 40..], "encoded anew");
    }
    clients.into_iter().for_each(Client::leave);
    wait_until("it is no longer made", SOON, || made() == 0);
    server.stop();
}

/// What is not sent is said where sessions are listed.
#[test]
fn what_is_left_out_is_said() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = with(&camera, "");
    let offer = Offer::with(RtcConfig::new().clear_codecs().enable_h264(true).enable_pcmu(true, false)).sdp;
    let answer = post(&whep(&server), &offer, &[]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let expected = serde_json::json!(["aac: the client offers neither it nor Opus"]);
    assert_eq!(sessions(&server)[0]["left_out"], expected);
    server.stop();
}

/// Who asks and never comes is forgotten; there are never more than may be; who is told to go goes.
#[test]
fn sessions_are_bounded_and_end() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "[webrtc]\nmax_sessions = 3\nsession_timeout = \"5s\"\n");
    let url = whep(&server);
    let mut client = Client::connect(&url);
    client.until("pictures", SOON, |c| c.video.len() >= 10);
    let open: Vec<Answer> = (0..3).map(|_| post(&url, &Offer::new().sdp, &[])).collect();
    assert_eq!(open.iter().map(|a| a.status).collect::<Vec<_>>(), [201, 201, 503]);
    assert_eq!((open[2].code().as_str(), open[2].header("retry-after")), ("too_many_sessions", "2"));
    assert_eq!(sessions(&server).len(), 3);
    client.until("the end of those who never came", SOON, |_| sessions(&server).len() == 1);
    assert!(!client.closed);
    let session = sessions(&server)[0]["id"].as_u64().unwrap();
    assert!(server.call("DELETE", &format!("/api/sessions/{session}"), None).0 < 300);
    client.until("goodbye", SOON, |c| c.closed);
    wait_until("its end", SOON, || sessions(&server).is_empty());
    // One that falls silent is gone, too.
    let mut client = Client::connect(&url);
    client.until("pictures", SOON, |c| c.video.len() >= 10);
    wait_until("its end", SOON, || sessions(&server).is_empty());
    server.stop();
}

/// Rubbish at the port: every kind that looks like something, from elsewhere and with the right name in it.
#[test]
fn rubbish_at_the_port_harms_nobody() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let mut client = Client::connect(&whep(&server));
    client.until("pictures", SOON, |c| c.video.len() >= 10);
    let port = candidate(&client.answer);
    let name = client.answer.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).unwrap().to_owned();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..3000u32 {
        let mut data: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        match round % 4 {
            // A binding request with the session's name, whose integrity is not right.
            0 => {
                let user = format!("{name}:stranger");
                let padded = user.len().div_ceil(4) * 4;
                let mut request = vec![0, 1];
                request.extend(((padded + 4 + 24) as u16).to_be_bytes());
                request.extend(0x2112_a442u32.to_be_bytes());
                request.extend((0..12).map(|_| random.u8(..)));
                request.extend([0, 6]);
                request.extend((user.len() as u16).to_be_bytes());
                request.extend(user.bytes());
                request.resize(20 + 4 + padded, 0);
                request.extend([0, 8, 0, 20]);
                request.extend((0..20).map(|_| random.u8(..)));
                data = request;
            }
            1 => {
                data.splice(..data.len().min(4), [0, 1, 0, 80]);
            }
            2 => data.splice(..data.len().min(1), [22]).for_each(drop),
            _ => data.splice(..data.len().min(1), [128 + random.u8(..64)]).for_each(drop),
        }
        stranger.send_to(&data, port).unwrap();
    }
    let before = client.video.len();
    client.until("more pictures", SOON, |c| c.video.len() >= before + 50);
    assert!(client.video.iter().all(|picture| picture.contiguous));
    assert_contiguous(&client.counters(), "beside rubbish");
    // Nothing was answered to a stranger: the port cannot be used to flood others.
    stranger.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stranger.recv(&mut [0; 2000]).is_err());
    server.stop();
}

#[test]
fn only_who_may_watch_does() {
    let camera = Camera::start(Feed::h264());
    let users = "[auth]\nusers = [{ name = \"ann\", password = \"secret\", read = [\"yard/*\"] }, \
         { name = \"bob\", password = \"secret\", read = [] }]\n\
         [webrtc]\n[[webrtc.ice_servers]]\nurl = \"turn:turn.example.org:3478\"\nsecret = \"north\"\n";
    let (_folder, server) = with(&camera, &format!("{users}{OPEN_API}"));
    let url = whep(&server);
    let offer = Offer::new().sdp;
    let answer = post(&url, &offer, &[]);
    assert_eq!((answer.status, answer.header("www-authenticate").starts_with("Basic")), (401, true));
    assert_eq!(post(&url, &offer, &[("authorization", "Bearer bob:secret")]).status, 403);
    assert_eq!(get(&server.url("/webrtc/yard/cam")).status, 401);
    assert_eq!(request("OPTIONS", &url, &[]).status, 401);
    let answer = request("OPTIONS", &url, &[("authorization", "Bearer ann:secret")]);
    assert!(answer.header("link").starts_with("<turn:turn.example.org:3478>; rel=\"ice-server\"; username="));
    let answer = post(&url, &offer, &[("authorization", "Bearer ann:secret")]);
    assert_eq!(answer.status, 201);
    assert!(!answer.header("link").contains("north") && answer.header("link").contains("credential="));
    assert_eq!(sessions(&server)[0]["user"], "ann");
    let log = server.stop();
    assert!(!log.contains("secret") && !log.contains("north"));
}

/// A browser plays it by the module and shows the pictures in their order, with sound.
fn browser(player: &str, transport: &str) {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = with(&camera, "");
    let playing = Playing::start(player, &whep(&server), 20);
    wait_until("pictures", Duration::from_secs(60), || playing.so_far().shown.len() >= 100);
    let done = AtomicBool::new(false);
    let (played, dropped) = std::thread::scope(|scope| {
        // What the server has left out for a browser that is slow, as long as there is a session to ask.
        let watching = scope.spawn(|| {
            let mut dropped = 0;
            while !done.load(Ordering::Relaxed) {
                let now = sessions(&server).first().and_then(|s| s["dropped_frames"].as_u64());
                dropped = dropped.max(now.unwrap_or(0));
                std::thread::sleep(Duration::from_millis(50));
            }
            dropped
        });
        let played = playing.finish();
        done.store(true, Ordering::Relaxed);
        (played, watching.join().unwrap())
    });
    assert!(played.errors().is_empty(), "{played:?}");
    // Of what was there already when it began, the browser shows what it wants; then each in its turn.
    let live: Vec<u32> = played.shown.iter().skip(15).map(|shown| shown.counter).collect();
    assert!(live.windows(2).all(|pair| pair[0] <= pair[1]), "{live:?}");
    let statistics = &played.end["details"]["statistics"];
    // A browser that has no time leaves out pictures that it has got.
    let received = statistics["framesReceived"].as_u64().unwrap();
    let span = u64::from(live[live.len() - 1] - live[0]) + 1;
    println!("{received} of {span} pictures received, {dropped} left out by the server; {statistics}");
    // Each is there, or was left out knowingly: on a machine that has no time for all of them.
    assert!(
        received + dropped + 2 >= span && received * 2 > span,
        "{received} and {dropped} of {span}: {statistics}"
    );
    assert_eq!(statistics["packetsLost"], 0, "{statistics}");
    assert_eq!(statistics["transport"], transport, "{statistics}");
    assert_eq!(statistics["soundCodec"], "audio/opus", "{statistics}");
    assert!(statistics["soundPackets"].as_u64() > Some(100), "{statistics}");
    wait_until("the session's end", SOON, || sessions(&server).is_empty());
    server.stop();
}

#[test]
fn a_browser_plays_it() {
    match missing() {
        Some(reason) => println!("SKIPPED: {reason}"),
        None => browser("whep", "udp"),
    }
}

/// The server's own page does, too, also for an id with a slash in it.
#[test]
fn the_page_plays_it() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let page = get(&server.url("/webrtc/yard/cam"));
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(get(&server.url("/webrtc/nobody")).status, 404);
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let played = Playing::start("page", &server.url("/webrtc/yard/cam"), 15).finish();
    assert_eq!(played.end["details"]["state"], "playing", "{played:?}");
    assert!(played.end["details"]["frames"].as_u64() > Some(50), "{played:?}");
    // Leaving the page ends the session.
    wait_until("the session's end", SOON, || sessions(&server).is_empty());
    server.stop();
}

/// Where no UDP gets out, it goes by TCP.
#[test]
fn a_browser_plays_it_by_tcp() {
    match missing() {
        Some(reason) => println!("SKIPPED: {reason}"),
        None => browser("whep-tcp", "tcp"),
    }
}

/// Where nothing but a TURN server can be reached: it is told to the browser with a password made for it.
#[test]
fn a_browser_plays_it_by_turn() {
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let Some(turn) = Turn::start() else { return };
    let servers = format!("[webrtc]\n{}", turn.entry(&format!("turn:127.0.0.1:{}?transport=udp", turn.port)));
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, &servers);
    let playing = Playing::start("whep-relay", &whep(&server), 20);
    wait_until("pictures", Duration::from_secs(60), || playing.so_far().shown.len() >= 100);
    let played = playing.finish();
    let statistics = &played.end["details"]["statistics"];
    assert_eq!(statistics["transport"], "relay", "{played:?}");
    assert!(statistics["framesDecoded"].as_u64() > Some(100), "{statistics}");
    server.stop();
}

/// A stack of quite another kind, aiortc: each picture once, in its order, and sound.
#[test]
fn aiortc_plays_it() {
    let Some(python) = tool("python") else { return };
    let camera = Camera::start(Feed::with_audio(true));
    let (_folder, server) = with(&camera, "");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("players/whep.py")).args([&whep(&server), "100"]);
    let output = finish(command, Duration::from_secs(90));
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("No module named 'aiortc'") {
        println!("SKIPPED: aiortc is not installed; scripts/test does that");
        return;
    }
    assert!(output.status.success(), "{complaint}");
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counters: Vec<u32> =
        seen["counters"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect();
    assert!(counters.len() >= 100);
    assert_contiguous(&counters, "aiortc");
    assert!(seen["sound"].as_u64() > Some(8000), "{}", seen["sound"]);
    server.stop();
}

/// Another stack yet, whose certificates have RSA keys: GStreamer.
#[test]
fn webrtcbin_plays_it() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) =
        Server::reachable(&format!("[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\n", camera.url()));
    server.wait_for("yard/cam", "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    let Some(command) = webrtcbin(&["whep", &whep(&server), "120"]) else { return };
    let output = finish(command, Duration::from_secs(90));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counters: Vec<u32> =
        seen["counters"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect();
    // It asks for a keyframe at its beginning, and gets the kept GOP again.
    let again = counters.windows(2).rposition(|pair| pair[1] <= pair[0]).map_or(0, |n| n + 1);
    assert!(counters.len() - again >= 60, "{counters:?}");
    assert_contiguous(&counters[again..], "webrtcbin");
    assert!(seen["sound"].as_u64() > Some(8000), "{}", seen["sound"]);
    wait_until("the session's end", SOON, || sessions(&server).is_empty());
    server.stop();
}

/// Connections that say nothing, or nothing of use, are closed, and harm nobody.
#[test]
fn rubbish_by_tcp_is_closed() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = with(&camera, "");
    let answer = post(&whep(&server), &Offer::new().sdp, &[]);
    assert!(answer.text().contains("tcptype passive"), "{}", answer.text());
    let port = candidate(&answer.text());
    for data in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 4, 1, 2, 3, 4], &[0, 0], &[255; 600]] {
        let mut stream = std::net::TcpStream::connect(port).unwrap();
        stream.write_all(data).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // Closed, in whatever way.
        assert!(!matches!(stream.read(&mut [0; 10]), Ok(1..)));
    }
    server.stop();
}
