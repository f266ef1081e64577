//! A look at a source.

use crate::args::ProbeArgs;
use crate::{exit, output};
use stream_manager_core::manager::{self, ProbeReport, ProbeTrack};
use stream_manager_core::source::{SourceOptions, from_url_with};

pub(crate) async fn run(args: &ProbeArgs) -> u8 {
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
    match manager::probe(source, args.duration.0).await {
        Ok(report) if args.json => {
            output::line(&serde_json::to_string_pretty(&report).unwrap_or_default());
            0
        }
        Ok(report) => {
            print(&report);
            0
        }
        Err(error) => {
            output::error(&error.to_string());
            exit::SOURCE
        }
    }
}

fn print(report: &ProbeReport) {
    output::line(&report.source);
    for (number, track) in report.tracks.iter().enumerate() {
        output::line(&format!("  track {number}: {}", describe(track)));
    }
    match report.clock_offset_secs {
        Some(offset) => output::line(&format!("  clock: {offset:+.3} s against this machine")),
        None => output::line("  clock: the source does not state the time"),
    }
    if report.packets_lost > 0 {
        output::line(&format!("  lost: {} packets", report.packets_lost));
    }
}

fn describe(track: &ProbeTrack) -> String {
    let info = &track.info;
    let mut parts = vec![match &info.rfc6381 {
        Some(codec) => format!("{} ({codec})", info.codec),
        None => info.codec.to_owned(),
    }];
    if let (Some(width), Some(height)) = (info.width, info.height) {
        parts.push(format!("{width}x{height}"));
    }
    if let (Some(rate), Some(channels)) = (info.sample_rate, info.channels) {
        parts.push(format!("{rate} Hz, {channels} channels"));
    }
    if let (Some(rate), Some(_)) = (track.measured_frame_rate, info.width) {
        parts.push(format!("{rate:.2} fps"));
    }
    if let Some(bitrate) = track.bitrate {
        parts.push(format!("{:.0} kbit/s", bitrate / 1000.0));
    }
    if let (Some(frames), Some(secs)) = (track.gop_frames, track.gop_secs) {
        parts.push(format!("keyframe every {frames} frames ({secs:.2} s)"));
    }
    if track.reordered {
        parts.push("B frames".into());
    }
    parts.join(", ")
}
