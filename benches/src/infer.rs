//! The part of the load bench that is about inference: cameras that are recorded and share one model.
//!
//! The process under test reports what each piece of its work took: the model's own counters, and the kernel's count of
//! processor time for each kind of thread.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stream_manager_core::config::DurationText;
use stream_manager_core::inference::{AnalysisSettings, CascadeConfig, ModelSpec, ModelStats};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source::RtspSource;

type Failure = Box<dyn std::error::Error>;

/// What is measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// Where the simulator is.
    pub url: String,
    /// Cameras.
    pub streams: usize,
    /// The model.
    pub model: PathBuf,
    /// Its threads.
    pub threads: usize,
    /// How often it is loaded.
    pub instances: usize,
    /// Pictures a second that each camera asks for.
    pub max_fps: f64,
    /// How long, in seconds.
    pub seconds: u64,
    /// Where to record.
    pub folder: PathBuf,
    /// A classifier that looks at each object, if any does.
    pub classifier: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Pictures a second.
    pub pictures: f64,
    /// Milliseconds of processor time for each decoded frame.
    pub decode_ms: f64,
    /// Milliseconds for each analysed picture: scaling and converting.
    pub preprocess_ms: f64,
    /// The model.
    pub run_ms: f64,
    /// Reading its outputs.
    pub postprocess_ms: f64,
    /// Following objects: tracks, zones, events, their pictures.
    pub follow_ms: f64,
    /// By how much the cameras' rates differ: the highest less the lowest, in per cent of their mean.
    pub spread: f64,
    /// The model's part of the time that its threads are busy.
    pub share: f64,
    /// From a frame's arrival to its answer, in milliseconds.
    pub latency_ms: [f64; 2],
    /// Pictures that a newer one replaced, a second.
    pub dropped: f64,
    /// Frames that came in and were not recorded.
    pub lost: u64,
    /// Frames that came in.
    pub received: u64,
    /// Frames that were left out before the decoder, because it was too slow.
    pub skipped: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Per cent of a core: decoders, models, the rest.
    pub cores: [f64; 3],
}

/// Processor time of this process' threads: decoders, models, the rest.
fn threads() -> [f64; 3] {
    let mut sums = [0.0; 3];
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((front, rest)) = stat.rsplit_once(')') else { continue };
        let name = front.split_once('(').map_or("", |(_, name)| name);
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        let kind = match name {
            name if name.starts_with("model-") => 1,
            // GStreamer names its threads by the pad that they push from.
            name if name.contains(":src") || name.contains(":sr") || name.starts_with("appsrc") => 0,
            _ => 2,
        };
        sums[kind] += (ticks(11) + ticks(12)) / 100.0;
    }
    sums
}

/// Records and analyses all cameras for the time that is set; in a process of its own.
///
/// # Errors
/// If something does not start.
pub async fn library(setup: &Setup) -> Result<Figures, Failure> {
    let mut spec = ModelSpec::new(&setup.model).named("model");
    (spec.threads, spec.instances) = (setup.threads, setup.instances);
    let mut analysis =
        AnalysisSettings { enabled: true, max_fps: setup.max_fps, ..AnalysisSettings::default() };
    let mut builder = StreamManager::builder().data_dir(&setup.folder).model(spec);
    if let Some(path) = &setup.classifier {
        let mut classifier = ModelSpec::new(path).named("classifier");
        classifier.threads = setup.threads;
        builder = builder.model(classifier);
        let looks = CascadeConfig {
            model: "classifier".into(),
            interval: Some(DurationText(Duration::from_secs(1))),
            ..CascadeConfig::default()
        };
        analysis.model = Some("model".into());
        analysis.scene.cascade = vec![looks];
    }
    for number in 0..setup.streams {
        builder = builder.stream(
            Stream::builder(format!("cam-{number}"))
                .source(RtspSource::new(&setup.url)?)
                .record(Recording::fmp4().segment_duration(Duration::from_secs(60)))
                .analyse(analysis.clone()),
        );
    }
    let manager = builder.build().await?;
    let model = manager.models().get("model")?;
    model.ready(Duration::from_secs(600)).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let sums = |manager: &StreamManager| {
        let streams = manager.streams();
        let status: Vec<_> = streams.iter().map(|s| s.analysis().status()).collect();
        let pushed: u64 = status.iter().map(|s| s.decoded).sum();
        let analysed: Vec<u64> = status.iter().map(|s| s.analysed).collect();
        let followed: f64 = status.iter().map(|s| s.followed_secs).sum();
        (pushed, status.iter().map(|s| s.dropped).sum::<u64>(), analysed, followed)
    };
    let (before, threads_before, began) = (model.status().stats, threads(), Instant::now());
    let sums_before = sums(&manager);
    tokio::time::sleep(Duration::from_secs(setup.seconds)).await;
    let (after, threads_after, secs) = (model.status().stats, threads(), began.elapsed().as_secs_f64());
    let sums_after = sums(&manager);
    let resident_bytes = crate::usage(std::process::id()).unwrap_or_default().resident_bytes;
    let streams = manager.streams();
    let skipped = streams
        .iter()
        .flat_map(|s| s.hub().consumers())
        .filter(|(name, _)| name == "inference")
        .map(|(_, stats)| stats.dropped_frames)
        .sum();
    manager.shutdown().await;
    let (mut received, mut recorded) = (0, 0);
    for stream in &streams {
        received += stream.hub().stats().frames;
        recorded += stream.recorder().status().frames;
    }
    let pictures = (after.pictures - before.pictures) as f64;
    let each = |of: fn(&ModelStats) -> f64| (of(&after) - of(&before)) / pictures.max(1.0) * 1e3;
    let cores = [0, 1, 2].map(|i| (threads_after[i] - threads_before[i]) / secs * 100.0);
    let decoded = (sums_after.0 - sums_before.0) as f64;
    let counts: Vec<u64> =
        sums_after.2.iter().zip(&sums_before.2).map(|(after, before)| after - before).collect();
    let (least, most) =
        (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
    Ok(Figures {
        pictures: pictures / secs,
        decode_ms: (threads_after[0] - threads_before[0]) * 1e3 / decoded.max(1.0),
        preprocess_ms: each(|s| s.preprocess_secs),
        run_ms: each(|s| s.run_secs),
        postprocess_ms: each(|s| s.postprocess_secs),
        follow_ms: (sums_after.3 - sums_before.3) * 1e3 / pictures.max(1.0),
        spread: (most - least) as f64 * 100.0 / mean.max(1.0),
        share: (after.run_secs - before.run_secs) / (after.busy_secs - before.busy_secs),
        latency_ms: [after.latency_p50_secs, after.latency_p95_secs].map(|l| l.unwrap_or(0.0) * 1e3),
        dropped: (sums_after.1 - sums_before.1) as f64 / secs,
        lost: received.saturating_sub(recorded),
        received,
        skipped,
        resident_bytes,
        cores,
    })
}

/// The head of the table.
pub const HEAD: &str = "cameras  pictures/s  decode ms  preprocess ms  run ms  read ms  follow ms  spread  model's part  latency p50  p95 ms  dropped/s  not decoded  lost   MB/camera  cores: decoders  models  rest";

/// One line of the table.
pub fn line(streams: usize, f: &Figures, empty_bytes: u64) -> String {
    format!(
        "{streams:>7}  {:>10.1}  {:>9.2}  {:>13.2}  {:>6.1}  {:>7.2}  {:>9.3}  {:>4.1} %  {:>12.3}  {:>11.1}  {:>6.1}  {:>9.1}  {:>11}  {:>4}  {:>10.1}  {:>14.0} %  {:>4.0} %  {:>3.0} %",
        f.pictures,
        f.decode_ms,
        f.preprocess_ms,
        f.run_ms,
        f.postprocess_ms,
        f.follow_ms,
        f.spread,
        f.share,
        f.latency_ms[0],
        f.latency_ms[1],
        f.dropped,
        f.skipped,
        f.lost,
        f.resident_bytes.saturating_sub(empty_bytes) as f64 / streams as f64 / 1e6,
        f.cores[0],
        f.cores[1],
        f.cores[2],
    )
}

/// Python's ONNX Runtime on the same model and threads: the median in milliseconds; `None` where there is none.
pub fn python(model: &Path, threads: usize) -> Option<f64> {
    const PROGRAM: &str = "
import sys, time, numpy, onnxruntime
o = onnxruntime.SessionOptions(); o.intra_op_num_threads = int(sys.argv[2])
s = onnxruntime.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])
x = {i.name: numpy.zeros(i.shape, numpy.float32) for i in s.get_inputs()}
for _ in range(10): s.run(None, x)
t = []
for _ in range(200):
    a = time.perf_counter(); s.run(None, x); t.append(time.perf_counter() - a)
print(sorted(t)[100] * 1e3)
";
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let output = std::process::Command::new(cache.join("stream-manager/tools/bin/python"))
        .args(["-c", PROGRAM])
        .arg(model)
        .arg(threads.to_string())
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
