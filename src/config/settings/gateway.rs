//! `[gateway]`: who is called, and where the broker may connect to.

use std::path::Path;
use std::sync::Arc;

use gateway::address::{Addresses, Range};
use gateway::webhook::{Gateway, Written};
use gateway::written::Wrong;
use gateway_aws::Sign;
use gateway_aws::settings::apis;
use serde::{Deserialize, Serialize};
use settings::Text;

use crate::config::nearest::nearest;
use crate::signed::{Keys, Lambda};

/// `[gateway]`: webhooks, and which addresses may be connected to for URLs that come from elsewhere.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Section {
    allow_addresses: Vec<Text<Range>>,
    allow_hosts: Vec<String>,
    deny_hosts: Vec<String>,
    allow_ports: Vec<u16>,
    webhooks: Vec<Written>,
    sources: Vec<sources::Written>,
    aws: Vec<gateway_aws::settings::Written>,
    routes: Vec<gateway_grip::settings::Written>,
    grip: gateway_grip::settings::WrittenGrip,
}

impl Section {
    /// What it says; files are taken from `folder`.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn value(&self, folder: &Path) -> Result<Gateway, (String, String)> {
        let mut gateway = Gateway::default();
        for (at, written) in self.webhooks.iter().enumerate() {
            let key = |key: &str| format!("gateway.webhooks[{at}].{key}");
            let settings = written.settings(Some(folder)).map_err(|wrong| (key(wrong.key), wrong.message))?;
            if gateway.webhooks.iter().any(|known| known.id == settings.id) {
                return Err((key("id"), format!("another webhook is called {:?}", settings.id)));
            }
            gateway.webhooks.push(settings);
        }
        let mut addresses = Addresses::default();
        addresses.allow = self.allow_addresses.iter().map(|range| range.0).collect();
        addresses.allow_hosts.clone_from(&self.allow_hosts);
        addresses.deny_hosts.clone_from(&self.deny_hosts);
        addresses.allow_ports.clone_from(&self.allow_ports);
        gateway.addresses = addresses;
        Ok(gateway)
    }

    /// Where items of GRIP are published on a listener of its own, as it is written.
    pub(in crate::config) fn control_address(&self) -> &str {
        self.grip.control_address()
    }

    /// The routes; files are taken from `folder`, and `taken` is whether a path is another front's.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn routes(
        &self,
        folder: &Path,
        taken: impl Fn(&str) -> bool,
    ) -> Result<gateway_grip::Settings, (String, String)> {
        let settings = gateway_grip::settings::read(&self.routes, &self.grip, folder, taken);
        settings.map_err(|wrong| (format!("gateway.{}", wrong.key), wrong.message))
    }

    /// The sources; those that are put later are judged by `addresses`.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn sources(
        &self,
        addresses: &Addresses,
    ) -> Result<sources::Config, (String, String)> {
        let mut config = sources::Config::default();
        config.addresses = addresses.clone();
        for (at, written) in self.sources.iter().enumerate() {
            let key = |key: &str| format!("gateway.sources[{at}].{key}");
            let settings = written.settings().map_err(|wrong| (key(wrong.key), wrong.message))?;
            if config.sources.iter().any(|known| known.id == settings.id) {
                return Err((key("id"), format!("another source is called {:?}", settings.id)));
            }
            config.sources.push(settings);
        }
        Ok(config)
    }

    /// Access keys name APIs that there are: a key for one whose name is misspelt would open nothing, and say nothing of it.
    fn check_gateways(&self, aws: &aws_api::Config) -> Result<(), (String, String)> {
        let is_known = |name: &str| name == "*" || self.aws.iter().any(|api| api.name() == name);
        for (at, key) in aws.keys.iter().enumerate() {
            if let Some(unknown) = key.gateways.iter().find(|name| !is_known(name)) {
                let names = self.aws.iter().map(|api| (api.name().to_owned(), api.name().to_owned()));
                let hint = nearest(unknown, names).map(|near| format!(", did you mean {near:?}?"));
                let hint = hint.unwrap_or_default();
                let message = format!("no API of `gateway.aws` is called {unknown:?}{hint}");
                return Err((format!("aws.keys[{at}].gateways"), message));
            }
        }
        Ok(())
    }

    /// The APIs of `gateway.aws`, whose region, account and keys are those of `aws`; `None` if there are none. `taken`
    /// is whether a path is another front's.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn aws(
        &self,
        aws: &aws_api::Config,
        taken: impl Fn(&str) -> bool,
    ) -> Result<Option<gateway_aws::Config>, (String, String)> {
        self.check_gateways(aws)?;
        if self.aws.is_empty() {
            return Ok(None);
        }
        let mut config = gateway_aws::Config::default();
        let apis = apis(&self.aws, taken, |key| Some(Arc::new(Lambda::with(aws, key)?) as Arc<dyn Sign>));
        config.apis = apis.map_err(|Wrong { key, message, .. }| (format!("gateway.{key}"), message))?;
        (config.region, config.account) = (aws.region.clone(), aws.account.clone());
        config.signatures_ignored = aws.signatures == aws_api::Signatures::Ignored;
        config.signatures = Some(Arc::new(Keys::new(aws)));
        Ok(Some(config))
    }
}
