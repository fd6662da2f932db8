//! What of a front can be set in a configuration file.

use std::net::SocketAddr;

use http_edge::{Intake, OriginPolicy, TokenSources};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The section of a front in a server's configuration: `[NAME]` of the file, `FANWIRE_NAME_…` of the environment.
///
/// The server reads it, tells what is wrong in it with its place, and lists its keys; the front says which keys there
/// are, in which form, and what follows from them. `settings::section!` makes such a type of a front's config, whose
/// fields have the defaults:
///
/// ```
/// use front::{Common, Section};
/// use settings::{Setting as _, Size};
///
/// #[derive(Clone, Default)]
/// pub struct Config {
///     pub max_line_bytes: usize,
/// }
///
/// settings::section!(
///     /// `[lines]`
///     pub Lines: Config { max_line_bytes: Size }
/// );
///
/// impl Section for Lines {
///     type Config = Config;
///     const NAME: &'static str = "lines";
///
///     fn into_config(self, _: &Common) -> Config {
///         self.into_value()
///     }
/// }
/// ```
///
/// An unknown key is told with the known one most like it if the type refuses it, as those of `settings::section!` do;
/// one with derives of its own needs `#[serde(default, deny_unknown_fields)]`.
pub trait Section: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the front is made with.
    type Config: Clone + Default + Send + Sync + 'static;

    /// The section's name: lower case, digits and `_`. If the front has a listener of its own, its
    /// [`Front::name`](crate::Front::name).
    const NAME: &'static str;

    /// Where the front's own listener is unless the configuration says otherwise, e.g. `127.0.0.1:7000` or `off`. The
    /// section then has a key `address`, which is not a field of this type: the server reads it, resolves names, and
    /// refuses addresses that other machines reach as long as nobody said who may do what. Default `None`: no listener,
    /// no such key.
    const ADDRESS: Option<&'static str> = None;

    /// Sets what the section says of the broker. Default nothing.
    fn set_broker(&self, broker: &mut broker_core::Config) {
        let _ = broker;
    }

    /// What the front is made with, after all sections had their say about the broker.
    fn into_config(self, common: &Common) -> Self::Config;
}

/// What a configuration says to all fronts alike.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Common {
    /// Web pages that may come: a handle to what can change while the server runs.
    pub origins: OriginPolicy,
    /// Where a token is read beside the headers: the same.
    pub token_sources: TokenSources,
    /// The one account of bodies, packets and messages that are not whole yet.
    pub intake: Intake,
    /// How the broker is set up.
    pub broker: broker_core::Config,
    /// Where the server serves HTTP, if it does.
    pub http: Option<SocketAddr>,
    /// Where the front's own listener is to be, if it has [one](Section::ADDRESS) and it is not off.
    pub address: Option<SocketAddr>,
    /// Who may read the server's numbers (`http.metrics`), if that is said.
    pub metrics: Option<MetricsReaders>,
}

impl Default for Common {
    /// As if nothing was written: HTTP is not served.
    fn default() -> Self {
        Self {
            origins: OriginPolicy::default(),
            token_sources: TokenSources::default(),
            intake: Intake::default(),
            broker: broker_core::Config::default(),
            http: None,
            address: None,
            metrics: None,
        }
    }
}

impl Common {
    /// A limit of a front that has to hold the broker's largest payload and what is around it, in bytes. One that is at
    /// its `default` keeps the room that it has around the usual `broker.max_message_bytes`, so that raising that alone
    /// is enough; one that somebody chose stays.
    pub fn with_room(&self, limit: usize, default: usize) -> usize {
        if limit != default {
            return limit;
        }
        let usual = broker_core::Config::default().max_message_bytes;
        default.saturating_add(self.broker.max_message_bytes.saturating_sub(usual))
    }
}

/// Who may read the server's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricsReaders {
    /// Everybody.
    Open,
    /// Who may manage.
    Manage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_follows_the_largest_payload_unless_it_was_chosen() {
        let mut common = Common::default();
        let usual = common.broker.max_message_bytes;
        assert_eq!(common.with_room(usual + 100, usual + 100), usual + 100);
        common.broker.max_message_bytes = usual + 1000;
        assert_eq!(common.with_room(usual + 100, usual + 100), usual + 1100);
        assert_eq!(common.with_room(7, usual + 100), 7, "chosen");
        common.broker.max_message_bytes = 1;
        assert_eq!(common.with_room(usual + 100, usual + 100), usual + 100, "never less than usual");
    }
}
