//! Files and HTTP, through GStreamer without decoding.

use super::address::{parse_parameter, unknown_parameter};
use super::gio_tls::{GioTls, explain};
use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::config::TlsConfig;
use crate::error::redact_url;
use crate::hub::HubWriter;
use crate::pipeline::{self, make_element};
use gstreamer::prelude::*;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A file or something behind HTTP: MP4, MKV, MPEG-TS, FLV, MJPEG, HLS, whatever GStreamer can take apart.
/// Frames are let out at the pace of their timestamps.
///
/// ```
/// # use stream_manager_core::source::UriSource;
/// let source = UriSource::from_url("file:///videos/door.mp4?loop=true".parse().unwrap()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct UriSource {
    url: Url,
    looped: bool,
    tls: GioTls,
}

impl UriSource {
    /// From an address. A file may be looped with `?loop=true`; a folder is its files, one behind the other.
    ///
    /// # Errors
    /// If the address has no host (HTTP) or an unknown parameter (file).
    pub fn from_url(mut url: Url) -> Result<Self, AddressError> {
        let mut looped = false;
        if url.scheme() == "file" {
            for (name, value) in url.query_pairs() {
                match &*name {
                    "loop" => looped = parse_parameter(&url, "loop", &value, "true or false")?,
                    other => return Err(unknown_parameter(&url, other, &["loop"])),
                }
            }
            url.set_query(None);
        } else if url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::NoHost { address: redact_url(url.as_str()) });
        }
        Ok(Self { url, looped, tls: GioTls::default() })
    }

    /// How an `https://` server shows who it is; if nothing is said, an authority that the system trusts has to vouch for it.
    ///
    /// # Errors
    /// If that is by a fingerprint, or in two ways at once.
    pub fn tls(mut self, tls: &TlsConfig) -> Result<Self, AddressError> {
        self.tls = GioTls::from_config(&self.url, tls, false)?;
        Ok(self)
    }

    /// Whether its end leads back to its start.
    #[must_use]
    pub fn looped(mut self, looped: bool) -> Self {
        self.looped = looped;
        self
    }

    /// The folder or the play list that it is, if it is one; an error if it is a file that cannot be played. Blocks.
    fn folder(&self) -> Result<Option<PathBuf>, SourceError> {
        let path = self.url.to_file_path().ok().filter(|_| self.url.scheme() == "file");
        let Some(path) = path else { return Ok(None) };
        let problem = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() || super::folder::is_list(&path) => return Ok(Some(path)),
            Ok(meta) if meta.len() == 0 => "is empty".to_owned(),
            Ok(_) => return Ok(None),
            Err(error) => error.to_string(),
        };
        Err(SourceError::File { path: path.display().to_string(), problem })
    }
}

#[async_trait::async_trait]
impl Source for UriSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let this = self.clone();
        let looked = tokio::task::spawn_blocking(move || this.folder()).await;
        if let Some(folder) = looked.map_err(|e| SourceError::Other(e.to_string()))?? {
            return super::folder::play(folder, self.looped, hub, &cancel).await;
        }
        super::connect::check_outbound(&self.url).await?;
        let source = make_element("urisourcebin")?;
        source.set_property("uri", self.url.as_str());
        let options = GstOptions {
            paced: true,
            looped: self.looped,
            may_end: self.url.scheme() == "file",
            timeout: CONNECT_TIMEOUT,
            ..GstOptions::live(self.address())
        };
        let pipeline = gst_source::pipeline_of(&source)?;
        self.tls.prepared().await?.apply(&pipeline);
        let ended = gst_source::run(pipeline, &options, hub, &cancel).await;
        match (ended, self.url.port_or_known_default()) {
            // GStreamer only says "internal data stream error".
            (Err(error), Some(port)) => {
                let explained = cancel.run_until_cancelled(explain(&self.tls, &self.url, port, error));
                explained.await.map_or(Ok(SourceEnd::Cancelled), Err)
            }
            (ended, _) => ended,
        }
    }

    fn address(&self) -> String {
        redact_url(self.url.as_str())
    }
}
