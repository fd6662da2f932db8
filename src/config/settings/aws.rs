//! `[aws]`: what clients of AWS are served.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use auth::AccessError;
use aws_api::{Config, Key, Signatures};
use serde::{Deserialize, Serialize};
use settings::{Setting as _, Span};

use super::rules;
use crate::config::rights::{Grant, template};

/// The keys of the section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Aws {
    region: String,
    account: String,
    signatures: Signed,
    clock_skew: Span,
    iot: bool,
    lifecycle_events: bool,
    keys: Vec<AwsKey>,
    rules: Vec<rules::Written>,
}

settings::choice!(
    /// Whether requests have to be signed.
    Signed: non_exhaustive Signatures { Required = "required", Ignored = "ignored" }
);

/// One `[[aws.keys]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AwsKey {
    access_key: String,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    secret_file: Option<PathBuf>,
    #[serde(default)]
    gateways: Vec<String>,
    #[serde(default)]
    rights: Vec<Grant>,
    #[serde(default)]
    deny: Vec<Grant>,
}

impl Default for Aws {
    fn default() -> Self {
        let config = Config::default();
        Aws {
            region: config.region,
            account: config.account,
            signatures: Signed::from_value(config.signatures),
            clock_skew: Span(config.clock_skew),
            iot: config.iot,
            lifecycle_events: config.lifecycle_events,
            keys: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Aws {
    /// The functions that get the messages of filters.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn rules(&self) -> Result<Vec<gateway::rules::Settings>, (String, String)> {
        let mut names = HashSet::new();
        let rule = |(at, written): (usize, &rules::Written)| {
            let key = |field: &str| format!("aws.rules[{at}].{field}");
            let rule = written.rule().map_err(|(field, message)| (key(field), message))?;
            if !names.insert(rule.name.clone()) {
                return Err((key("name"), format!("another rule is called {:?}", rule.name)));
            }
            Ok(rule)
        };
        self.rules.iter().enumerate().map(rule).collect()
    }

    /// What is served; `None` if nothing is: see [`all`](Self::all).
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn config(
        &self,
        folder: &Path,
        listeners: impl Iterator<Item = SocketAddr>,
    ) -> Result<Option<Config>, AccessError> {
        let config = self.all(folder, listeners)?;
        Ok((config.iot || config.lifecycle_events).then_some(config))
    }

    /// All that it says, for others whose requests are signed too. Files are looked for from `folder`, and `listeners` is
    /// where the server listens.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn all(
        &self,
        folder: &Path,
        mut listeners: impl Iterator<Item = SocketAddr>,
    ) -> Result<Config, AccessError> {
        let wrong = |key: &str, message: &str| Err(AccessError::new(key, message));
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.region.is_empty() || !self.region.bytes().all(is_plain) {
            return wrong("aws.region", "lower case letters, digits and `-`, as in us-east-1");
        }
        if self.account.len() != 12 || !self.account.bytes().all(|byte| byte.is_ascii_digit()) {
            return wrong("aws.account", "an account has 12 digits");
        }
        let mut config = Config::default();
        config.region = self.region.clone();
        config.account = self.account.clone();
        config.signatures = self.signatures.into_value();
        config.clock_skew = self.clock_skew.0;
        (config.iot, config.lifecycle_events) = (self.iot, self.lifecycle_events);
        if config.signatures == Signatures::Ignored
            && let Some(open) = listeners.find(|address| !address.ip().is_loopback())
        {
            let message = format!(
                "\"ignored\" lets in whoever reaches {open}; it is for servers all of whose listeners are on loopback addresses"
            );
            return Err(AccessError::new("aws.signatures", message));
        }
        let mut names = HashSet::new();
        for (at, written) in self.keys.iter().enumerate() {
            let key = written.key(folder).map_err(|(field, message)| {
                let dot = if field.is_empty() { "" } else { "." };
                AccessError::new(format!("aws.keys[{at}]{dot}{field}"), message)
            })?;
            if !names.insert(&written.access_key) {
                let message = "another key has the same";
                return Err(AccessError::new(format!("aws.keys[{at}].access_key"), message));
            }
            config.keys.push(key);
        }
        Ok(config)
    }
}

impl AwsKey {
    fn key(&self, folder: &Path) -> Result<Key, (&'static str, String)> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=128).contains(&self.access_key.len()) || !self.access_key.bytes().all(is_plain) {
            return Err(("access_key", "1 to 128 letters, digits, `-` and `_`".to_owned()));
        }
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), None) => secret.clone().into_bytes(),
            (None, Some(path)) => {
                let path = folder.join(path);
                let text = std::fs::read(&path)
                    .map_err(|error| ("secret_file", format!("{}: {error}", path.display())))?;
                // An editor ends a file with a line break.
                text.trim_ascii_end().to_vec()
            }
            _ => return Err(("", "one of `secret` and `secret_file` is needed".to_owned())),
        };
        if secret.is_empty() {
            let field = if self.secret.is_some() { "secret" } else { "secret_file" };
            return Err((field, "an empty secret signs for everybody".to_owned()));
        }
        let mut key = Key::new(self.access_key.as_str(), secret);
        key.gateways = self.gateways.clone();
        key.rights = template(&self.rights, &self.deny);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn config(text: &str, listeners: &[&str]) -> Result<Option<Config>, String> {
        let aws: Aws = Figment::from(Toml::string(text)).extract().map_err(|error| error.to_string())?;
        let folder = Path::new("/nowhere");
        let listeners = listeners.iter().map(|address| address.parse().unwrap());
        aws.config(folder, listeners).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_what_is_served() {
        assert!(config("", &["0.0.0.0:80"]).unwrap().is_none(), "nothing is asked for");
        let text = r#"
            region = "eu-west-1"
            account = "123456789012"
            clock_skew = "1m"
            iot = true
            [[keys]]
            access_key = "AKIDFANWIRECHECK"
            secret = "s"
            gateways = ["*"]
            rights = [{ actions = ["publish", "manage"], channels = ["**"] }]
        "#;
        let config = config(text, &["0.0.0.0:80"]).unwrap().unwrap();
        assert_eq!((&*config.region, config.clock_skew.as_secs()), ("eu-west-1", 60));
        assert!(config.iot && !config.lifecycle_events && config.signatures == Signatures::Required);
        assert_eq!((config.keys.len(), &*config.keys[0].gateways), (1, &["*".to_owned()][..]));
        assert!(!format!("{config:?}").contains("\"s\""), "secrets are not shown");
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let key = |rest: &str| format!("[[keys]]\naccess_key = \"A\"\n{rest}");
        for (text, named) in [
            ("region = \"\"", "aws.region"),
            ("account = \"1\"", "aws.account"),
            ("signatures = \"no\"", "signatures"),
            (&key(""), "aws.keys[0]`: one of `secret` and `secret_file`"),
            (&key("secret = \"\""), "aws.keys[0].secret"),
            (&key("secret_file = \"missing\""), "/nowhere/missing"),
            (&key("secret = \"x\"\nsecret_file = \"y\""), "aws.keys[0]"),
            (&key("secret = \"x\"\nother = 1"), "other"),
            (&format!("{}\n{}", key("secret = \"x\""), key("secret = \"y\"")), "aws.keys[1].access_key"),
            ("[[keys]]\naccess_key = \"a/b\"\nsecret = \"x\"", "aws.keys[0].access_key"),
        ] {
            let error = config(text, &[]).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let ignored = "iot = true\nsignatures = \"ignored\"";
        assert!(config(ignored, &["127.0.0.1:80", "[::1]:80"]).unwrap().is_some());
        let error = config(ignored, &["127.0.0.1:80", "0.0.0.0:1883"]).unwrap_err();
        assert!(error.contains("aws.signatures") && error.contains("0.0.0.0:1883"), "{error}");
    }
}
