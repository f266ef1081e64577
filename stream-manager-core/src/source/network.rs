//! Live sources that GStreamer receives: MPEG-TS by UDP, SRT, RTMP, RTP that an SDP describes, and cameras of this machine.

use super::address::{parse_parameter, unknown_parameter};
use super::gio_tls::{GioTls, explain};
use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::config::TlsConfig;
use crate::error::redact_url;
use crate::hub::HubWriter;
use crate::pipeline::{self, make_element, parse_pipeline};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long starting may take: an SRT caller waits for its server, an RTMP client for the first data.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Times are the sender's, as they stand: drawn to our clock by when each packet came, as GStreamer does it by itself, they would
/// tremble by more than a frame of sound.
const DEMUX: &str = "tsdemux ignore-pcr=true";
/// What the system holds of datagrams for us.
const BUFFER_BYTES: i32 = 4 << 20;
/// The longest SDP that is read.
const MAX_SDP_BYTES: u64 = 64 << 10;
/// What `srt://` addresses may say beside where.
const SRT_PARAMETERS: [&str; 5] = ["mode", "streamid", "passphrase", "pbkeylen", "latency"];

/// What is received, and how.
#[derive(Clone, Debug)]
enum Kind {
    /// MPEG-TS in datagrams, sent to this machine or to a group that it joins.
    Udp {
        address: IpAddr,
        port: u16,
        interface: Option<String>,
    },
    /// By `srtsrc`, which knows the address and these properties.
    Srt {
        listens: bool,
    },
    Rtmp,
    /// RTP, as the file says.
    Sdp(PathBuf),
    /// A camera of this machine.
    Device {
        path: PathBuf,
        width: Option<u32>,
        height: Option<u32>,
        fps: Option<u32>,
    },
}

/// A live source that GStreamer receives.
///
/// | address | what comes |
/// |---|---|
/// | `udp://239.1.1.1:5000?interface=eth0`, `udp://0.0.0.0:5000` | MPEG-TS by UDP, to a group or to this machine |
/// | `srt://host:port?streamid=…&passphrase=…&latency=200` | MPEG-TS from a server; with `mode=listener`, from whoever comes |
/// | `rtmp://host/app/key`, `rtmps://…` | RTMP from a server |
/// | `sdp:///path/camera.sdp` | RTP (unicast, multicast) that the file describes |
/// | `v4l2:///dev/video0?width=1280&height=720&fps=25` | a camera of this machine; what comes raw is encoded |
///
/// ```
/// # use stream_manager_core::source::{NetworkSource, Source};
/// let source = NetworkSource::new("srt://192.0.2.7:9000?passphrase=geheim-geheim&latency=200").unwrap();
/// assert_eq!(source.address(), "srt://192.0.2.7:9000?passphrase=***&latency=200");
/// ```
#[derive(Clone, Debug)]
pub struct NetworkSource {
    url: Url,
    kind: Kind,
    tls: GioTls,
}

impl NetworkSource {
    /// From an address of one of the kinds above.
    ///
    /// # Errors
    /// Names the part of the address that is wrong.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let wrong = |e: url::ParseError| AddressError::NotAUrl {
            address: redact_url(address),
            problem: e.to_string(),
        };
        Self::from_url(Url::parse(address).map_err(wrong)?)
    }

    /// From a parsed address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_url(url: Url) -> Result<Self, AddressError> {
        let kind = match url.scheme() {
            "udp" => udp(&url)?,
            "srt" => srt(&url)?,
            "rtmp" | "rtmps" => rtmp(&url)?,
            "sdp" => Kind::Sdp(path_of(&url, &[])?),
            "v4l2" => device(&url)?,
            scheme => {
                let scheme = scheme.to_owned();
                return Err(AddressError::UnknownScheme { address: redact_url(url.as_str()), scheme });
            }
        };
        Ok(Self { url, kind, tls: GioTls::default() })
    }

    /// How an `rtmps://` server shows who it is; if nothing is said, an authority that the system trusts has to vouch for it.
    ///
    /// # Errors
    /// If that is by anything but [`TlsConfig::verify`].
    pub fn tls(mut self, tls: &TlsConfig) -> Result<Self, AddressError> {
        self.tls = GioTls::from_config(&self.url, tls, true)?;
        Ok(self)
    }

    async fn pipeline(&self) -> Result<gst::Pipeline, SourceError> {
        match &self.kind {
            Kind::Udp { address, port, interface } => {
                let pipeline = parse_pipeline(&format!("udpsrc name=source ! {DEMUX}"))?;
                if let Some(source) = pipeline.by_name("source") {
                    source.set_property("address", address.to_string());
                    source.set_property("port", i32::from(*port));
                    source.set_property("buffer-size", BUFFER_BYTES);
                    if let Some(interface) = interface {
                        source.set_property("multicast-iface", interface);
                    }
                    let caps = gst::Caps::builder("video/mpegts").field("systemstream", true).build();
                    source.set_property("caps", caps);
                }
                Ok(pipeline)
            }
            Kind::Srt { .. } => {
                let pipeline = parse_pipeline(&format!("srtsrc name=source ! {DEMUX}"))?;
                if let Some(source) = pipeline.by_name("source") {
                    pipeline::set_srt_address(&source, &self.url);
                }
                Ok(pipeline)
            }
            Kind::Rtmp => {
                let pipeline = parse_pipeline("rtmp2src name=source ! parsebin")?;
                if let Some(source) = pipeline.by_name("source") {
                    source.set_property("location", self.url.as_str());
                }
                Ok(pipeline)
            }
            Kind::Sdp(path) => {
                let source = make_element("sdpsrc")?;
                source.set_property("sdp", read_sdp(path).await?);
                Ok(gst_source::pipeline_of(&source)?)
            }
            Kind::Device { path, width, height, fps } => {
                let size = |name: &str, value: &Option<u32>| match value {
                    Some(value) => format!(",{name}={value}"),
                    None => String::new(),
                };
                let rate = fps.map_or(String::new(), |fps| format!(",framerate={fps}/1"));
                let caps = format!("video/x-raw{}{}{rate}", size("width", width), size("height", height));
                let pipeline = parse_pipeline(&format!("v4l2src name=source ! {caps} ! identity"))?;
                if let Some(source) = pipeline.by_name("source") {
                    source.set_property("device", path.to_string_lossy().as_ref());
                }
                Ok(pipeline)
            }
        }
    }
}

fn parameter_error(url: &Url, parameter: &str, value: &str, expected: &str) -> AddressError {
    AddressError::Parameter {
        address: redact_url(url.as_str()),
        parameter: parameter.into(),
        value: value.into(),
        expected: expected.into(),
    }
}

fn only(url: &Url, known: &[&str]) -> Result<(), AddressError> {
    let mut names = url.query_pairs();
    match names.find(|(name, _)| !known.contains(&name.as_ref())) {
        Some((name, _)) => Err(unknown_parameter(url, &name, known)),
        None => Ok(()),
    }
}

fn host_of(url: &Url) -> Result<&str, AddressError> {
    let host = url.host_str().filter(|host| !host.is_empty());
    host.ok_or_else(|| AddressError::NoHost { address: redact_url(url.as_str()) })
}

fn port_of(url: &Url) -> Result<u16, AddressError> {
    let expected = "a port behind the host, such as :5000";
    url.port().filter(|port| *port != 0).ok_or_else(|| parameter_error(url, "port", "", expected))
}

fn udp(url: &Url) -> Result<Kind, AddressError> {
    only(url, &["interface"])?;
    // As others write it: udp://@239.1.1.1:5000.
    let host = host_of(url)?.trim_start_matches('[').trim_end_matches(']');
    let expected = "an address of this machine, 0.0.0.0 or a group";
    let address = host.parse().map_err(|_| parameter_error(url, "host", host, expected))?;
    let interface = url.query_pairs().find(|(name, _)| name == "interface").map(|(_, value)| value.into());
    Ok(Kind::Udp { address, port: port_of(url)?, interface })
}

fn srt(url: &Url) -> Result<Kind, AddressError> {
    only(url, &SRT_PARAMETERS)?;
    port_of(url)?;
    for (name, value) in url.query_pairs() {
        let expected = match &*name {
            "mode" if ["caller", "listener", "rendezvous"].contains(&&*value) => continue,
            "mode" => "caller, listener or rendezvous",
            "passphrase" if (10..=79).contains(&value.len()) => continue,
            // The passphrase itself is not shown.
            "passphrase" => {
                return Err(parameter_error(url, "passphrase", "***", "10 to 79 letters (SRT)"));
            }
            "pbkeylen" if ["0", "16", "24", "32"].contains(&&*value) => continue,
            "pbkeylen" => "0, 16, 24 or 32",
            "latency" if value.parse::<u16>().is_ok() => continue,
            "latency" => "milliseconds, such as 200",
            _ => continue,
        };
        return Err(parameter_error(url, &name, &value, expected));
    }
    Ok(Kind::Srt { listens: pipeline::listens(url) })
}

fn rtmp(url: &Url) -> Result<Kind, AddressError> {
    host_of(url)?;
    let parts = url.path_segments().map_or(0, |parts| parts.filter(|part| !part.is_empty()).count());
    if parts < 2 {
        let expected = "an application and a stream's key, such as /live/door";
        return Err(parameter_error(url, "path", url.path(), expected));
    }
    Ok(Kind::Rtmp)
}

fn path_of(url: &Url, known: &[&str]) -> Result<PathBuf, AddressError> {
    only(url, known)?;
    let file = format!("file://{}", url.path());
    let path = Url::parse(&file).ok().and_then(|file| file.to_file_path().ok());
    let is_here = url.host_str().is_none_or(str::is_empty);
    path.filter(|path| is_here && path.components().count() > 1)
        .ok_or_else(|| parameter_error(url, "path", url.path(), "a path behind three slashes"))
}

fn device(url: &Url) -> Result<Kind, AddressError> {
    const KNOWN: [&str; 3] = ["width", "height", "fps"];
    let path = path_of(url, &KNOWN)?;
    let number = |wanted: &str| -> Result<Option<u32>, AddressError> {
        let found = url.query_pairs().find(|(name, _)| name == wanted);
        found.map(|(_, value)| parse_parameter(url, wanted, &value, "a number")).transpose()
    };
    Ok(Kind::Device { path, width: number("width")?, height: number("height")?, fps: number("fps")? })
}

async fn read_sdp(path: &std::path::Path) -> Result<String, SourceError> {
    let failed = |problem: String| SourceError::File { path: path.display().to_string(), problem };
    let read = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let length = std::fs::metadata(&path)?.len();
            if length > MAX_SDP_BYTES {
                return Err(std::io::Error::other(format!("it has {length} bytes; an SDP has few")));
            }
            std::fs::read_to_string(&path)
        })
    };
    let text = read.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    match crate::rtp::read_sdp(text.as_bytes()) {
        Ok(session) if session.medias.is_empty() => Err(failed("it describes no media".into())),
        Ok(_) => Ok(text),
        Err(error) => Err(failed(format!("it is no SDP (RFC 8866): {error}"))),
    }
}

#[async_trait::async_trait]
impl Source for NetworkSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        if let Kind::Device { path, .. } = self.kind.clone() {
            let shown = path.display().to_string();
            if !tokio::task::spawn_blocking(move || path.exists()).await.unwrap_or(false) {
                return Err(SourceError::File { path: shown, problem: "there is no such device".into() });
            }
        }
        if matches!(self.kind, Kind::Rtmp | Kind::Srt { .. }) {
            super::connect::check_outbound(&self.url).await?;
        }
        let options = GstOptions {
            // A sender's end is no end of a live source.
            may_end: false,
            timeout: START_TIMEOUT,
            ..GstOptions::live(self.address())
        };
        let pipeline = self.pipeline().await?;
        self.tls.prepared().await?.apply(&pipeline);
        let ended = gst_source::run(pipeline, &options, hub, &cancel).await;
        match ended {
            // GStreamer only says that it failed.
            Err(error) if matches!(self.kind, Kind::Rtmp) => {
                let port = self.url.port().unwrap_or(if self.url.scheme() == "rtmps" { 443 } else { 1935 });
                let explained = cancel.run_until_cancelled(explain(&self.tls, &self.url, port, error));
                explained.await.map_or(Ok(SourceEnd::Cancelled), Err)
            }
            ended => ended,
        }
    }

    fn address(&self) -> String {
        redact_url(self.url.as_str())
    }

    fn waits(&self) -> bool {
        matches!(self.kind, Kind::Udp { .. } | Kind::Srt { listens: true } | Kind::Sdp(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_named() {
        for right in [
            "udp://239.1.1.1:5000?interface=eth0",
            "udp://@239.1.1.1:5000",
            "udp://0.0.0.0:5000",
            "udp://[ff02::1]:5000",
            "srt://0.0.0.0:9000?mode=listener&passphrase=0123456789",
            "srt://camera:9000?latency=200&streamid=door",
            "rtmp://camera/live/door",
            "sdp:///etc/camera.sdp",
            "v4l2:///dev/video0?width=640&height=480&fps=15",
        ] {
            assert!(NetworkSource::new(right).is_ok(), "{right}: {:?}", NetworkSource::new(right).err());
        }
        for (wrong, words) in [
            ("udp://camera:5000", "host is \"camera\"; expected an address"),
            ("udp://0.0.0.0", "expected a port"),
            ("udp://0.0.0.0:5?ttl=1", "one of interface"),
            ("srt://camera", "expected a port"),
            ("srt://camera:9000?mode=sender", "expected caller, listener or rendezvous"),
            ("srt://camera:9000?passphrase=short", "passphrase is \"***\"; expected 10 to 79"),
            ("srt://camera:9000?latency=soon", "expected milliseconds"),
            ("rtmp://camera/live", "expected an application and a stream's key"),
            ("rtmp:///live/door", "no host"),
            ("sdp://x/camera.sdp", "expected a path"),
            ("v4l2:///dev/video0?fps=x", "fps is \"x\"; expected a number"),
        ] {
            let said = NetworkSource::new(wrong).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(words) && !said.contains("short"), "{wrong}: {said}");
        }
    }
}
