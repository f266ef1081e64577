//! Devices that are found: by asking all of the network, or given addresses.

use super::{DeviceReport, OnvifAddress, OnvifError};
use futures_util::StreamExt;
use futures_util::stream::iter;
use oxvif::discovery::{DiscoveredDevice, probe_result, probe_unicast};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

/// How long devices have to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long one may take to say what it is.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(15);
/// Devices that are asked at one time.
const AT_ONCE: usize = 16;
/// There are not more.
const MAX_DEVICES: usize = 512;

/// A device that was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FoundDevice {
    /// Its ONVIF service.
    pub url: String,
    /// Its own mark, which stays when its address does not; unknown if it has not answered when it was looked for.
    pub endpoint: Option<String>,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What it says that it is.
    pub hardware: Option<String>,
    /// Where it says that it hangs.
    pub location: Option<String>,
    /// What it is and sends.
    pub report: Option<DeviceReport>,
    /// Why that is not known.
    pub problem: Option<String>,
}

/// Looks for devices.
///
/// ```no_run
/// # use stream_manager_core::onvif::Discovery;
/// # async fn example() {
/// let found = Discovery::new().address("192.168.1.20").credentials("admin", "secret").run().await.unwrap();
/// for stream in found.iter().flat_map(|device| &device.report).flat_map(|report| &report.streams) {
///     println!("{}: {}", stream.id, stream.source_url.shown());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    addresses: Vec<String>,
    login: Option<(String, String)>,
    timeout: Duration,
}

impl Default for Discovery {
    fn default() -> Self {
        Self::new()
    }
}

impl Discovery {
    /// Asks all that are on the networks of this machine.
    pub fn new() -> Self {
        Self { addresses: Vec::new(), login: None, timeout: TIMEOUT }
    }

    /// Asks this one instead: as [`OnvifAddress::new`] reads it. Several may be said.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Who asks what they send; without it, few say.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some((user.into(), password.into()));
        self
    }

    /// How long devices have to answer, if not 3 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Looks for them, and asks each that is found what it is.
    ///
    /// # Errors
    /// If the network cannot be asked, or an address is none. What is wrong with one device stands with it.
    pub async fn run(self) -> Result<Vec<FoundDevice>, OnvifError> {
        let found = if self.addresses.is_empty() {
            let answers = probe_result(self.timeout).await;
            let answers = answers.map_err(|e| OnvifError::Discovery { problem: e.to_string() })?;
            answers.into_iter().filter_map(of_answer).collect()
        } else {
            let known: Result<Vec<_>, _> = self.addresses.iter().map(|a| OnvifAddress::new(a)).collect();
            let texts = self.addresses.into_iter();
            let ask: Vec<_> =
                known?.into_iter().zip(texts).map(|(d, text)| ask(d, text, self.timeout)).collect();
            iter(ask).buffered(AT_ONCE).collect::<Vec<_>>().await
        };
        let mut devices: Vec<(OnvifAddress, FoundDevice)> = Vec::new();
        for (device, found) in found {
            if devices.len() < MAX_DEVICES && devices.iter().all(|(_, known)| known.url != found.url) {
                devices.push((device, found));
            }
        }
        let described = devices.into_iter().map(|(device, found)| {
            let device = match &self.login {
                Some((user, password)) if device.login.is_none() => device.credentials(user, password),
                _ => device,
            };
            described(device, found)
        });
        let described: Vec<_> = described.collect();
        Ok(iter(described).buffered(AT_ONCE).collect().await)
    }
}

/// With what it says of itself, or why it does not.
async fn described(device: OnvifAddress, mut found: FoundDevice) -> FoundDevice {
    let report = tokio::time::timeout(DESCRIBE_TIMEOUT, device.describe()).await;
    let late = || OnvifError::Timeout { address: device.to_string(), timeout: DESCRIBE_TIMEOUT };
    match report.unwrap_or_else(|_| Err(late())) {
        Ok(report) => found.report = Some(report),
        Err(error) => found.problem = Some(error.to_string()),
    }
    found
}

/// A host's own answer says more than its address; but it may be asked without one.
async fn ask(device: OnvifAddress, text: String, timeout: Duration) -> (OnvifAddress, FoundDevice) {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let answers = probe_unicast(ip, timeout).await;
        // Others have no business to answer for it.
        let its_own = |d: &OnvifAddress| d.url.host_str() == device.url.host_str();
        if let Some(found) = answers.into_iter().filter_map(of_answer).find(|(device, _)| its_own(device)) {
            return found;
        }
    }
    let found = FoundDevice {
        url: device.to_string(),
        endpoint: None,
        name: None,
        hardware: None,
        location: None,
        report: None,
        problem: None,
    };
    (device, found)
}

/// A device by its answer; none if that has no address that is one. Of several the first by IPv4 is taken, which always has a use
/// where it was found.
fn of_answer(answer: DiscoveredDevice) -> Option<(OnvifAddress, FoundDevice)> {
    let mut addresses: Vec<OnvifAddress> =
        answer.xaddrs.iter().filter_map(|a| OnvifAddress::new(a).ok()).collect();
    addresses.sort_by_key(|a| !matches!(a.url.host(), Some(url::Host::Ipv4(_))));
    let device = addresses.into_iter().next()?;
    // onvif://www.onvif.org/name/Front%20Door: Core Specification section 7.3.2.2.
    let scope = |kind: &str| {
        let prefix = format!("onvif://www.onvif.org/{kind}/");
        let value = answer.scopes.iter().find_map(|scope| scope.strip_prefix(&prefix))?;
        let value: String = percent_decode_str(value).decode_utf8_lossy().chars().take(200).collect();
        (!value.is_empty()).then_some(value)
    };
    let found = FoundDevice {
        url: device.to_string(),
        endpoint: (!answer.endpoint.is_empty()).then(|| answer.endpoint.chars().take(200).collect()),
        name: scope("name"),
        hardware: scope("hardware"),
        location: scope("location"),
        report: None,
        problem: None,
    };
    Some((device, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = |xaddrs: &[&str]| DiscoveredDevice {
            endpoint: "urn:uuid:1".into(),
            types: vec!["dn:NetworkVideoTransmitter".into()],
            scopes: vec![
                "onvif://www.onvif.org/name/Front%20Door".into(),
                "onvif://www.onvif.org/hardware/X-1".into(),
            ],
            xaddrs: xaddrs.iter().map(|a| (*a).to_owned()).collect(),
        };
        let two = ["http://[fe80::1]/onvif/device_service", "http://10.0.0.5/onvif/device_service"];
        let (device, found) = of_answer(answer(&two)).unwrap();
        assert_eq!(device.to_string(), two[1]);
        assert_eq!((found.name.as_deref(), found.hardware.as_deref()), (Some("Front Door"), Some("X-1")));
        assert_eq!(found.location, None);
        assert!(of_answer(answer(&["ftp://x", "rubbish rubbish"])).is_none());
    }
}
