//! `[outbound]`: where this server connects to, and where not.

use crate::auth::Network;
use crate::outbound::{Rules, metadata_services};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[outbound]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Addresses and networks that are not connected to. The services by which clouds tell machines their secrets, unless set.
    pub deny: Vec<Network>,
    /// Exceptions from that.
    pub allow: Vec<Network>,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { deny: metadata_services(), allow: Vec::new() }
    }
}

impl OutboundConfig {
    /// What holds for connections.
    pub fn rules(&self) -> Rules {
        Rules::new(self.deny.clone(), self.allow.clone())
    }
}
