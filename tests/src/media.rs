//! What ffprobe and ffmpeg say about files.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A packet as ffprobe lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// `video` or `audio`.
    pub kind: String,
    /// Seconds.
    pub pts: f64,
    /// Seconds.
    pub dts: f64,
    /// Seconds.
    pub duration: f64,
    /// Whether decoding can start at it.
    pub keyframe: bool,
    /// Bytes.
    pub size: u64,
}

/// Runs ffprobe and reads its JSON; panics if it finds anything to complain about.
pub fn ffprobe(path: &Path, arguments: &[&str]) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json"])
        .args(arguments)
        .arg(path)
        .output()
        .expect("ffprobe is not installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "ffprobe on {}: {complaint}", path.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What ffmpeg is told to read a stream by RTSP over TCP, and write over what is there.
pub fn reading_rtsp(url: &str) -> [&str; 7] {
    ["-v", "error", "-y", "-rtsp_transport", "tcp", "-i", url]
}

/// The file's packets in its order.
pub fn packets(path: &Path) -> Vec<Packet> {
    let number = |v: &Value| v.as_str().and_then(|s| s.parse().ok()).unwrap_or(f64::NAN);
    ffprobe(path, &["-show_packets"])["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| Packet {
            kind: p["codec_type"].as_str().unwrap().to_owned(),
            pts: number(&p["pts_time"]),
            dts: number(&p["dts_time"]),
            duration: number(&p["duration_time"]),
            keyframe: p["flags"].as_str().unwrap().starts_with('K'),
            size: number(&p["size"]) as u64,
        })
        .collect()
}

/// Its streams and format.
pub fn describe(path: &Path) -> Value {
    ffprobe(path, &["-show_streams", "-show_format"])
}

/// Checks what holds for every file: decoding times strictly increase, nothing is shown before it is
/// decoded, the video begins with a keyframe. Returns the packets.
pub fn check(path: &Path) -> Vec<Packet> {
    let packets = packets(path);
    assert!(!packets.is_empty(), "{} has no packets", path.display());
    for kind in ["video", "audio"] {
        let track: Vec<&Packet> = packets.iter().filter(|p| p.kind == kind).collect();
        for pair in track.windows(2) {
            assert!(
                pair[0].dts < pair[1].dts,
                "{}: {kind} dts {} then {}",
                path.display(),
                pair[0].dts,
                pair[1].dts
            );
        }
        assert!(track.iter().all(|p| p.pts >= p.dts - 1e-6), "{}: {kind} before its dts", path.display());
        if kind == "video" {
            assert!(track.first().is_none_or(|p| p.keyframe), "{} begins without a keyframe", path.display());
        }
    }
    packets
}

/// The frame counters of a file's video, decoded by ffmpeg. Panics if one cannot be read.
pub fn counters(path: &Path) -> Vec<u32> {
    let info = describe(path);
    let video =
        info["streams"].as_array().unwrap().iter().find(|s| s["codec_type"] == "video").unwrap().clone();
    let (width, height) =
        (video["width"].as_u64().unwrap() as usize, video["height"].as_u64().unwrap() as usize);
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        // Each picture once, whatever its time: ffmpeg's clock here has the ticks of the nominal frame rate, and
        // frames nearer than one (the last of a publisher, the first of the next) would be a complaint.
        .args(["-map", "0:v:0", "-vf", "settb=1,setpts=N", "-fps_mode", "passthrough"])
        .args(["-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is not installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "ffmpeg on {}: {complaint}", path.display());
    output
        .stdout
        .chunks(width * height)
        .map(|picture| {
            stream_manager_core::source::read_counter(picture, width)
                .unwrap_or_else(|| panic!("no counter in a frame of {}", path.display()))
        })
        .collect()
}

/// Panics unless the numbers go up by one each.
pub fn assert_contiguous(numbers: &[u32], what: &str) {
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "{what}: frame {} follows {} of {numbers:?}", pair[1], pair[0]);
    }
}

/// The files in a folder, by name.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|d| d.filter_map(|e| e.ok().map(|e| e.path())).collect())
        .unwrap_or_default();
    files.sort();
    files
}

/// The codecs of its tracks, by their names in ffmpeg.
pub fn codecs(path: &Path) -> Vec<String> {
    describe(path)["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["codec_name"].as_str().unwrap().to_owned())
        .collect()
}
