//! GStreamer pipelines of the user's in the same process: those that tap into streams, those that are sources, those that are sinks.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_manager_core::event::StreamState;
use stream_manager_core::frame::MediaKind;
use stream_manager_core::hub::Hub;
use stream_manager_core::manager::{RetryPolicy, Stream, StreamManager};
use stream_manager_core::pipeline::{PipelineError, make_element, parse_bin, parse_chain, share_time};
use stream_manager_core::recording::Recording;
use stream_manager_core::sink::{Sink, to_intersrc, to_pipeline};
use stream_manager_core::source::{RtspSource, Source, from_pipeline, read_counter};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, codecs, counters};
use stream_manager_tests::program::Server;
use stream_manager_tests::wait_until;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(40);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn camera_stream(camera: &Camera) -> Stream {
    let retry = RetryPolicy { initial: Duration::from_millis(100), ..RetryPolicy::default() };
    Stream::builder("yard/cam").source(RtspSource::new(&camera.url()).unwrap()).retry(retry)
}

/// The counter of a decoded picture.
fn counter(sample: &gst::Sample) -> Option<u32> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
    let stride = info.stride()[0] as usize;
    let row = frame.plane_data(0).ok()?;
    // Rows without what is between them.
    let width = info.width() as usize;
    let luma: Vec<u8> = row.chunks(stride).flat_map(|row| row[..width].iter().copied()).collect();
    read_counter(&luma, width)
}

/// One element in anybody's pipeline gets the stream, over a reconnect, too; the sinks in it follow the clock.
#[test]
fn intersrc_gets_a_stream() {
    let mut camera = Camera::start(Feed::with_audio(false));
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let manager = runtime.block_on(async {
        let stream = camera_stream(&camera).sink(to_intersrc("yard/cam"));
        StreamManager::builder().data_dir(folder.path()).stream(stream).build().await.unwrap()
    });
    let line = "intersrc producer-name=yard/cam/video max-time=10000000000 ! h264parse ! avdec_h264 ! videoconvert \
                ! video/x-raw,format=I420 ! appsink name=pictures sync=true \
                intersrc producer-name=yard/cam/audio ! aacparse ! avdec_aac ! fakesink name=sound sync=true";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    share_time(&pipeline);
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let sound = Arc::new(AtomicU64::new(0));
    let sink = pipeline.by_name("pictures").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let pictures = seen.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                pictures.lock().unwrap().extend(counter(&sample));
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    let heard = sound.clone();
    let pad = pipeline.by_name("sound").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        heard.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_until("pictures and sound", SOON, || {
        seen.lock().unwrap().len() >= 75 && sound.load(Ordering::Relaxed) > 75
    });
    assert_contiguous(&seen.lock().unwrap(), "by intersrc");
    camera.kill();
    let before = camera.counter();
    camera.revive();
    wait_until("pictures again", SOON, || {
        seen.lock().unwrap().last().is_some_and(|last| *last > before + 50)
    });
    let after: Vec<u32> = seen.lock().unwrap().iter().copied().filter(|n| *n >= before).collect();
    assert_contiguous(&after, "after the reconnect");
    pipeline.set_state(gst::State::Null).unwrap();
    runtime.block_on(manager.shutdown());
}

/// The other way round: elements of the user's are a stream's source, and what they give is recorded.
#[test]
fn elements_are_a_source() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bars.mp4");
    let made = Arc::new(AtomicU64::new(0));
    let count = made.clone();
    let source = from_pipeline("bars", move || {
        count.fetch_add(1, Ordering::Relaxed);
        // The second time it works.
        let end = if count.load(Ordering::Relaxed) == 1 { "identity error-after=20 !" } else { "" };
        let line = format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 ! {end} x264enc tune=zerolatency \
             audiotestsrc is-live=true"
        );
        Ok(parse_bin(&line)?.upcast())
    });
    assert_eq!(source.address(), "pipeline:bars");
    runtime.block_on(async {
        let retry = RetryPolicy { initial: Duration::from_millis(100), ..RetryPolicy::default() };
        let stream =
            Stream::builder("bars").source(source).retry(retry).record(Recording::fmp4().file(&file, true));
        let manager = StreamManager::builder().stream(stream).build().await.unwrap();
        let handle = manager.stream("bars").unwrap();
        let end = Instant::now() + SOON;
        while handle.status().hub.frames < 200 || made.load(Ordering::Relaxed) < 2 {
            assert!(Instant::now() < end, "{:?}", handle.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        manager.shutdown().await;
    });
    let made_of = codecs(&file);
    assert_eq!(made_of, ["h264", "aac"]);
    check(&file);
    // One that cannot be made says why.
    let broken = from_pipeline("broken", || make_element("nosuchelement"));
    let said = runtime.block_on(async {
        let manager =
            StreamManager::builder().stream(Stream::builder("x").source(broken)).build().await.unwrap();
        let handle = manager.stream("x").unwrap();
        assert!(handle.wait_for(StreamState::Backoff, SOON).await);
        let said = handle.state().last_error.unwrap();
        manager.shutdown().await;
        said
    });
    assert!(said.contains("\"nosuchelement\" is missing"), "{said}");
}

fn mux_into(file: &Path) -> Result<(gst::Element, gst::Element), PipelineError> {
    let bin = parse_bin("matroskamux name=mux ! filesink name=file")?;
    bin.by_name("file").unwrap().set_property("location", file);
    Ok((bin.by_name("mux").unwrap(), bin.upcast()))
}

/// Elements of the user's get a stream: a muxer gets both tracks, each picture once; one that fails is made anew.
#[test]
fn elements_are_a_sink() {
    let camera = Camera::start(Feed::with_audio(false));
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muxed.mkv");
    let path = file.clone();
    let mut bin: Option<gst::Element> = None;
    let muxed = to_pipeline("muxed", move |track| {
        if track.parameters.kind() == MediaKind::Video {
            let (mux, made) = mux_into(&path)?;
            drop(mux);
            let ghost = |name: &str, request: &str| {
                let bin = made.downcast_ref::<gst::Bin>().unwrap();
                let pad = bin.by_name("mux").unwrap().request_pad_simple(request).unwrap();
                made.add_pad(&gst::GhostPad::builder_with_target(&pad).unwrap().name(name).build()).unwrap();
            };
            ghost("video", "video_%u");
            ghost("audio", "audio_%u");
            bin = Some(made);
        }
        Ok(bin.clone())
    });
    let (failed, decoded) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (fails, counts) = (failed.clone(), decoded.clone());
    let failing = to_pipeline("failing", move |track| {
        if track.parameters.kind() != MediaKind::Video {
            return Ok(None);
        }
        let end = if fails.fetch_add(1, Ordering::Relaxed) == 0 { "identity error-after=30 !" } else { "" };
        let chain = parse_chain(&format!("decodebin ! {end} fakesink name=out"))?;
        let counts = counts.clone();
        let pad = chain.by_name("out").unwrap().static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counts.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        Ok(Some(chain.upcast()))
    });
    runtime.block_on(async {
        let stream = camera_stream(&camera).sink(muxed).sink(failing);
        let manager = StreamManager::builder().stream(stream).build().await.unwrap();
        let end = Instant::now() + SOON;
        while decoded.load(Ordering::Relaxed) < 100 || failed.load(Ordering::Relaxed) < 2 {
            assert!(Instant::now() < end, "{failed:?} {decoded:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        manager.shutdown().await;
    });
    assert_eq!(codecs(&file), ["h264", "aac"]);
    let numbers = counters(&file);
    assert!(numbers.len() > 75, "{}", numbers.len());
    assert_contiguous(&numbers, "muxed");
}

/// In the server, a stream may be made of another one.
#[test]
fn a_launch_line_taps_into_another_stream() {
    let camera = Camera::start(Feed::with_audio(false));
    let config = format!(
        "[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\nintersink = true\n\
         [[streams]]\nid = \"small\"\nsource_url = \"gst: intersrc producer-name=cam/video ! h264parse ! avdec_h264 ! videoscale \
         ! video/x-raw,width=192,height=120\"\n",
        camera.url()
    );
    let (_folder, server) = Server::alone(&config);
    let made = server.wait_for("small", "frames", SOON, |s| s["frames"].as_u64() > Some(100));
    assert_eq!(
        (&made["tracks"][0]["width"], &made["tracks"][0]["codec"]),
        (&json!(192), &json!("h264")),
        "{made:#}"
    );
    server.stop();
}

/// Sources and sinks that have come and gone leave nothing behind: counted by GStreamer itself, in a process of its own.
#[test]
fn nothing_is_left_of_a_thousand() {
    if std::env::var_os("GST_TRACERS").is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "nothing_is_left_of_a_thousand", "--nocapture"])
            .env("GST_TRACERS", "leaks")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        return println!("{said}");
    }
    gst::init().unwrap();
    let live = || {
        let tracer = gst::active_tracers().into_iter().find(|t| t.type_().name().contains("Leaks"));
        let tracer = tracer.expect("GStreamer's leaks tracer is not there");
        let objects = tracer.emit_by_name::<gst::Structure>("get-live-objects", &[]);
        let list = objects.get::<gst::List>("live-objects-list").unwrap();
        // Plugins, factories and such stay.
        let stays = ["Factory", "Template", "Plugin", "Clock", "Device", "Caps"];
        let text = |value: &gst::glib::SendValue| format!("{value:?}");
        let names: Vec<String> =
            list.iter().map(text).filter(|name| !stays.iter().any(|s| name.contains(s))).collect();
        names
    };
    // It sees what is there.
    let kept = gst::ElementFactory::make("identity").build().unwrap();
    assert!(live().iter().any(|name| name.contains("identity")), "{:?}", live());
    drop(kept);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let runtime = runtime();
    let round = || {
        runtime.block_on(async {
            let hub = Hub::default();
            let mut sink = to_pipeline("gone", |track| match track.parameters.kind() {
                MediaKind::Video => Ok(Some(parse_chain("h264parse ! fakesink async=false")?.upcast())),
                _ => Ok(None),
            });
            let reader = hub.subscribe("gone", Default::default());
            let sinking =
                tokio::spawn(async move { sink.run(reader, CancellationToken::new()).await.is_ok() });
            let mut source = from_pipeline("gone", || {
                let line =
                    "videotestsrc num-buffers=2 ! video/x-raw,width=64,height=64 ! x264enc tune=zerolatency";
                Ok(parse_bin(line)?.upcast())
            });
            let writer = hub.writer();
            writer.begin_session();
            source.run(&writer, CancellationToken::new()).await.unwrap();
            hub.close();
            assert!(sinking.await.unwrap());
        });
    };
    // What is made once for the process.
    for _ in 0..20 {
        round();
    }
    let (before, threads_before, files_before) = (live(), threads(), files());
    for _ in 0..1000 {
        round();
    }
    // Threads of a pipeline may be on their way out.
    wait_until("threads have ended", SOON, || threads() <= threads_before + 8);
    let after = live();
    println!(
        "{} objects of GStreamer, {threads_before} threads, {files_before} files before; {}, {}, {} after",
        before.len(),
        after.len(),
        threads(),
        files()
    );
    assert!(after.len() <= before.len() + 5, "left: {:?}", &after[..after.len().min(20)]);
    assert!(files() <= files_before + 4, "files: {files_before} before, {} after", files());
}
