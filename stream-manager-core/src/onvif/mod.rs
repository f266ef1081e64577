//! Cameras by ONVIF: found on the network, described, turned into streams, and listened to.
//!
//! [`Discovery`] asks the network (WS-Discovery, a multicast that every device answers) or given addresses, and asks each
//! device that it finds what it has: [`DeviceReport`], with the [`StreamConfig`](crate::config::StreamConfig)s that take it in.
//! [`CameraEvents`] listens to what a camera notices by itself (motion, tampering, inputs) and tells it as events of its
//! stream. Both go through [`OnvifAddress`]: one device, and who asks.
//!
//! What a device says of its own addresses is not believed further than their paths: all that is asked goes to the address
//! that it was reached at, so that neither a wrong setting behind a router nor a hostile answer leads anywhere else. Passwords
//! only ever leave as digests (WS-Security, HTTP Digest).
//!
//! ```no_run
//! use stream_manager_core::onvif::Discovery;
//!
//! # async fn example() -> Result<(), stream_manager_core::onvif::OnvifError> {
//! for device in Discovery::new().credentials("admin", "secret").run().await? {
//!     println!("{}: {:?}", device.url, device.report.map(|report| report.model));
//! }
//! # Ok(()) }
//! ```

mod address;
mod device;
mod discovery;
mod events;
mod notice;
mod transport;

pub use address::OnvifAddress;
pub use device::{DeviceReport, ProfileReport};
pub use discovery::{Discovery, FoundDevice};
pub use events::{CameraEvents, CameraEventsHandle, CameraEventsState, CameraEventsStatus};

use oxvif::soap::SoapError;
use oxvif::transport::TransportError;

/// Why a device could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnvifError {
    /// That is no address of a device.
    #[error(
        "\"{address}\" is no address of a device: {problem}; expected one such as 192.168.1.20, camera.local:8000 or http://192.168.1.20/onvif/device_service"
    )]
    Address {
        /// What was given, without secrets.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It cannot be reached.
    #[error("{address} cannot be reached: {problem}")]
    Connect {
        /// The device.
        address: String,
        /// Why.
        problem: String,
    },
    /// It wants to know who asks, or does not believe it.
    #[error("{address} wants a user and password that it knows")]
    Unauthorized {
        /// The device.
        address: String,
    },
    /// It answers, but not as ONVIF says.
    #[error("{address} answers something else than ONVIF has: {problem}")]
    Answer {
        /// The device.
        address: String,
        /// What.
        problem: String,
    },
    /// It took too long.
    #[error("{address} has not answered within {timeout:?}")]
    Timeout {
        /// The device.
        address: String,
        /// How long that was waited for.
        timeout: std::time::Duration,
    },
    /// The network cannot be asked.
    #[error("devices cannot be looked for: {problem}")]
    Discovery {
        /// Why.
        problem: String,
    },
}

/// As much of a device's words is shown.
const SHOWN: usize = 200;

impl OnvifError {
    fn of(address: &OnvifAddress, error: oxvif::OnvifError) -> Self {
        let address = address.to_string();
        let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
        match error {
            oxvif::OnvifError::Transport(TransportError::HttpStatus { status: transport::OWN, body }) => {
                Self::Connect { address, problem: body }
            }
            oxvif::OnvifError::Transport(TransportError::HttpStatus { status: 401 | 403, .. }) => {
                Self::Unauthorized { address }
            }
            oxvif::OnvifError::Transport(TransportError::HttpStatus { status, .. }) => {
                Self::Answer { address, problem: format!("HTTP status {status}") }
            }
            oxvif::OnvifError::Soap(SoapError::Fault { code, reason, subcode, .. }) => {
                let says = format!("{code} {} {reason}", subcode.unwrap_or_default());
                // Spelled in many ways: ter:NotAuthorized, wsse:FailedAuthentication, "Sender not Authorized".
                let plain = says.to_ascii_lowercase().replace(' ', "");
                if plain.contains("notauthorized")
                    || plain.contains("failedauth")
                    || plain.contains("unauthor")
                {
                    return Self::Unauthorized { address };
                }
                Self::Answer { address, problem: shown(&says) }
            }
            other => Self::Answer { address, problem: shown(&other.to_string()) },
        }
    }
}
