//! With real decoders and a model that does what it is told to.

use super::*;
use crate::event::{EventBus, EventKind};
use crate::frame::{CodecParameters, MediaTime};
use crate::inference::{
    InferenceBackend, LiveDecoder, MockBackend, ModelIo, ModelSpec, ModelsOptions, Overlay, Picture, Tensor,
    TensorInfo,
};
use crate::source::{Rendition, Source, TestPattern, TestSource, TranscodeSource};
use std::time::Duration;

struct Rig {
    hub: Hub,
    models: Models,
    handle: AnalysisHandle,
    events: EventBus,
    cancel: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// A test picture's stream, 25 frames a second with a keyframe every second, looked at by a mock.
fn rig(settings: AnalysisSettings, backend: MockBackend) -> Rig {
    rig_of(TestSource::default(), settings, backend)
}

fn rig_of(mut source: impl Source, settings: AnalysisSettings, backend: MockBackend) -> Rig {
    let events = EventBus::default();
    let options = ModelsOptions::default().backend("mock", backend.factory());
    let spec = ModelSpec::new("-").named("m").backend("mock".parse().unwrap()).labels(["thing"]);
    let models = Models::new(options, vec![spec]);
    let hub = Hub::default();
    let cancel = CancellationToken::new();
    let sender = events.for_stream("s".into());
    let (handle, mut sink) = Analysis::new(models.clone(), settings, sender);
    let reader = hub.subscribe("inference", ReaderOptions::default());
    let (writer, stop) = (hub.writer(), cancel.clone());
    writer.begin_session();
    let source = tokio::spawn(async move {
        let _ = source.run(&writer, stop).await;
    });
    let stop = cancel.clone();
    let sink = tokio::spawn(async move {
        sink.run(reader, stop).await.unwrap();
    });
    Rig { hub, models, handle, events, cancel, tasks: vec![source, sink] }
}

impl Rig {
    async fn end(self) {
        self.cancel.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.models.close().await;
    }
}

fn settings(max_fps: f64) -> AnalysisSettings {
    AnalysisSettings { enabled: true, max_fps, ..AnalysisSettings::default() }
}

fn finding(objects: usize) -> MockBackend {
    MockBackend::detecting(64, 64, vec![[10.0, 10.0, 50.0, 50.0, 0.9, 0.0]; objects])
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_seen_and_told_of() {
    let rig = rig(settings(100.0), finding(1));
    let mut heard = rig.events.subscribe();
    let mut seen = rig.handle.subscribe();
    let mut last = MediaTime::from_nanos(-1);
    for _ in 0..20 {
        let one = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await.unwrap().unwrap();
        assert_eq!(&*one.detections[0].label, "thing");
        assert!(one.pts > last, "in order");
        last = one.pts;
        assert!(WallTime::now().saturating_since(one.time) < Duration::from_secs(20));
    }
    let status = rig.handle.status();
    assert_eq!((status.state, status.keyframes_only), (AnalysisState::Running, false));
    assert!(status.analysed >= 20 && status.latency_secs.is_some(), "{status:?}");
    let mut told = 0;
    while let Ok(event) = heard.try_recv() {
        told += usize::from(matches!(&event.kind, EventKind::Detections(_)));
    }
    assert_eq!(told, 1, "the same objects again are no news");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_switched_and_changed_while_it_runs() {
    let rig = rig(AnalysisSettings { enabled: false, ..settings(100.0) }, finding(1));
    rig.hub.session_frame().await;
    assert_eq!(rig.handle.status().state, AnalysisState::Off);
    assert!(rig.hub.consumers().is_empty(), "the hub is left alone");
    rig.handle.set_enabled(true);
    until("it runs", || rig.handle.status().analysed > 3).await;
    rig.handle.configure(AnalysisSettings { threshold: Some(0.95), ..settings(100.0) });
    let mut seen = rig.handle.subscribe();
    let nothing = async { while !seen.recv().await.unwrap().detections.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(30), nothing).await.unwrap();
    rig.handle.configure(AnalysisSettings { model: Some("none".into()), ..settings(100.0) });
    until("it says that there is no such model", || rig.handle.status().reason.contains("there are: m"))
        .await;
    rig.handle.set_enabled(false);
    until("it is off", || rig.handle.status().state == AnalysisState::Off).await;
    assert!(rig.hub.consumers().is_empty());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_was_at_when_it_was_switched_off_does_not_switch_it_on() {
    let (release, waits) = std::sync::mpsc::channel::<()>();
    let (waits, holds, held) = (Mutex::new(waits), Arc::new(AtomicBool::new(false)), Arc::default());
    let (mock, hold, at_it) = (finding(1), holds.clone(), Arc::<AtomicBool>::clone(&held));
    let slow = MockBackend::new(InferenceBackend::describe(&mock).clone(), move |inputs| {
        if hold.load(Ordering::SeqCst) {
            at_it.store(true, Ordering::SeqCst);
            // Ends also when the test does.
            let _ = waits.lock().recv();
        }
        InferenceBackend::run(&mut mock.clone(), inputs)
    });
    let rig = rig(settings(100.0), slow);
    until("it runs", || rig.handle.status().state == AnalysisState::Running).await;
    holds.store(true, Ordering::SeqCst);
    until("the model is at a picture", || held.load(Ordering::SeqCst)).await;
    rig.handle.set_enabled(false);
    until("it is off", || rig.handle.status().state == AnalysisState::Off).await;
    let (before, mut heard) = (rig.handle.status().analysed, rig.events.subscribe());
    holds.store(false, Ordering::SeqCst);
    release.send(()).unwrap();
    // The model's threads have ended behind it, the answer given.
    rig.models.close().await;
    let status = rig.handle.status();
    assert_eq!((status.state, status.analysed), (AnalysisState::Off, before), "{status:?}");
    assert!(heard.try_recv().is_err(), "nothing is told of it");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keyframes_are_enough_for_few_pictures() {
    let rig = rig(settings(0.5), finding(1));
    until("keyframes only", || rig.handle.status().keyframes_only).await;
    let before = rig.handle.status().analysed;
    until("pictures come from them", || rig.handle.status().analysed > before).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_model_gets_the_newest_pictures_and_holds_up_nothing() {
    let mock = MockBackend::detecting(64, 64, vec![]);
    let slow = MockBackend::new(
        crate::inference::ModelIo {
            inputs: vec![crate::inference::TensorInfo::f32("images", &[0, 3, 64, 64])],
            outputs: vec![crate::inference::TensorInfo::f32("objects", &[0, 1, 6])],
            ..Default::default()
        },
        move |inputs| {
            std::thread::sleep(Duration::from_millis(300));
            InferenceBackend::run(&mut mock.clone(), inputs)
        },
    );
    let rig = rig(settings(100.0), slow);
    let mut other = rig.hub.subscribe("other", ReaderOptions::default());
    until("it runs", || rig.handle.status().analysed >= 5).await;
    let status = rig.handle.status();
    assert!(status.dropped >= status.analysed, "{status:?}");
    while let Some(item) = other.try_next() {
        assert!(!matches!(item, HubItem::Lagged { .. }));
    }
    let of_it = rig.hub.consumers().into_iter().find(|(name, _)| name == "inference").unwrap().1;
    assert_eq!(of_it.dropped_frames, 0, "decoding goes on meanwhile");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_video_says_so() {
    use crate::frame::{AudioCodec, AudioParameters};
    let models = Models::new(
        ModelsOptions::default().backend("mock", finding(1).factory()),
        vec![ModelSpec::new("-").named("m").backend("mock".parse().unwrap())],
    );
    let hub = Hub::default();
    hub.writer().set_tracks([CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcmu, 8000, 1))]);
    let (handle, mut sink) =
        Analysis::new(models.clone(), settings(5.0), EventBus::default().for_stream("s".into()));
    let reader = hub.subscribe("inference", ReaderOptions::default());
    let task = tokio::spawn(async move { sink.run(reader, CancellationToken::new()).await });
    until("it says so", || handle.status().reason == "the stream has no video").await;
    hub.close();
    task.await.unwrap().unwrap();
    models.close().await;
}

/// Passes a test picture's stream on, with every third frame that is no keyframe damaged.
struct Damaging;

#[async_trait::async_trait]
impl Source for Damaging {
    async fn run(
        &mut self,
        hub: &crate::hub::HubWriter,
        cancel: CancellationToken,
    ) -> Result<crate::source::SourceEnd, crate::source::SourceError> {
        let inner = Hub::default();
        let mut reader = inner.subscribe("damaging", ReaderOptions::default());
        let (writer, stop) = (inner.writer(), cancel.clone());
        writer.begin_session();
        let source = tokio::spawn(async move {
            let _ = TestSource::default().run(&writer, stop).await;
        });
        let mut number = 0u64;
        while let Some(Some(item)) = cancel.run_until_cancelled(reader.next()).await {
            match item {
                HubItem::Tracks(tracks) => hub.set_tracks(tracks.iter().map(|t| (*t.parameters).clone())),
                HubItem::Frame(frame) => {
                    number += 1;
                    let mut data = frame.data.to_vec();
                    if !frame.keyframe && number.is_multiple_of(3) {
                        // The NAL units' lengths stay, or they would be one long one.
                        data.iter_mut().skip(8).for_each(|byte| *byte = byte.rotate_left(3) ^ 0x5a);
                    }
                    let raw = crate::hub::RawFrame::new(frame.track.0, frame.pts, data)
                        .dts(Some(frame.dts))
                        .keyframe(frame.keyframe);
                    hub.push(raw).unwrap();
                }
                _ => {}
            }
        }
        source.await.unwrap();
        Ok(crate::source::SourceEnd::Cancelled)
    }

    fn address(&self) -> String {
        "damaged".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_frames_are_got_over() {
    let rig = rig_of(Damaging, settings(100.0), finding(1));
    // Far more than there are between two keyframes.
    until("it is seen on", || rig.handle.status().analysed > 60).await;
    rig.end().await;
}

#[derive(Default)]
struct Pictures(Mutex<Vec<Arc<[u8]>>>);

impl ObjectLog for Pictures {
    fn object(&self, event: &crate::object::ObjectEvent) {
        self.0.lock().extend(event.picture.clone());
    }

    fn scene(&self, _: &crate::object::SceneEvent) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_becomes_an_event_and_ends_with_the_analysis() {
    let mut settings = settings(100.0);
    settings.scene.zones = vec![crate::config::ZoneConfig {
        name: "all".into(),
        points: vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
        classes: vec!["thing".into(), "unicorn".into()],
        ..Default::default()
    }];
    let rig = rig(settings.clone(), finding(1));
    let log: Arc<Pictures> = Arc::default();
    let _ = rig.handle.shared.log.set(log.clone());
    let mut heard = rig.events.subscribe();
    let mut seen = rig.handle.subscribe();
    let mut told = Vec::new();
    let mut next = async || {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap();
            match &event.kind {
                EventKind::Object(object) => return (object.phase.name(), Some((**object).clone())),
                EventKind::Scene(scene) => return (scene.action.name(), None),
                _ => {}
            }
        }
    };
    for _ in 0..2 {
        told.push(next().await);
    }
    let status = rig.handle.status().scene.unwrap();
    assert_eq!((status.tracked, status.zones[0].count, status.zones[0].entered), (1, 1, 1));
    assert_eq!(status.problems, ["zone \"all\": the model has no class \"unicorn\""]);
    // Other zones are no other objects.
    settings.scene.zones[0].classes.clear();
    rig.handle.configure(settings);
    told.push(next().await);
    rig.handle.set_enabled(false);
    while told.last().is_none_or(|(what, _)| *what != "end") {
        told.push(next().await);
    }
    let words: Vec<&str> = told.iter().map(|(what, _)| *what).filter(|what| *what != "update").collect();
    assert_eq!(words, ["entered", "begin", "entered", "left", "end"]);
    let objects: Vec<_> = told.iter().filter_map(|(_, object)| object.clone()).collect();
    assert!(objects.iter().all(|o| o.object == objects[0].object && &*o.label == "thing"), "{objects:?}");
    assert!(objects.iter().all(|o| o.picture.is_none()), "not for listeners");
    let picture = log.0.lock()[0].clone();
    let shot = crate::inference::Picture::from_image(&picture).unwrap();
    assert!(shot.width() > 20 && shot.width() <= 320 && shot.height() <= 320, "{shot:?}");
    // What is seen says which it is.
    let mut tracks = std::collections::BTreeSet::new();
    while let Ok(one) = seen.try_recv() {
        tracks.extend(one.detections.iter().filter_map(|d| d.track));
    }
    assert_eq!(tracks.len(), 1);
    assert!(rig.handle.status().scene.is_none());
    rig.end().await;
}

/// The pixels between the counter above and the clock below.
fn inside(width: usize, height: usize) -> std::ops::Range<usize> {
    width * 32..width * (height - 64)
}

/// Where pixels of a kind are: left, top, right, bottom.
fn around(picture: &Picture, is: impl Fn(&[u8]) -> bool) -> Option<[usize; 4]> {
    let (width, rgb) = (picture.width() as usize, picture.to_rgb().unwrap());
    let inside = inside(width, picture.height() as usize);
    let places: Vec<(usize, usize)> = rgb
        .chunks_exact(3)
        .enumerate()
        .filter(|(at, pixel)| inside.contains(at) && is(pixel))
        .map(|(at, _)| (at % width, at / width))
        .collect();
    let xs = || places.iter().map(|place| place.0);
    let ys = || places.iter().map(|place| place.1);
    Some([xs().min()?, ys().min()?, xs().max()?, ys().max()?])
}

/// A model that finds what is white.
fn finding_white(width: usize, height: usize) -> MockBackend {
    let io = ModelIo {
        inputs: vec![TensorInfo::f32("images", &[0, 3, height, width])],
        outputs: vec![TensorInfo::f32("objects", &[0, 1, 6])],
        ..ModelIo::default()
    };
    MockBackend::new(io, move |inputs| {
        let input = inputs[0].as_f32();
        let size = width * height;
        let mut rows = Vec::new();
        for picture in input.chunks_exact(3 * size) {
            let brightest = picture.iter().copied().fold(0.0, f32::max);
            let lit = |at: &usize| (0..3).all(|plane| picture[plane * size + at] > brightest * 0.8);
            let places: Vec<usize> = inside(width, height).filter(lit).collect();
            let edge = |values: &dyn Fn(usize) -> usize| {
                let all = || places.iter().map(|at| values(*at));
                (all().min().unwrap_or(0) as f32, all().max().unwrap_or(0) as f32 + 1.0)
            };
            let (across, down) = (edge(&|at| at % width), edge(&|at| at / width));
            rows.extend([across.0, down.0, across.1, down.1, 0.9, 0.0]);
        }
        Ok(vec![Tensor::f32([inputs[0].shape[0], 1, 6], rows)])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_are_drawn_over_the_picture_that_they_belong_to() {
    // A ball that moves on by several pixels with each picture, of which every fifth is analysed.
    let (width, height) = (384, 216);
    let ball =
        TestSource { pattern: TestPattern::Ball, width, height, audio: false, ..TestSource::default() };
    let rig = rig_of(ball, settings(5.0), finding_white(width as usize, height as usize));
    let overlay = Arc::new(Overlay::new(&rig.hub));
    let mut source = TranscodeSource::new(rig.hub.clone()).rendition(Rendition::default()).paint(overlay);
    let drawn = Hub::beside(crate::hub::HubOptions::default(), &rig.hub);
    let (writer, stop) = (drawn.writer(), rig.cancel.clone());
    writer.begin_session();
    until("it is seen", || rig.handle.status().analysed > 5).await;
    let drawing = tokio::spawn(async move {
        let _ = source.run(&writer, stop).await;
    });
    let mut reader = drawn.subscribe("test", ReaderOptions::default());
    let (sender, mut pictures) = mpsc::channel(100);
    let mut decoder: Option<LiveDecoder> = None;
    let mut compared = 0;
    let mut off = Vec::new();
    let mut moved = std::collections::BTreeSet::new();
    while compared < 40 {
        let item = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.unwrap().unwrap();
        let HubItem::Frame(frame) = item else { continue };
        if decoder.is_none() {
            let sender = sender.clone();
            let take = move |picture| drop(sender.try_send(picture));
            decoder = Some(LiveDecoder::start(&frame.parameters, take).await.unwrap());
        }
        decoder.as_mut().unwrap().push(&frame).await;
        while let Ok(picture) = pictures.try_recv() {
            let white = around(&picture, |pixel| pixel.iter().all(|part| *part > 200));
            let boxed = around(&picture, |p| p.iter().max().unwrap() - p.iter().min().unwrap() > 100);
            if let (Some(ball), Some(boxed)) = (white, boxed) {
                compared += 1;
                moved.insert(ball[0]);
                // The name above it is of the box's colour, too, and as wide as it likes.
                off.push((boxed[0].abs_diff(ball[0]), boxed[3].abs_diff(ball[3])));
            }
        }
    }
    decoder.unwrap().stop().await;
    assert!(moved.len() > 20, "the ball moves: {moved:?}");
    // From one analysed picture to the next it goes five times as far, at least.
    let mut apart: Vec<usize> = off.iter().map(|(across, down)| *across.max(down)).collect();
    apart.sort_unstable();
    assert!(apart[apart.len() / 2] <= 6, "{off:?}");
    rig.cancel.cancel();
    drawing.await.unwrap();
    rig.end().await;
}

/// A model that finds so many things, at other places in each picture.
fn finding_many(objects: usize) -> MockBackend {
    let io = ModelIo {
        inputs: vec![TensorInfo::f32("images", &[0, 3, 64, 64])],
        outputs: vec![TensorInfo::f32("objects", &[0, objects, 6])],
        ..ModelIo::default()
    };
    MockBackend::new(io, move |inputs| {
        let batch = inputs[0].shape[0];
        let thing = |_| {
            let (x, y) = (fastrand::f32() * 62.0, fastrand::f32() * 62.0);
            [x, y, x + 1.0, y + 1.0, 0.9, 0.0]
        };
        Ok(vec![Tensor::f32([batch, objects, 6], (0..batch * objects).flat_map(thing).collect::<Vec<_>>())])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_objects_is_bounded_and_counted() {
    let mut storm = settings(10.0);
    let objects = storm.scene.objects.as_mut().unwrap();
    objects.min_time = Duration::ZERO;
    let per_minute = objects.max_per_minute as usize;
    let events = EventBus::default();
    let options = ModelsOptions::default().backend("mock", finding_many(3000).factory());
    let layout = Some(crate::config::Layout::EndToEnd);
    let spec = ModelSpec { layout, max_detections: 3000, nms_iou: 1.0, ..ModelSpec::new("-") };
    let spec = spec.named("m").backend("mock".parse().unwrap()).labels(["thing"]);
    let models = Models::new(options, vec![spec]);
    let hub = Hub::default();
    let cancel = CancellationToken::new();
    let (handle, mut sink) = Analysis::new(models.clone(), storm, events.for_stream("s".into()));
    let mut heard = events.subscribe();
    let mut recorder = hub.subscribe("recorder", ReaderOptions::default());
    let (reader, stop) = (hub.subscribe("inference", ReaderOptions::default()), cancel.clone());
    let sink = tokio::spawn(async move { sink.run(reader, stop).await.unwrap() });
    let (writer, stop) = (hub.writer(), cancel.clone());
    writer.begin_session();
    let source = tokio::spawn(async move {
        let _ = TestSource { audio: false, ..TestSource::default() }.run(&writer, stop).await;
    });
    let (mut told, mut last, mut missing) = (0, None, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while handle.status().analysed < 30 {
        assert!(Instant::now() < deadline, "{:?}", handle.status());
        while let Ok(event) = heard.try_recv() {
            told += usize::from(matches!(event.kind, EventKind::Object(_)));
        }
        while let Some(item) = recorder.try_next() {
            match item {
                HubItem::Frame(frame) => {
                    let step = last.replace(frame.pts).map(|last| frame.pts.saturating_since(last));
                    missing += usize::from(step.is_some_and(|step| step > Duration::from_millis(60)));
                }
                HubItem::Lagged { frames, .. } => panic!("{frames} frames are lost"),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scene = handle.status().scene.unwrap();
    assert!(scene.left_out > 30 * 1000 && scene.suppressed > 0, "{scene:?}");
    assert!(scene.tracked <= 1000, "{scene:?}");
    // What has begun within the limit is also told of when it ends.
    assert!(told > 0 && told <= per_minute * 3, "{told} were told of in a minute");
    assert_eq!(missing, 0, "whoever else reads the stream misses nothing");
    cancel.cancel();
    source.await.unwrap();
    sink.await.unwrap();
    models.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_streams_share_a_detector_and_a_classifier() {
    // More is wanted of it than it can do.
    let busy = |io: ModelIo, output: fn(usize) -> Tensor| {
        MockBackend::new(io, move |inputs| {
            std::thread::sleep(Duration::from_millis(8));
            Ok(vec![output(inputs[0].shape[0])])
        })
    };
    let io = |outputs: &[usize]| ModelIo {
        inputs: vec![TensorInfo::f32("images", &[0, 3, 64, 64])],
        outputs: vec![TensorInfo::f32("objects", outputs)],
        ..ModelIo::default()
    };
    let detector = busy(io(&[0, 1, 6]), |batch| {
        Tensor::f32([batch, 1, 6], [10.0, 10.0, 50.0, 50.0, 0.9, 0.0].repeat(batch))
    });
    let classifier = busy(io(&[0, 2]), |batch| Tensor::f32([batch, 2], [0.9, 0.1].repeat(batch)));
    let options = ModelsOptions::default()
        .backend("detector", detector.factory())
        .backend("classifier", classifier.factory());
    let first = ModelSpec { max_batch: 1, ..ModelSpec::new("-") }.named("d").labels(["thing"]);
    let second = ModelSpec { layout: Some(crate::config::Layout::Softmax), ..ModelSpec::new("-") };
    let second = second.named("c").labels(["red", "blue"]).backend("classifier".parse().unwrap());
    let models = Models::new(options, vec![first.backend("detector".parse().unwrap()), second]);
    let mut wanted = AnalysisSettings { model: Some("d".into()), ..settings(25.0) };
    wanted.scene.cascade = vec![crate::config::CascadeConfig {
        model: "c".into(),
        interval: Some(crate::config::DurationText(Duration::from_secs(1))),
        ..Default::default()
    }];
    let cancel = CancellationToken::new();
    let hub = Hub::default();
    let (writer, stop) = (hub.writer(), cancel.clone());
    writer.begin_session();
    let mut tasks = vec![tokio::spawn(async move {
        let mut small = TestSource { width: 192, height: 108, audio: false, ..TestSource::default() };
        let _ = small.run(&writer, stop).await;
    })];
    let events = EventBus::default();
    let mut handles = Vec::new();
    for number in 0..16 {
        let name = format!("cam-{number}");
        let (handle, mut sink) =
            Analysis::new(models.clone(), wanted.clone(), events.for_stream(name.into()));
        let (reader, stop) = (hub.subscribe("inference", ReaderOptions::default()), cancel.clone());
        tasks.push(tokio::spawn(async move { sink.run(reader, stop).await.unwrap() }));
        handles.push(handle);
    }
    let analysed = || handles.iter().map(|handle| handle.status().analysed).collect::<Vec<u64>>();
    until("all have begun", || analysed().iter().all(|count| *count > 3)).await;
    let before = analysed();
    until("each had forty turns", || analysed().iter().zip(&before).all(|(now, then)| now - then > 40)).await;
    let counts: Vec<u64> = analysed().iter().zip(&before).map(|(now, then)| now - then).collect();
    let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
    assert!((most - least) * 10 <= most, "{counts:?}");
    assert!(
        handles.iter().any(|handle| handle.status().dropped > 0),
        "there was more to do than could be done"
    );
    let asked = models.get("c").unwrap().status().stats.pictures;
    assert!(asked >= 16, "each was looked at by the classifier: {asked}");
    cancel.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    models.close().await;
}
