//! One recording.

use crate::args::RecordArgs;
use crate::{exit, output};
use std::io::IsTerminal;
use stream_manager_core::manager::{JobError, JobReport, Progress, RecordJob};
use stream_manager_core::recording::{Recording, RecordingFormat};
use stream_manager_core::source::{SourceOptions, from_url_with};

pub(crate) async fn run(args: RecordArgs) -> u8 {
    if let Err(problem) = output::start_plain_log(&args.log) {
        output::error(&problem);
        return exit::USAGE;
    }
    let source =
        match from_url_with(&args.url, &SourceOptions { transport: args.transport, ..Default::default() }) {
            Ok(source) => source,
            Err(error) => {
                output::error(&error.to_string());
                return exit::USAGE;
            }
        };
    let to_stdout = args.output == "-";
    let recording = if to_stdout {
        Ok(Recording::to_writer(std::io::stdout(), args.format.unwrap_or(RecordingFormat::Fmp4)))
    } else {
        Recording::to_file(&args.output, args.format, args.overwrite)
    };
    let recording = recording.map(|r| match args.segment {
        Some(segment) => r.segment_duration(segment.0),
        None => r,
    });
    let recording = match recording.and_then(|r| r.check().map(|()| r)) {
        Ok(recording) => recording,
        Err(error) => {
            output::error(&error.to_string());
            return if matches!(error, stream_manager_core::recording::RecordError::Exists { .. }) {
                exit::OUTPUT
            } else {
                exit::USAGE
            };
        }
    };
    let mut job = RecordJob::new(source, recording).give_up_after(args.reconnect_for.0);
    if let Some(duration) = args.duration {
        job = job.duration(duration.0);
    }
    let cancel = match output::cancel_on_signal() {
        Ok(cancel) => cancel,
        Err(error) => {
            output::error(&error.to_string());
            return exit::FAILURE;
        }
    };
    let mut printer = Printer::new(&args, to_stdout);
    let result = job.run(cancel, |progress| printer.progress(progress)).await;
    printer.end();
    match result {
        Ok(report) => {
            printer.finished(&report);
            0
        }
        Err(error) => {
            printer.failed(&error);
            match error {
                JobError::Source(_) | JobError::Nothing if printer.last_frames == 0 => exit::SOURCE,
                JobError::Source(_) => exit::LOST,
                JobError::Recording(_) => exit::OUTPUT,
                _ => exit::FAILURE,
            }
        }
    }
}

/// Tells how far the recording is, in the way that was asked for.
struct Printer {
    json: bool,
    terminal: bool,
    quiet: bool,
    to_stdout: bool,
    last_reason: String,
    last_frames: u64,
}

impl Printer {
    fn new(args: &RecordArgs, to_stdout: bool) -> Self {
        Self {
            json: args.json,
            terminal: !args.json && !args.quiet && std::io::stderr().is_terminal(),
            quiet: args.quiet,
            to_stdout,
            last_reason: String::new(),
            last_frames: 0,
        }
    }

    fn json_line(&self, event: &str, value: serde_json::Value) {
        let mut object = serde_json::json!({ "event": event });
        if let (Some(object), serde_json::Value::Object(fields)) = (object.as_object_mut(), value) {
            object.extend(fields);
        }
        if self.to_stdout { output::note(&object.to_string()) } else { output::line(&object.to_string()) }
    }

    fn progress(&mut self, progress: &Progress) {
        self.last_frames = progress.frames;
        if self.json {
            self.json_line("progress", serde_json::to_value(progress).unwrap_or_default());
        } else if self.terminal {
            output::status_line(&format!("{}  [{}]", describe(progress), progress.reason));
        } else if !self.quiet && progress.reason != self.last_reason {
            self.last_reason.clone_from(&progress.reason);
            output::note(&format!("{}: {}", format!("{:?}", progress.state).to_lowercase(), progress.reason));
        }
    }

    fn end(&self) {
        if self.terminal {
            output::note("");
        }
    }

    fn finished(&self, report: &JobReport) {
        if self.json {
            self.json_line("finished", serde_json::to_value(report).unwrap_or_default());
        } else if !self.quiet {
            let files =
                if report.segments == 1 { "1 file".to_owned() } else { format!("{} files", report.segments) };
            output::note(&format!("recorded {} in {files}", describe(&report.progress)));
        }
    }

    fn failed(&self, error: &JobError) {
        if self.json {
            self.json_line("failed", serde_json::json!({ "error": error.to_string() }));
        } else {
            output::error(&error.to_string());
        }
    }
}

fn describe(p: &Progress) -> String {
    let secs = p.duration_secs;
    let clock =
        format!("{:02}:{:02}:{:04.1}", (secs / 3600.0) as u64, (secs / 60.0) as u64 % 60, secs % 60.0);
    let lost = p.packets_lost + p.frames_lost;
    format!(
        "{clock}  {:.2} MB  {:.2} Mbit/s  {} frames  {lost} lost",
        p.bytes as f64 / 1e6,
        p.bitrate / 1e6,
        p.frames
    )
}
