//! Any text as configuration, as an address and as an id: no panic, and no password in what is said about it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stream_manager_core::config::Config;
use stream_manager_core::error::redact_url;
use stream_manager_core::manager::StreamId;
use stream_manager_core::source::{RtspSource, TestSource};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = Config::from_toml(text) {
        // gst: lines are GStreamer's to parse.
        for stream in config.streams.iter().filter(|s| !s.source_url.starts_with("gst:")) {
            let _ = RtspSource::new(&stream.source_url);
        }
    }
    let _ = redact_url(text);
    let _ = RtspSource::new(text).map(|s| stream_manager_core::source::Source::address(&s));
    let _ = text.parse::<StreamId>();
    let _ = format!("test://smpte?{text}").parse().map(|url| TestSource::from_url(&url));
});
