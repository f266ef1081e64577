//! Streams of all kinds, as ffmpeg, GStreamer and a second reader of MP4 find them over HLS, DASH and `live.mp4`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use gstreamer as gst;
use gstreamer::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stream_manager_core::fmp4::scan;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::{get, join};
use stream_manager_tests::media::{assert_contiguous, counters, describe, packets};
use stream_manager_tests::playlist::{check_update, parse};
use stream_manager_tests::program::{Server, finish};
use stream_manager_tests::wait_until;

fn media(master: &str) -> Vec<String> {
    let answer = get(master);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    text.lines().filter(|line| !line.starts_with('#')).map(|line| join(master, line)).collect()
}

fn ffmpeg(url: &str, to: &Path, seconds: u32) -> String {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-i", url, "-t", &seconds.to_string(), "-c", "copy"]).arg(to);
    let output = finish(command, Duration::from_secs(60));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// ffmpeg takes all three; every picture is the next one.
#[test]
fn ffmpeg_gets_every_frame() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) =
        Server::alone(&format!("[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n", camera.url()));
    for path in ["/hls/cam/index.m3u8", "/dash/cam/manifest.mpd", "/api/streams/cam/live.mp4"] {
        let file = folder.path().join("out.mp4");
        ffmpeg(&server.url(path), &file, 5);
        let numbers = counters(&file);
        assert!(numbers.len() >= 100, "{path}: {} frames", numbers.len());
        assert_contiguous(&numbers, path);
        let streams = describe(&file)["streams"].as_array().unwrap().len();
        assert_eq!(streams, 2, "{path}");
    }
    // It knows no other address than the first, and is one viewer all the same.
    let sessions = server.call("GET", "/api/sessions", None).1["items"].as_array().unwrap().clone();
    let dash = sessions.iter().filter(|s| s["protocol"] == "dash").count();
    assert!(dash <= 1, "{sessions:?}");
    server.stop();
}

/// Counts the frames that GStreamer decodes until there are so many.
fn decoded(pipeline: &gst::Pipeline, wanted: u32) {
    let count = Arc::new(AtomicU32::new(0));
    let sink = pipeline.by_name("pictures").unwrap();
    let counted = count.clone();
    sink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    wait_until("decoded pictures", Duration::from_secs(40), || {
        while let Some(message) = bus.pop() {
            if let gst::MessageView::Error(error) = message.view() {
                panic!("GStreamer: {} {:?}", error.error(), error.debug());
            }
        }
        count.load(Ordering::Relaxed) >= wanted
    });
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn gstreamer_decodes_it() {
    let (_folder, server) = Server::alone(
        "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n",
    );
    gst::init().unwrap();
    let ends =
        "queue ! decodebin ! fakesink sync=false name=pictures d. ! queue ! decodebin ! fakesink sync=false";
    let hls = server.url("/hls/cam/index.m3u8");
    let dash = server.url("/dash/cam/manifest.mpd");
    let live = server.url("/api/streams/cam/live.mp4");
    for line in [
        format!("souphttpsrc location={hls} ! hlsdemux name=d d. ! {ends}"),
        format!("souphttpsrc location={dash} ! dashdemux name=d d. ! {ends}"),
        format!("souphttpsrc location={live} ! qtdemux name=d d. ! {ends}"),
    ] {
        println!("{line}");
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        decoded(&pipeline, 60);
    }
    // The second generation of these elements wants a pipeline that knows of streams.
    for (url, element) in [(&hls, "hlsdemux2"), (&dash, "dashdemux2")] {
        if gst::ElementFactory::find(element).is_none() {
            println!("SKIPPED: {element} is not installed");
            continue;
        }
        let pipeline = gst::Pipeline::new();
        pipeline.set_bin_flags(gst::BinFlags::STREAMS_AWARE);
        let make = |name: &str| gst::ElementFactory::make(name).build().unwrap();
        let (source, demux, decoder) = (make("souphttpsrc"), make(element), make("decodebin3"));
        source.set_property("location", url);
        pipeline.add_many([&source, &demux, &decoder]).unwrap();
        source.link(&demux).unwrap();
        let weak = decoder.downgrade();
        demux.connect_pad_added(move |_, pad| {
            let decoder = weak.upgrade().unwrap();
            let sink = decoder.static_pad("sink").filter(|sink| !sink.is_linked());
            let sink = sink.or_else(|| decoder.request_pad_simple("sink_%u")).unwrap();
            pad.link(&sink).unwrap();
        });
        let fake = |name: &str| {
            let sink =
                gst::ElementFactory::make("fakesink").property("sync", false).name(name).build().unwrap();
            pipeline.add(&sink).unwrap();
            sink
        };
        let (pictures, sound) = (fake("pictures").downgrade(), fake("sound").downgrade());
        decoder.connect_pad_added(move |_, pad| {
            // Its own sink pads are told of, too.
            if pad.direction() != gst::PadDirection::Src {
                return;
            }
            let sink = if pad.name().starts_with("video") { &pictures } else { &sound };
            let sink = sink.upgrade().unwrap().static_pad("sink").unwrap();
            if !sink.is_linked() {
                pad.link(&sink).unwrap();
            }
        });
        println!("{element}");
        decoded(&pipeline, 60);
    }
    server.stop();
}

/// Whether a GStreamer element is there.
fn has(elements: &[&str]) -> bool {
    gst::init().unwrap();
    elements.iter().all(|element| gst::ElementFactory::find(element).is_some())
}

fn source(encoder: &str, fps: u32) -> String {
    format!(
        "gst:videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate={fps}/1 ! {encoder}"
    )
}

/// One stream of each kind, and what its playlists have to say.
#[test]
fn streams_of_all_kinds_are_signalled_right() {
    let audio = |chain: &str| format!("audiotestsrc is-live=true ! audioconvert ! audioresample ! {chain}");
    let x264 = |more: &str| format!("x264enc tune=zerolatency speed-preset=ultrafast {more} ! h264parse");
    let kinds: Vec<(&str, &[&str], String, &str)> = vec![
        (
            "h265",
            &["x265enc", "h265parse"],
            source("x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! h265parse", 25),
            "hvc1.",
        ),
        (
            "av1",
            &["av1enc"],
            source("av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist=10 ! av1parse", 10),
            "av01.0.",
        ),
        (
            "vp9",
            &["vp9enc"],
            source("vp9enc deadline=1 cpu-used=8 keyframe-max-dist=25 ! vp9parse", 25),
            "vp09.",
        ),
        (
            "bframes",
            &["x264enc"],
            source(
                "x264enc speed-preset=ultrafast bframes=2 b-adapt=false key-int-max=25 rc-lookahead=0 ! h264parse",
                25,
            ),
            "avc1.",
        ),
        ("slow", &["x264enc"], source(&x264("key-int-max=2"), 1), "avc1."),
        ("long", &["x264enc"], source(&x264("key-int-max=250"), 25), "avc1."),
        (
            "opus",
            &["opusenc"],
            format!("{} {}", source(&x264("key-int-max=25"), 25), audio("opusenc ! opusparse")),
            "opus",
        ),
        (
            "pcma",
            &["alawenc"],
            format!(
                "{} {}",
                source(&x264("key-int-max=25"), 25),
                audio("audio/x-raw,rate=8000,channels=1 ! alawenc")
            ),
            "mp4a.40.2",
        ),
        (
            "sound",
            &["avenc_aac"],
            format!("gst:{}", audio("audio/x-raw,rate=48000 ! avenc_aac ! aacparse")),
            "mp4a.40.2",
        ),
    ];
    let mut config = String::new();
    let mut there = Vec::new();
    for (id, elements, source, codec) in kinds {
        if has(elements) {
            config += &format!("[[streams]]\nid = \"{id}\"\nsource_url = \"{source}\"\nhls.always = true\n");
            there.push((id, codec));
        } else {
            println!("SKIPPED: {id}: one of {elements:?} is not installed");
        }
    }
    config += "[[streams]]\nid = \"mjpeg\"\nsource_url = \"gst:videotestsrc is-live=true ! video/x-raw,width=320,height=180 ! jpegenc ! jpegparse\"\n";
    let (folder, server) = Server::alone(&config);
    for (id, codec) in there {
        let master = server.url(&format!("/hls/{id}/index.m3u8"));
        wait_until(id, Duration::from_secs(40), || get(&master).status == 200);
        let text = get(&master).text();
        assert!(text.contains(codec), "{id}: {text}");
        let url = media(&master)[0].clone();
        let mut before = parse(&get(&url).text());
        wait_until("two segments", Duration::from_secs(40), || {
            let now = parse(&get(&url).text());
            check_update(&before, &now);
            before = now;
            before.segments.len() >= 2
        });
        if id == "long" {
            assert!((9..=10).contains(&before.target), "GOPs of ten seconds: {}", before.target);
        }
        // Each finished segment is a file for ffprobe, and for our own reader of boxes.
        let segment = before.segments.last().unwrap();
        let file = [get(&join(&url, &segment.map)).body, get(&join(&url, &segment.uri)).body].concat();
        assert!(scan(&mut std::io::Cursor::new(&file)).unwrap().is_whole(), "{id}");
        let path: PathBuf = folder.path().join(format!("{id}.mp4"));
        std::fs::write(&path, &file).unwrap();
        let tag = describe(&path)["streams"][0]["codec_tag_string"].as_str().unwrap().to_owned();
        match id {
            "h265" => assert_eq!(tag, "hvc1"),
            "av1" => assert_eq!(tag, "av01"),
            "sound" => assert_eq!(tag, "mp4a"),
            "bframes" => {
                let packets = stream_manager_tests::media::packets(&path);
                assert!(packets.iter().any(|p| p.pts > p.dts + 0.01), "no B frames in {packets:?}");
            }
            _ => {}
        }
        let dash = server.url(&format!("/dash/{id}/manifest.mpd"));
        let mpd = get(&dash).text();
        assert!(mpd.contains(codec), "{id}: {mpd}");
        ffmpeg(&server.url(&format!("/api/streams/{id}/live.mp4")), &folder.path().join("live.mp4"), 2);
        println!("{id}: {codec}, {} segments", before.segments.len());
    }
    let status = server.stream("pcma")["hls"].clone();
    assert_eq!(status["encoded"][0]["codec"], "pcma", "{status}");
    assert_eq!(status["renditions"][1]["encoded_from"], "pcma", "{status}");
    // MJPEG has nothing for players, and says so.
    let answer = get(&server.url("/hls/mjpeg/index.m3u8"));
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_tracks"));
    let status = server.stream("mjpeg")["hls"].clone();
    assert_eq!(status["left_out"][0]["codec"], "mjpeg", "{status}");
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

/// Several qualities in one playlist and one MPD; the past and the present in another.
#[test]
fn qualities_and_a_window_over_recordings() {
    let camera = Camera::start(Feed::with_audio(true));
    let config = format!(
        "[[streams]]\nid = \"cam/main\"\nsource_url = \"{}\"\nhls.variants = [\"cam/low\", \"cam/gone\"]\n\
         [streams.recording]\nenabled = true\nsegment_duration = \"3s\"\n\
         [[streams]]\nid = \"cam/low\"\nsource_url = \"test://ball?width=192&height=108&fps=10&gop=10&audio=false\"\n\
         [[streams]]\nid = \"cam/gone\"\nsource_url = \"publisher\"\n",
        camera.url()
    );
    let (folder, server) = Server::alone(&config);
    let start_at = stream_manager_core::frame::WallTime::now();
    let running =
        |stream: &Value| stream["state"] == "running" && stream["recording"]["segments"].as_u64() >= Some(2);
    server.wait_for("cam/main", "two segments", Duration::from_secs(40), running);
    let master = server.url("/hls/cam/main/index.m3u8");
    let all = media(&master);
    assert_eq!(all.len(), 2, "a variant that is not there is left out: {all:?}");
    for url in &all {
        parse(&get(url).text());
    }
    let text = get(&master).text();
    assert!(text.contains("RESOLUTION=384x240") && text.contains("RESOLUTION=192x108"), "{text}");
    let rates: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXT-X-STREAM-INF:BANDWIDTH=")?.split(',').next()?.parse().ok())
        .collect();
    assert!(rates.iter().all(|rate| (20_000..3_000_000).contains(rate)), "{rates:?}");
    let mpd = get(&server.url("/dash/cam/main/manifest.mpd")).text();
    assert_eq!(mpd.matches("<Representation ").count(), 3, "{mpd}");
    assert!(mpd.contains("media=\"../../cam/low/v0-$Number$.m4s\""), "{mpd}");
    // From the beginning of the recording into the present: sound that players do not take is left out there.
    let url = media(&format!("{master}?start={start_at}"))[0].clone();
    let mut before = parse(&get(&url).text());
    let first = before.segments[0].clone();
    assert_eq!(first.number, 0);
    wait_until("more of it", Duration::from_secs(20), || {
        let now = parse(&get(&url).text());
        check_update(&before, &now);
        let grown = now.segments.len() > before.segments.len() + 2;
        if grown {
            before = now;
        }
        grown
    });
    let file = folder.path().join("window.mp4");
    let bytes: Vec<u8> = [get(&join(&url, &first.map)).body, get(&join(&url, &first.uri)).body].concat();
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(describe(&file)["streams"].as_array().unwrap().len(), 1, "G.711 is not for players");
    assert_contiguous(&counters(&file), "a piece of a recording");
    // Another stream's recording is not to be had by its number.
    let foreign = join(&url, &first.uri).replace("/hls/cam/main/", "/hls/cam/low/");
    assert_eq!(get(&foreign).status, 404);
    server.stop();
}

/// From a moment ago on, which lies in the middle of the file that is being written: each segment begins with a keyframe.
#[test]
fn a_window_may_begin_within_the_file_that_is_being_written() {
    let (folder, server) = Server::alone(
        "[[streams]]\nid = \"cam\"\nsource_url = \"test://ball?width=192&height=108&fps=25&gop=50&audio=false\"\n\
         [streams.recording]\nenabled = true\n",
    );
    let recorded = |stream: &Value| stream["recording"]["duration_secs"].as_f64() > Some(9.0);
    server.wait_for("cam", "a recording", Duration::from_secs(60), recorded);
    let start_at = stream_manager_core::frame::WallTime::now() - Duration::from_secs(5);
    let url = media(&format!("{}?start={start_at}", server.url("/hls/cam/index.m3u8")))[0].clone();
    wait_until("three segments", Duration::from_secs(30), || parse(&get(&url).text()).segments.len() >= 3);
    let playlist = parse(&get(&url).text());
    let first = playlist.segments[0].time.unwrap();
    // Segments are not longer than two GOPs.
    assert!((start_at.as_unix_nanos() - first).abs() < 4_000_000_000, "{first} {start_at}");
    for (number, segment) in playlist.segments.iter().enumerate() {
        let file = folder.path().join(format!("{number}.mp4"));
        let bytes: Vec<u8> =
            [get(&join(&url, &segment.map)).body, get(&join(&url, &segment.uri)).body].concat();
        std::fs::write(&file, bytes).unwrap();
        assert!(packets(&file)[0].keyframe, "segment {number}");
    }
    server.stop();
}
