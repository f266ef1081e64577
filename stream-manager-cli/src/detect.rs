//! One analysis.

use crate::args::DetectArgs;
use crate::{exit, models, output};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use stream_manager_core::inference::{
    Happening, InferenceError, ModelKind, Models, ModelsOptions, SceneSettings, Wanted,
};
use stream_manager_core::manager::{AnalysedFrame, DetectInput, DetectJob};
use stream_manager_core::source::SourceOptions;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Detector,
    Classifier,
}

pub(crate) async fn run(args: DetectArgs, kind: Kind) -> u8 {
    if let Err(problem) = output::start_plain_log(&args.log) {
        output::error(&problem);
        return exit::USAGE;
    }
    let options = SourceOptions { transport: args.transport, ..SourceOptions::default() };
    let found =
        DetectInput::parse(&args.input, &options).map_err(|problem| (problem, exit::SOURCE)).and_then(
            |input| Ok((input, models::find(&args.model, &args.description).map_err(|p| (p, exit::USAGE))?)),
        );
    let (input, (mut spec, library)) = match found {
        Ok(found) => found,
        Err((problem, code)) => {
            output::error(&problem);
            return code;
        }
    };
    if kind == Kind::Classifier {
        spec.kind = Some(ModelKind::Classifier);
        if args.description.threshold.is_none() {
            // The best few are told whatever their scores.
            (spec.threshold, spec.max_detections) = (0.0, spec.max_detections.min(5));
        }
    }
    let scene = match scene_of(&args) {
        Ok(scene) => scene,
        Err(problem) => {
            output::error(&problem);
            return exit::USAGE;
        }
    };
    let cancel = match output::cancel_on_signal() {
        Ok(cancel) => cancel,
        Err(error) => {
            output::error(&error.to_string());
            return exit::FAILURE;
        }
    };
    let name = spec.name();
    let models = Models::new(ModelsOptions { library, ..ModelsOptions::default() }, vec![spec]);
    let mut printer = Printer::new(&args);
    let limit = args.limit.unwrap_or(u64::MAX);
    let stop = cancel.child_token();
    let result = match models.get(&name) {
        Ok(model) => {
            let wanted = Wanted { threshold: None, classes: args.classes.clone() };
            let mut job = DetectJob::new(input, model).every(args.every).wanted(wanted);
            if let Some(path) = &args.output {
                job = job.annotated(path);
            }
            if let Some(scene) = scene {
                job = job.follow(scene);
            }
            if args.events {
                let json = args.json;
                job = job.on_event(move |time, told| output::line(&event(time, told, json)));
            }
            job.run(stop.clone(), |frame| {
                if printer.frames < limit {
                    printer.frame(frame);
                }
                if printer.frames >= limit {
                    stop.cancel();
                }
            })
            .await
        }
        Err(error) => Err(error),
    };
    models.close().await;
    printer.end();
    match result {
        Ok(_) => 0,
        Err(error) => {
            output::error(&error.to_string());
            match error {
                InferenceError::Source(_) | InferenceError::Pipeline(_) | InferenceError::Picture { .. } => {
                    exit::SOURCE
                }
                InferenceError::Output { .. } => exit::OUTPUT,
                _ => exit::FAILURE,
            }
        }
    }
}

/// What is followed, if anything is.
fn scene_of(args: &DetectArgs) -> Result<Option<SceneSettings>, String> {
    if !args.track && !args.events && args.zone.is_empty() && args.line.is_empty() {
        return Ok(None);
    }
    let scene =
        SceneSettings { zones: args.zone.clone(), lines: args.line.clone(), ..SceneSettings::default() };
    scene.check().map_err(|(key, problem)| format!("{}{problem}", key.trim_start_matches("inference/")))?;
    Ok(Some(scene))
}

/// Tells what was seen, in the way that was asked for.
struct Printer {
    json: bool,
    events: bool,
    show_fps: bool,
    /// Whether results go elsewhere than to the terminal, which then has progress.
    progress: bool,
    frames: u64,
    began: Option<Instant>,
    told: Option<Instant>,
}

impl Printer {
    fn new(args: &DetectArgs) -> Self {
        let progress = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Self {
            json: args.json,
            events: args.events,
            show_fps: args.show_fps,
            progress,
            frames: 0,
            began: None,
            told: None,
        }
    }

    fn fps(&self) -> f64 {
        let secs = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        if secs > 0.0 { self.frames.saturating_sub(1) as f64 / secs } else { 0.0 }
    }

    fn frame(&mut self, frame: &AnalysedFrame) {
        self.frames += 1;
        self.began.get_or_insert_with(Instant::now);
        if self.events {
            // They are told by themselves.
        } else if self.json {
            output::line(&serde_json::to_string(frame).unwrap_or_default());
        } else if !frame.detections.is_empty() {
            output::line(&describe(frame));
        }
        if self.progress && self.told.is_none_or(|told| told.elapsed() >= PROGRESS) {
            self.told = Some(Instant::now());
            output::status_line(&format!(
                "{:.1} s of it analysed, {} pictures, {:.1} a second",
                frame.time,
                self.frames,
                self.fps()
            ));
        }
    }

    fn end(&self) {
        if self.progress && self.told.is_some() {
            output::note("");
        }
        if self.show_fps {
            output::note(&format!("{} pictures, {:.1} a second", self.frames, self.fps()));
        }
    }
}

/// What an object does, in a line.
fn event(time: Duration, told: &Happening, json: bool) -> String {
    let secs = (time.as_secs_f64() * 1e6).round() / 1e6;
    if json {
        let (kind, value) = match told {
            Happening::Object(object) => ("object", serde_json::to_value(object)),
            Happening::Scene(scene) => ("scene", serde_json::to_value(scene)),
            _ => return String::new(),
        };
        let mut all = serde_json::json!({ "time": secs, "kind": kind });
        if let (Some(all), Ok(serde_json::Value::Object(value))) = (all.as_object_mut(), value) {
            all.extend(value);
        }
        return all.to_string();
    }
    format!("{secs:.3} s  {told}")
}

fn describe(frame: &AnalysedFrame) -> String {
    let one = |d: &stream_manager_core::detection::Detection| {
        let place = d.region.map(|r| {
            let [x0, y0, x1, y1] = [r.x0, r.y0, r.x1, r.y1].map(f32::round);
            format!(" [{x0},{y0},{x1},{y1}]")
        });
        let track = d.track.map(|track| format!(" #{track}")).unwrap_or_default();
        format!("{}{track} {:.2}{}", d.label, d.score, place.unwrap_or_default())
    };
    let seen: Vec<String> = frame.detections.iter().map(one).collect();
    format!("{:.3} s  {}", frame.time, seen.join("  "))
}
