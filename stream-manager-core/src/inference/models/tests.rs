//! With a backend that does what it is told to.

use super::*;
use crate::config::BackendChoice;
use crate::event::EventKind;
use crate::inference::{MockBackend, ModelIo, Tensor, TensorInfo};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// A model whose only object's class and score are what is set, and which fails when told to.
#[derive(Clone, Default)]
struct Script {
    fail: Arc<AtomicBool>,
    panic: Arc<AtomicBool>,
    nan: Arc<AtomicBool>,
    hang: Arc<AtomicBool>,
    largest: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
    class: Arc<AtomicUsize>,
}

impl Script {
    fn factory(&self) -> BackendFactory {
        let script = self.clone();
        Arc::new(move || {
            script.loads.fetch_add(1, Ordering::SeqCst);
            let (script, class) = (script.clone(), script.class.load(Ordering::SeqCst));
            let io = ModelIo {
                inputs: vec![TensorInfo::f32("images", &[0, 3, 32, 32])],
                outputs: vec![TensorInfo::f32("objects", &[0, 1, 6])],
                ..ModelIo::default()
            };
            let mock = MockBackend::new(io, move |inputs| {
                let batch = inputs[0].shape[0];
                script.largest.fetch_max(batch, Ordering::SeqCst);
                assert!(!script.panic.load(Ordering::SeqCst), "told to panic");
                if script.fail.load(Ordering::SeqCst) {
                    return Err(InferenceError::Run { model: "m".into(), problem: "told to fail".into() });
                }
                while script.hang.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let score = if script.nan.load(Ordering::SeqCst) { f32::NAN } else { 0.9 };
                let row = [4.0, 4.0, 20.0, 20.0, score, class as f32];
                Ok(vec![Tensor::f32([batch, 1, 6], row.repeat(batch))])
            });
            Box::new(mock)
        })
    }
}

fn spec() -> ModelSpec {
    ModelSpec::new("-").named("m").backend(BackendChoice::Named("mock".into()))
}

fn models(script: &Script, spec: ModelSpec) -> (Models, EventBus) {
    let events = EventBus::default();
    let options = ModelsOptions { events: Some(events.clone()), ..ModelsOptions::default() };
    (Models::new(options.backend("mock", script.factory()), vec![spec]), events)
}

fn picture() -> Picture {
    Picture::rgb(64, 64, vec![9; 64 * 64 * 3]).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_goes_in_and_what_is_in_it_comes_out() {
    let (models, _) = models(&Script::default(), spec().labels(["cat"]));
    let model = models.get("m").unwrap();
    let seen = model.infer(picture()).await.unwrap();
    assert_eq!((&*seen.detections[0].label, seen.detections[0].score), ("cat", 0.9));
    // The input is 32x32 and the picture twice as large.
    let place: [f32; 4] = seen.detections[0].region.unwrap().into();
    assert_eq!(place, [8.0, 8.0, 40.0, 40.0]);
    let none = Wanted { threshold: Some(0.95), ..Wanted::default() };
    assert!(model.infer_with(Arc::new(picture()), none).await.unwrap().detections.is_empty());
    let status = model.status();
    assert_eq!(
        (status.state, status.stats.pictures, status.backend.as_deref()),
        (ModelState::Ready, 2, Some("mock"))
    );
    assert!(models.get("other").err().unwrap().to_string().contains("there are: m"));
    models.close().await;
    assert!(model.infer(picture()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_come_together_are_computed_together() {
    let script = Script::default();
    let mut spec = spec();
    (spec.max_batch, spec.instances) = (4, 1);
    spec.max_delay = crate::config::DurationText(Duration::from_millis(500));
    let (models, _) = models(&script, spec);
    let model = models.get("m").unwrap();
    model.ready(Duration::from_secs(10)).await.unwrap();
    let all = futures_util::future::join_all((0..16).map(|_| model.infer(picture()))).await;
    assert!(all.iter().all(|seen| seen.as_ref().unwrap().detections.len() == 1));
    assert_eq!(script.largest.load(Ordering::SeqCst), 4);
    assert!(model.status().stats.batches < 16);
    models.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_hangs_is_told_to_have_failed_and_tried_again() {
    let script = Script::default();
    let mut spec = spec();
    spec.run_timeout = crate::config::DurationText(Duration::from_millis(200));
    let (models, events) = models(&script, spec);
    let mut heard = events.subscribe();
    let model = models.get("m").unwrap();
    model.ready(Duration::from_secs(10)).await.unwrap();
    script.hang.store(true, Ordering::SeqCst);
    let error = model.infer(picture()).await.unwrap_err();
    assert!(matches!(error, InferenceError::Timeout { .. } | InferenceError::NotReady { .. }), "{error}");
    until("it counts as failed", || model.state() == ModelState::Failed).await;
    assert!(model.infer(picture()).await.unwrap_err().to_string().contains("did not answer within 200ms"));
    script.hang.store(false, Ordering::SeqCst);
    until("it is loaded again", || model.state() == ModelState::Ready).await;
    assert_eq!(model.infer(picture()).await.unwrap().detections.len(), 1);
    let mut states = Vec::new();
    while let Ok(event) = heard.try_recv() {
        if let EventKind::ModelState { state, .. } = &event.kind {
            states.push(*state);
        }
    }
    assert_eq!(states.iter().filter(|s| **s == "failed").count(), 1, "{states:?}");
    assert_eq!(states.last(), Some(&"ready"));
    models.close().await;
}

/// Loading well is no sign that it works: what fails again soon waits longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_loads_and_fails_again_waits_longer() {
    let script = Script::default();
    let (models, _) = models(&script, spec());
    let model = models.get("m").unwrap();
    model.ready(Duration::from_secs(10)).await.unwrap();
    let mut waited = Duration::ZERO;
    for _ in 0..2 {
        script.fail.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            assert!(model.infer(picture()).await.is_err());
        }
        until("it counts as failed", || model.state() == ModelState::Failed).await;
        let began = Instant::now();
        script.fail.store(false, Ordering::SeqCst);
        until("it is loaded again", || model.state() == ModelState::Ready).await;
        waited = began.elapsed();
    }
    // Twice two seconds, a fifth less at most; the first wait is 2.4 s at most.
    assert!(waited > Duration::from_millis(3100), "{waited:?}");
    models.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_stay_with_their_picture_until_there_are_too_many() {
    let script = Script::default();
    let (models, _) = models(&script, spec());
    let model = models.get("m").unwrap();
    model.ready(Duration::from_secs(10)).await.unwrap();
    script.nan.store(true, Ordering::SeqCst);
    let error = model.infer(picture()).await.unwrap_err().to_string();
    assert!(error.contains("no numbers (NaN)"), "{error}");
    script.nan.store(false, Ordering::SeqCst);
    script.panic.store(true, Ordering::SeqCst);
    assert!(model.infer(picture()).await.unwrap_err().to_string().contains("panicked"));
    script.panic.store(false, Ordering::SeqCst);
    assert_eq!(model.infer(picture()).await.unwrap().detections.len(), 1, "it goes on");
    script.fail.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        assert!(model.infer(picture()).await.is_err());
    }
    until("it counts as failed", || model.state() == ModelState::Failed).await;
    assert!(model.status().last_error.unwrap().contains("told to fail"));
    script.fail.store(false, Ordering::SeqCst);
    until("it is loaded again", || model.state() == ModelState::Ready).await;
    models.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_loses_no_picture() {
    let script = Script::default();
    let (models, _) = models(&script, spec().labels(["old", "new"]));
    let model = models.get("m").unwrap();
    model.ready(Duration::from_secs(10)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (model, stop) = (model.clone(), stop.clone());
        async move {
            let mut labels = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                labels.push(model.infer(picture()).await.unwrap().detections[0].label.clone());
            }
            labels
        }
    });
    until("some are computed", || model.status().stats.pictures > 20).await;
    script.class.store(1, Ordering::SeqCst);
    model.reload().await.unwrap();
    let after = model.status().stats.pictures;
    until("some more are computed", || model.status().stats.pictures > after + 20).await;
    stop.store(true, Ordering::SeqCst);
    let labels = asking.await.unwrap();
    let turn = labels.iter().position(|l| &**l == "new").unwrap();
    assert!(labels[..turn].iter().all(|l| &**l == "old") && labels[turn..].iter().all(|l| &**l == "new"));
    // A replacement that cannot be loaded leaves the old one as it is.
    models.set(vec![ModelSpec { input_size: Some([99, 99]), ..spec().labels(["old", "new"]) }]);
    until("it is said", || model.status().reason.contains("cannot be loaded")).await;
    assert!(model.status().reason.contains("expected a width of 99"), "{}", model.status().reason);
    assert_eq!(&*model.infer(picture()).await.unwrap().detections[0].label, "new");
    models.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let reason = |spec: ModelSpec| async move {
        let models = Models::new(ModelsOptions::default(), vec![spec]);
        let error = models.all()[0].ready(Duration::from_secs(20)).await.unwrap_err().to_string();
        models.close().await;
        error
    };
    let error = reason(ModelSpec::new(&file)).await;
    assert!(error.contains("No such file") && error.contains("expected an ONNX file"), "{error}");
    std::fs::write(&file, "").unwrap();
    assert!(reason(ModelSpec::new(&file)).await.contains("it is empty"));
    assert!(reason(ModelSpec::new(folder.path())).await.contains("it is no file"));
    // More than ONNX can be, without its bytes being on the disk.
    std::fs::File::options().write(true).open(&file).unwrap().set_len((2 << 30) + 1).unwrap();
    assert!(reason(ModelSpec::new(&file)).await.contains("An ONNX file holds 2 GiB at most"));
    let named = ModelSpec::new(&file).backend(BackendChoice::Named("tpu".into()));
    let error = reason(named).await;
    assert!(error.contains("no backend \"tpu\"; expected one of: auto, tensorrt, cuda, cpu"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_loads_is_waited_for_at_the_end() {
    let (begun, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let script = Script::default().factory();
    let (loads, loaded) = (begun.clone(), done.clone());
    let slow: BackendFactory = Arc::new(move || {
        loads.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        loaded.store(true, Ordering::SeqCst);
        script()
    });
    let models = Models::new(ModelsOptions::default().backend("mock", slow), vec![spec()]);
    while !begun.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    models.close().await;
    // A process that ends while native code loads may crash.
    assert!(done.load(Ordering::SeqCst));
}
