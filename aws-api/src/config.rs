//! What the front is made with.

use std::fmt;
use std::time::Duration;

use broker_core::RightsTemplate;
use http_edge::{Intake, OriginPolicy};

/// How AWS' clients are served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The region that requests are signed for. Default `us-east-1`.
    pub region: String,
    /// The account that stands in names. Default `000000000000`.
    pub account: String,
    /// Whether requests have to be signed. Default they have.
    pub signatures: Signatures,
    /// How much clocks may differ. Default 5 min, as AWS'.
    pub clock_skew: Duration,
    /// Whether the data plane of AWS IoT is served. Default no.
    pub iot: bool,
    /// Whether comings, goings and subscriptions of MQTT clients are published below `$aws/events/`. Default no.
    pub lifecycle_events: bool,
    /// Who may sign. Default nobody.
    pub keys: Vec<Key>,
    /// Web pages that may ask where requests need no signature.
    pub origins: OriginPolicy,
    /// The account of bodies that are not whole yet.
    pub intake: Intake,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            signatures: Signatures::Required,
            clock_skew: Duration::from_secs(5 * 60),
            iot: false,
            lifecycle_events: false,
            keys: Vec::new(),
            origins: OriginPolicy::default(),
            intake: Intake::default(),
        }
    }
}

/// Whether requests have to be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signatures {
    /// Each, by one of the keys.
    #[default]
    Required,
    /// They are not looked at: whoever reaches the server may do what the key may that the request names, and without a
    /// known one everything. For a machine of one's own.
    Ignored,
}

/// An access key and what it may do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Key {
    /// Its id, which requests name. It is the user of what it does.
    pub access_key: String,
    /// What requests are signed with.
    pub secret: Secret,
    /// Names of the gateways whose `@connections` it may use; `*` is every one.
    pub gateways: Vec<String>,
    /// What it may do on channels.
    pub rights: RightsTemplate,
}

impl Key {
    /// A key that may do nothing yet.
    pub fn new(access_key: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        Self {
            access_key: access_key.into(),
            secret: Secret(secret.into()),
            gateways: Vec::new(),
            rights: RightsTemplate::default(),
        }
    }
}

/// Bytes that are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
