//! What of a configuration cannot change while the server runs, to tell whoever changes it.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

/// Keys, and sections with all that is in them, that a reload takes over.
const LIVE: [&str; 20] = [
    "anonymous",
    "auth",
    "client_certificates",
    "gateway.grip.control_keys",
    "gateway.grip.sig_iss",
    "gateway.grip.sig_key",
    "gateway.grip.sig_key_file",
    "gateway.grip.upstream_key",
    "gateway.grip.upstream_key_file",
    "gateway.grip.x_forwarded_for",
    "gateway.routes",
    "gateway.sources",
    "gateway.webhooks",
    "issuers",
    "keys",
    "limits.request_burst_per_address",
    "limits.requests_per_address",
    "server.allow_anonymous",
    "server.allowed_origins",
    "users",
];

/// The settings that take effect at the start only, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixed(BTreeMap<String, Value>);

impl Fixed {
    /// Of all settings as they are written.
    pub(super) fn of(settings: Dict) -> Self {
        let mut fixed = BTreeMap::new();
        collect(settings, "", &mut fixed);
        Fixed(fixed)
    }

    /// The keys that are others in `now`.
    pub(crate) fn changed<'a>(&'a self, now: &'a Fixed) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|(key, value)| now.0.get(*key) != Some(value)).map(|(key, _)| key.as_str())
    }
}

fn collect(dict: Dict, section: &str, fixed: &mut BTreeMap<String, Value>) {
    for (name, value) in dict {
        let key = if section.is_empty() { name } else { format!("{section}.{name}") };
        match value {
            _ if LIVE.contains(&key.as_str()) => {}
            Value::Dict(_, inner) => collect(inner, &key, fixed),
            value => _ = fixed.insert(key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;

    #[test]
    fn what_is_taken_over_exists_and_is_not_told() {
        let Ok(Value::Dict(_, dict)) = Value::serialize(Settings::default()) else { panic!("a dict") };
        for live in LIVE {
            let mut path = live.split('.');
            let section = dict.get(path.next().expect("a name")).expect(live);
            if let Some(key) = path.next() {
                let keys = section.as_dict().expect(live);
                assert!(keys.contains_key(key), "{live}");
            }
        }
        let fixed = Fixed::of(dict);
        assert!(fixed.0.contains_key("http.address") && fixed.0.contains_key("namespaces"));
        assert!(fixed.0.keys().all(|key| !key.starts_with("auth") && key != "server.allowed_origins"));
        assert_eq!(fixed.changed(&fixed).count(), 0);
    }
}
