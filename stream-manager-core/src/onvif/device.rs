//! What a device is and sends, and the streams that take it in.

use super::{OnvifAddress, OnvifError};
use crate::config::{OnvifConfig, StreamConfig, VariantConfig};
use oxvif::OnvifSession;
use oxvif::types::VideoEncoding;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::IpAddr;
use url::Url;

/// Devices with more have something else in mind.
const MAX_PROFILES: usize = 32;
/// Qualities of one picture besides the best.
const MAX_VARIANTS: usize = 8;

/// What a device is and sends.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceReport {
    /// Who has made it.
    pub manufacturer: String,
    /// What it is called there.
    pub model: String,
    /// What runs on it.
    pub firmware: String,
    /// Its own number.
    pub serial: String,
    /// Whether it tells what it notices.
    pub events: bool,
    /// What it sends.
    pub profiles: Vec<ProfileReport>,
    /// Streams that take it in: one for each of its pictures, the best quality first, others as variants. No password is in them.
    pub streams: Vec<StreamConfig>,
}

/// One form in which a device sends a picture.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ProfileReport {
    /// Its name for programs.
    pub token: String,
    /// Its name for people.
    pub name: String,
    /// Which picture that is: devices may have several eyes.
    pub video_source: Option<String>,
    /// The codec, such as `h264`.
    pub codec: Option<String>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Pictures a second, at most.
    pub frame_rate: Option<f32>,
    /// Bit rate in kbit/s, at most.
    pub bitrate_kbps: Option<u32>,
    /// Where it is had, without user and password.
    pub source_url: String,
}

struct Encoder {
    token: String,
    codec: VideoEncoding,
    width: u32,
    height: u32,
    rate: Option<(f32, u32)>,
}

pub(super) async fn describe(device: &OnvifAddress) -> Result<DeviceReport, OnvifError> {
    let wrong = |error| OnvifError::of(device, error);
    let session = device.session().await?;
    let info = session.get_device_info().await.map_err(wrong)?;
    // Only the newer service knows H.265; not all that say that they have it do.
    let mut profiles = match session.capabilities().media2.url {
        Some(_) => profiles2(device, &session).await.unwrap_or_default(),
        None => Vec::new(),
    };
    if profiles.is_empty() {
        profiles = profiles1(device, &session).await.map_err(wrong)?;
    }
    let events = session.capabilities().events.url.is_some();
    let streams = streams(device, &info.model, events, &profiles);
    Ok(DeviceReport {
        manufacturer: info.manufacturer,
        model: info.model,
        firmware: info.firmware_version,
        serial: info.serial_number,
        events,
        profiles,
        streams,
    })
}

async fn profiles2(
    device: &OnvifAddress,
    session: &OnvifSession,
) -> Result<Vec<ProfileReport>, oxvif::OnvifError> {
    let encoders = session.get_video_encoder_configurations_media2().await.unwrap_or_default();
    let encoders: Vec<Encoder> = encoders
        .into_iter()
        .map(|e| Encoder {
            token: e.token,
            codec: e.encoding,
            width: e.resolution.width,
            height: e.resolution.height,
            rate: e.rate_control.map(|r| (r.frame_rate_limit, r.bitrate_limit)),
        })
        .collect();
    let mut reports = Vec::new();
    for p in session.get_profiles_media2().await?.into_iter().take(MAX_PROFILES) {
        let uri = session.get_stream_uri_media2(&p.token).await?;
        let encoder = encoders.iter().find(|e| Some(&e.token) == p.video_encoder_token.as_ref());
        reports.extend(report(device, (p.token, p.name, p.video_source_token), encoder, &uri));
    }
    Ok(reports)
}

async fn profiles1(
    device: &OnvifAddress,
    session: &OnvifSession,
) -> Result<Vec<ProfileReport>, oxvif::OnvifError> {
    let encoders = session.get_video_encoder_configurations().await.unwrap_or_default();
    let encoders: Vec<Encoder> = encoders
        .into_iter()
        .map(|e| Encoder {
            token: e.token,
            codec: e.encoding,
            width: e.resolution.width,
            height: e.resolution.height,
            rate: e.rate_control.map(|r| (r.frame_rate_limit as f32, r.bitrate_limit)),
        })
        .collect();
    let mut reports = Vec::new();
    for p in session.get_profiles().await?.into_iter().take(MAX_PROFILES) {
        let uri = session.get_stream_uri(&p.token).await?.uri;
        let encoder = encoders.iter().find(|e| Some(&e.token) == p.video_encoder_token.as_ref());
        reports.extend(report(device, (p.token, p.name, p.video_source_token), encoder, &uri));
    }
    Ok(reports)
}

fn report(
    device: &OnvifAddress,
    (token, name, video_source): (String, String, Option<String>),
    encoder: Option<&Encoder>,
    uri: &str,
) -> Option<ProfileReport> {
    Some(ProfileReport {
        token,
        name,
        video_source,
        codec: encoder.map(|e| match &e.codec {
            VideoEncoding::Jpeg => "mjpeg".to_owned(),
            VideoEncoding::H264 => "h264".to_owned(),
            VideoEncoding::H265 => "h265".to_owned(),
            VideoEncoding::Other(name) => name.to_lowercase(),
        }),
        width: encoder.map(|e| e.width),
        height: encoder.map(|e| e.height),
        frame_rate: encoder.and_then(|e| e.rate).map(|(rate, _)| rate),
        bitrate_kbps: encoder.and_then(|e| e.rate).map(|(_, rate)| rate),
        source_url: reachable(device, uri)?,
    })
}

/// A stream's address as it is of use here: without user and password, which some put in; and at the device's own address, if it
/// names one that is none.
fn reachable(device: &OnvifAddress, uri: &str) -> Option<String> {
    let mut url = Url::parse(uri.trim()).ok()?;
    if !matches!(url.scheme(), "rtsp" | "rtsps" | "http" | "https") {
        return None;
    }
    let host = url.host_str()?.trim_matches(['[', ']']);
    let nowhere = match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_unspecified() || ip.is_loopback(),
        Err(_) => host.is_empty() || host == "localhost",
    };
    if nowhere {
        url.set_host(device.url.host_str()).ok()?;
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some(url.into())
}

/// One stream for each of its pictures.
fn streams(
    device: &OnvifAddress,
    model: &str,
    events: bool,
    profiles: &[ProfileReport],
) -> Vec<StreamConfig> {
    let mut pictures: Vec<(Option<&String>, Vec<&ProfileReport>)> = Vec::new();
    for profile in profiles {
        let same = pictures.iter_mut().find(|(source, _)| *source == profile.video_source.as_ref());
        match same {
            Some((_, list)) if list.iter().any(|known| known.source_url == profile.source_url) => {}
            Some((_, list)) => list.push(profile),
            None => pictures.push((profile.video_source.as_ref(), vec![profile])),
        }
    }
    let host: String = device.url.host_str().unwrap_or_default().into();
    let base = id_of(&format!("{model}-{host}"));
    let mut streams = Vec::new();
    for (number, (_, mut list)) in (1..).zip(pictures) {
        // What everything plays first, and the largest of it; as the device has them otherwise.
        list.sort_by_key(|p| {
            let modern = matches!(p.codec.as_deref(), Some("h264" | "h265") | None);
            let pixels = u64::from(p.width.unwrap_or(0)) * u64::from(p.height.unwrap_or(0));
            (std::cmp::Reverse(modern), std::cmp::Reverse(pixels))
        });
        let Some((best, others)) = list.split_first() else { continue };
        let id = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        let mut stream = StreamConfig::new(id, best.source_url.as_str());
        stream.user = device.login.as_ref().map(|login| login.user.clone());
        stream.variants = (1..)
            .zip(others.iter().take(MAX_VARIANTS))
            .map(|(number, profile)| VariantConfig {
                name: if number == 1 { "sub".into() } else { format!("sub{number}") },
                source_url: profile.source_url.clone().into(),
                transport: None,
            })
            .collect();
        if events {
            // Where it is not the usual address, it has to be said.
            let usual = OnvifAddress::new(&host).is_ok_and(|usual| usual.url == device.url);
            let url = (!usual).then(|| device.to_string());
            stream.onvif =
                OnvifConfig { events: Some(true), url: url.map(Into::into), ..OnvifConfig::default() };
        }
        streams.push(stream);
    }
    streams
}

/// Of any text one that may be an id.
fn id_of(text: &str) -> String {
    let mut id = String::new();
    for c in text.chars().take(100) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => id.push(c),
            _ if !id.is_empty() && !id.ends_with('-') => id.push('-'),
            _ => {}
        }
    }
    let id = id.trim_end_matches('-');
    if id.is_empty() { "camera".into() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(source: &str, codec: &str, height: u32, url: &str) -> ProfileReport {
        ProfileReport {
            token: format!("{source}-{height}"),
            name: String::new(),
            video_source: Some(source.into()),
            codec: Some(codec.into()),
            width: Some(height * 16 / 9),
            height: Some(height),
            frame_rate: None,
            bitrate_kbps: None,
            source_url: url.into(),
        }
    }

    #[test]
    fn profiles_become_streams_with_variants() {
        let device = OnvifAddress::new("192.168.1.20").unwrap().credentials("admin", "secret");
        let profiles = [
            profile("eye-1", "mjpeg", 2160, "rtsp://192.168.1.20/jpeg"),
            profile("eye-1", "h264", 360, "rtsp://192.168.1.20/small"),
            profile("eye-1", "h265", 2160, "rtsp://192.168.1.20/main"),
            profile("eye-2", "h264", 1080, "rtsp://192.168.1.20/second"),
            profile("eye-1", "h264", 360, "rtsp://192.168.1.20/small"),
        ];
        let streams = streams(&device, "IPC-HFW 2831 (B)", true, &profiles);
        let ids: Vec<&str> = streams.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["ipc-hfw-2831-b-192-168-1-20", "ipc-hfw-2831-b-192-168-1-20-2"]);
        assert_eq!(streams[0].source_url, "rtsp://192.168.1.20/main");
        let variants: Vec<(&str, &str)> =
            streams[0].variants.iter().map(|v| (v.name.as_str(), &*v.source_url)).collect();
        assert_eq!(variants, [("sub", "rtsp://192.168.1.20/small"), ("sub2", "rtsp://192.168.1.20/jpeg")]);
        assert_eq!((streams[0].user.as_deref(), &streams[0].password), (Some("admin"), &None));
        assert_eq!((streams[0].onvif.events, &streams[0].onvif.url), (Some(true), &None));
        // They are what the server takes.
        let defaults = crate::config::Defaults::default();
        for mut stream in streams {
            stream.password = Some(crate::config::Password::new("secret"));
            assert!(crate::manager::stream_from_config(&stream, &defaults).is_ok(), "{stream:?}");
        }
        assert_eq!(id_of("—"), "camera");
    }

    #[test]
    fn addresses_of_streams_are_made_useful() {
        let device = OnvifAddress::new("http://10.0.0.5:8000/x").unwrap();
        for (said, used) in [
            ("rtsp://admin:secret@10.0.0.5:554/main?a=1&b=2", Some("rtsp://10.0.0.5:554/main?a=1&b=2")),
            ("rtsp://0.0.0.0/main", Some("rtsp://10.0.0.5/main")),
            ("rtsp://127.0.0.1:8554/main", Some("rtsp://10.0.0.5:8554/main")),
            ("rtsp://192.168.7.7/main", Some("rtsp://192.168.7.7/main")),
            ("javascript:alert(1)", None),
            ("", None),
        ] {
            assert_eq!(reachable(&device, said).as_deref(), used, "{said}");
        }
    }
}
