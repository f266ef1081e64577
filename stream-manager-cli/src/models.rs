//! Looking at models and timing them, and finding the one that an argument means.

use crate::args::{ModelArgs, ModelsCommand};
use crate::{exit, output, serve};
use std::path::{Path, PathBuf};
use stream_manager_core::config::{Labels, Overrides};
use stream_manager_core::inference::{self, BenchRow, Inspection, ModelSpec};

pub(crate) fn run(command: ModelsCommand) -> u8 {
    if let Err(problem) = output::start_plain_log("error") {
        output::error(&problem);
        return exit::USAGE;
    }
    let (model, description) = match &command {
        ModelsCommand::Inspect { model, description, .. }
        | ModelsCommand::Bench { model, description, .. } => (model, description),
    };
    let (spec, library) = match find(model, description) {
        Ok(found) => found,
        Err(problem) => {
            output::error(&problem);
            return exit::USAGE;
        }
    };
    let result = match command {
        ModelsCommand::Inspect { json, .. } => {
            inference::inspect(&spec, library.as_deref()).map(|inspection| {
                if json { output::line(&as_json(&spec, &inspection)) } else { show(&spec, &inspection) }
            })
        }
        ModelsCommand::Bench { batch, duration, json, .. } => {
            let mut first = true;
            inference::bench(&spec, library.as_deref(), &batch, duration.0, |row| {
                if json {
                    output::line(&serde_json::to_string(row).unwrap_or_default());
                } else {
                    if std::mem::take(&mut first) {
                        output::line(
                            "backend   threads  batch   median ms      min ms      p95 ms  pictures/s   runs",
                        );
                    }
                    output::line(&line(row));
                }
            })
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            output::error(&error.to_string());
            exit::FAILURE
        }
    }
}

/// The description that an argument means, and ONNX Runtime's place if one is set.
pub(crate) fn find(model: &str, args: &ModelArgs) -> Result<(ModelSpec, Option<PathBuf>), String> {
    let file = serve::config_file(args.config.as_deref());
    let config = serve::source(file, Overrides::default()).load(None).map_err(|e| e.to_string())?.inference;
    let known = config.models.iter().find(|m| m.name() == model).cloned();
    let mut spec = match known {
        Some(spec) => spec,
        None if Path::new(model).exists() || model.ends_with(".onnx") => ModelSpec::new(model),
        None => {
            let names: Vec<String> = config.models.iter().map(ModelSpec::name).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!("\"{model}\" is no file and no model of the configuration ({names})"));
        }
    };
    spec.layout = args.layout.or(spec.layout);
    spec.labels = args.labels.clone().map(Labels::File).or(spec.labels);
    spec.threshold = args.threshold.unwrap_or(spec.threshold);
    spec.backend = args.backend.clone().unwrap_or(spec.backend);
    spec.threads = args.threads.unwrap_or(spec.threads);
    spec.check().map_err(|problem| format!("--{problem}"))?;
    Ok((spec, args.onnxruntime.clone().or(config.onnxruntime)))
}

fn line(row: &BenchRow) -> String {
    format!(
        "{:<9} {:>7} {:>6} {:>11.2} {:>11.2} {:>11.2} {:>11.1} {:>6}",
        row.backend,
        row.threads,
        row.batch,
        row.median_ms,
        row.min_ms,
        row.p95_ms,
        row.pictures_per_sec,
        row.runs
    )
}

fn as_json(spec: &ModelSpec, inspection: &Inspection) -> String {
    let tensors = |list: &[inference::TensorInfo]| -> Vec<serde_json::Value> {
        list.iter()
            .map(|t| serde_json::json!({ "name": t.name, "type": t.element.name(), "shape": t.shape }))
            .collect()
    };
    let (plan, problem) = match &inspection.plan {
        Ok(plan) => (Some(plan), None),
        Err(error) => (None, Some(error.to_string())),
    };
    serde_json::json!({
        "path": spec.path,
        "sha256": inspection.sha256,
        "inputs": tensors(&inspection.io.inputs),
        "outputs": tensors(&inspection.io.outputs),
        "metadata": inspection.io.metadata,
        "layout": plan.map(|p| p.layout),
        "kind": plan.map(|p| p.kind()),
        "input_size": plan.map(|p| [p.input.width, p.input.height]),
        "color": plan.map(|p| p.input.color),
        "letterbox": plan.map(|p| p.input.fit),
        "labels": plan.map(|p| p.labels.iter().map(|l| l.to_string()).collect::<Vec<_>>()),
        "problem": problem,
        "backend": inspection.backend.name,
        "load_secs": inspection.load_time.as_secs_f64(),
    })
    .to_string()
}

fn show(spec: &ModelSpec, inspection: &Inspection) {
    let row = |name: &str, value: &str| output::line(&format!("{name:<12} {value}"));
    row("file", &spec.path.display().to_string());
    row("sha256", &inspection.sha256);
    for input in &inspection.io.inputs {
        row("input", &format!("{} {input}", input.name));
    }
    for found in &inspection.io.outputs {
        row("output", &format!("{} {found}", found.name));
    }
    for (key, value) in &inspection.io.metadata {
        let short: String = value.chars().take(100).collect();
        row("says", &format!("{key} = {short}"));
    }
    match &inspection.plan {
        Ok(plan) => {
            let guessed = if spec.layout.is_some() { "" } else { " (guessed)" };
            row("layout", &format!("{}{guessed}", plan.layout.name()));
            let input = &plan.input;
            row(
                "picture",
                &format!(
                    "{}x{} {:?}, {:?}; value * {:?} + {:?}",
                    input.width, input.height, input.color, input.fit, input.factor, input.offset
                )
                .to_lowercase(),
            );
            let names: Vec<&str> = plan.labels.iter().take(10).map(|l| &**l).collect();
            let more = if plan.labels.len() > 10 { ", ..." } else { "" };
            row("classes", &format!("{} {}{more}", plan.thresholds.classes.len(), names.join(", ")));
        }
        Err(error) => row("problem", &error.to_string()),
    }
    row("backend", &format!("{}: {}", inspection.backend.name, inspection.backend.device));
    row("loaded in", &format!("{:.3} s", inspection.load_time.as_secs_f64()));
}
