//! The GStreamer elements the library uses, what for, and which package has them.

use gstreamer as gst;

/// An element and what it is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ElementNeed {
    /// The element's name.
    pub element: &'static str,
    /// The package that has it on Debian and Ubuntu.
    pub package: &'static str,
    /// What does not work without it.
    pub purpose: &'static str,
}

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";
const X: &str = "gstreamer1.0-x";

const fn need(element: &'static str, package: &'static str, purpose: &'static str) -> ElementNeed {
    ElementNeed { element, package, purpose }
}

/// Every element the library may make.
pub const ELEMENTS: &[ElementNeed] = &[
    need("appsrc", BASE, "recording MPEG-TS, MKV and MP4"),
    need("appsink", BASE, "every source but plain RTSP"),
    need("urisourcebin", BASE, "http:// and file:// sources"),
    need("parsebin", BASE, "http:// and file:// sources"),
    need("videotestsrc", BASE, "test:// sources"),
    need("audiotestsrc", BASE, "test:// sources"),
    need("videoconvert", BASE, "encoding raw video"),
    need("audioconvert", BASE, "encoding raw audio"),
    need("audioresample", BASE, "encoding raw audio"),
    need("clockoverlay", X, "the clock and the frame counter of test:// sources"),
    need("textoverlay", X, "slates that stand in for a source"),
    need("imagefreeze", GOOD, "images that stand in for a source"),
    need("videoscale", BASE, "images that stand in for a source"),
    need("souphttpsrc", GOOD, "http:// sources"),
    need("rtspsrc", GOOD, "rtsps:// and RTSP with codecs that need GStreamer"),
    need("udpsrc", GOOD, "udp:// sources"),
    need("flvdemux", GOOD, "rtmp:// sources"),
    need("v4l2src", GOOD, "v4l2:// sources"),
    need("multipartdemux", GOOD, "MJPEG over HTTP"),
    need("fdsrc", "libgstreamer1.0-0", "exec: sources"),
    need("srtsrc", BAD, "srt:// sources"),
    need("rtmp2src", BAD, "rtmp:// sources"),
    need("sdpsrc", BAD, "sdp:// sources"),
    need("hlsdemux", BAD, "HLS over HTTP"),
    need("rtmp2sink", BAD, "forwards to rtmp://"),
    need("srtsink", BAD, "forwards to srt://"),
    need("udpsink", GOOD, "forwards to udp://"),
    need("flvmux", GOOD, "forwards to rtmp://"),
    need("qtdemux", GOOD, "MP4 files as sources"),
    need("matroskademux", GOOD, "MKV files as sources"),
    need("splitmuxsink", GOOD, "recording MPEG-TS, MKV and MP4"),
    need("mp4mux", GOOD, "recording plain MP4"),
    need("matroskamux", GOOD, "recording MKV"),
    need("aacparse", GOOD, "AAC"),
    need("mpegtsmux", BAD, "recording MPEG-TS"),
    need("tsdemux", BAD, "MPEG-TS as source"),
    need("h264parse", BAD, "H.264"),
    need("h265parse", BAD, "H.265"),
    need("av1parse", BAD, "AV1"),
    need("jpegparse", BAD, "MJPEG"),
    need("opusparse", BAD, "Opus"),
    need("decodebin", BASE, "pictures"),
    need("jpegenc", GOOD, "pictures"),
    need("avdec_h264", LIBAV, "pictures of H.264"),
    need("x264enc", UGLY, "test:// sources and encoding raw video"),
    need("avdec_h265", LIBAV, "pictures and analysis of H.265"),
    need("avenc_aac", LIBAV, "AAC in test:// sources and encoding raw audio"),
    need("avdec_aac", LIBAV, "sound for browsers by WebRTC"),
    need("opusenc", BASE, "sound for browsers by WebRTC"),
    need("alawdec", GOOD, "G.711 for players"),
    need("mulawdec", GOOD, "G.711 for players"),
];

/// GStreamer as it is installed.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct GstreamerReport {
    /// Its version.
    pub version: String,
    /// The plugins, by name, with their versions.
    pub plugins: std::collections::BTreeMap<String, String>,
    /// Elements that some source or recording needs and that are not installed.
    pub missing: Vec<String>,
}

/// What is installed; `None` if GStreamer does not start.
pub(crate) fn installed() -> Option<GstreamerReport> {
    super::init().ok()?;
    let plugins = gst::Registry::get().plugins();
    Some(GstreamerReport {
        version: gst::version_string().to_string(),
        plugins: plugins.iter().map(|p| (p.plugin_name().to_string(), p.version().to_string())).collect(),
        missing: missing_elements().unwrap_or_default().iter().map(|need| need.element.to_owned()).collect(),
    })
}

/// Which package has an element, as far as it is known.
pub(super) fn package_of(element: &str) -> Option<&'static str> {
    ELEMENTS.iter().find(|need| need.element == element).map(|need| need.package)
}

/// What decodes video of these caps: an error that names a package if nothing that is installed does.
#[cfg(feature = "inference")]
pub(crate) fn check_decoder(caps: &gst::Caps) -> Result<(), super::PipelineError> {
    let decoders = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO,
        gst::Rank::MARGINAL,
    );
    if decoders.iter().any(|factory| factory.can_sink_any_caps(caps)) {
        return Ok(());
    }
    let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
    let (element, package) = match name.as_str() {
        "video/x-h264" => ("avdec_h264", LIBAV),
        "video/x-h265" => ("avdec_h265", LIBAV),
        "video/x-av1" => ("av1dec", BAD),
        "video/x-vp8" => ("vp8dec", GOOD),
        "video/x-vp9" => ("vp9dec", GOOD),
        "image/jpeg" => ("jpegdec", GOOD),
        _ => ("decodebin", BASE),
    };
    Err(super::PipelineError::MissingElement { element: element.into(), package: package.into() })
}

/// The elements that are not installed.
///
/// # Errors
/// If GStreamer does not start.
pub fn missing_elements() -> Result<Vec<ElementNeed>, super::PipelineError> {
    super::init()?;
    Ok(ELEMENTS.iter().filter(|need| gst::ElementFactory::find(need.element).is_none()).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_names_its_package() {
        assert_eq!(
            crate::pipeline::missing("x264enc").to_string(),
            "GStreamer element \"x264enc\" is missing; install the package gstreamer1.0-plugins-ugly"
        );
        super::super::init().unwrap();
        let error = crate::pipeline::parse_bin("videotestsrc ! nosuchelement").unwrap_err();
        assert!(error.to_string().contains("\"nosuchelement\" is missing"), "{error}");
        assert_eq!(package_of("nosuchelement"), None);
    }
}
