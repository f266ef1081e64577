//! Multivariant playlists: which qualities and which sound there are.

use super::presentation::Presentation;
use super::rendition::Rendition;
use std::fmt::Write as _;
use std::sync::Arc;

/// A quality: its video, and where its playlists are.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What it is made of.
    pub presentation: Arc<Presentation>,
    /// Where its playlists are, with a slash at its end; empty beside the multivariant playlist.
    pub prefix: String,
}

fn channels(rendition: &Rendition) -> u16 {
    rendition.parameters().audio().map_or(2, |a| a.channels)
}

/// Frames per second as the stream says it, or as they came.
pub(super) fn frame_rate(rendition: &Rendition) -> Option<f64> {
    let stated = rendition.parameters().video().and_then(|v| v.frame_rate);
    if let Some((num, den)) = stated {
        return Some(f64::from(num) / f64::from(den.max(1)));
    }
    rendition.read(|held| {
        let time: f64 =
            held.total.1.as_secs_f64() + held.open.as_ref().map_or(0.0, |o| o.duration.as_secs_f64());
        (time > 0.4).then(|| held.frames as f64 / time)
    })
}

/// The line of a quality: its highest and its mean bit rate, its codecs, its size and its frames per second.
pub fn stream_inf(
    (peak, mean): (u64, u64),
    codecs: &[String],
    size: Option<(u32, u32)>,
    rate: Option<f64>,
) -> String {
    let codecs = codecs.join(",");
    let mut line = format!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean},CODECS=\"{codecs}\"");
    if let Some((width, height)) = size {
        let _ = write!(line, ",RESOLUTION={width}x{height}");
    }
    if let Some(rate) = rate {
        let _ = write!(line, ",FRAME-RATE={rate:.3}");
    }
    // Cameras have none. Players that are not told look for them; Shaka Player does so also in a segment that has no address
    // yet, and fails.
    line += ",CLOSED-CAPTIONS=NONE";
    line
}

/// The multivariant playlist: `variants[0]` is the stream itself, whose sound goes with all of them.
pub fn master_playlist(variants: &[Variant]) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    let Some(main) = variants.first() else { return text };
    let own = main.presentation.renditions();
    let (video, audio): (Vec<_>, Vec<_>) = own.iter().partition(|r| r.is_video());
    // A stream of sound alone is its own variant; a group is for sound beside a picture.
    let group: &[&Arc<Rendition>] = if video.is_empty() { &[] } else { &audio };
    for (index, rendition) in group.iter().enumerate() {
        let (name, uri) = (rendition.name(), format!("{}{}.m3u8", main.prefix, rendition.name()));
        let default = if index == 0 { "YES" } else { "NO" };
        let channels = channels(rendition);
        let _ = writeln!(
            text,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{name}\",DEFAULT={default},AUTOSELECT=YES,\
             CHANNELS=\"{channels}\",URI=\"{uri}\""
        );
    }
    let sound: Vec<(u64, u64)> = group.iter().filter_map(|r| r.bitrates()).collect();
    let sound = (sound.iter().map(|s| s.0).max().unwrap_or(0), sound.iter().map(|s| s.1).max().unwrap_or(0));
    let sound_codecs: Vec<String> = group.iter().filter_map(|r| r.parameters().rfc6381()).collect();
    for variant in variants {
        let renditions = variant.presentation.renditions();
        let Some(rendition) = renditions.first() else { continue };
        let Some((peak, mean)) = rendition.bitrates() else { continue };
        let parameters = rendition.parameters();
        let mut codecs: Vec<String> =
            parameters.rfc6381().into_iter().chain(sound_codecs.iter().cloned()).collect();
        codecs.dedup();
        let size = parameters.video().map(|v| (v.width, v.height));
        let rate = size.and_then(|_| frame_rate(rendition));
        text += &stream_inf((peak + sound.0, mean + sound.1), &codecs, size, rate);
        if !group.is_empty() {
            text.push_str(",AUDIO=\"audio\"");
        }
        let _ = writeln!(text, "\n{}{}.m3u8", variant.prefix, rendition.name());
    }
    text
}
