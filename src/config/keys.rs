//! What can be set, by key and by environment variable.

use std::ffi::OsStr;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Empty, Value};

use super::ConfigError;
use super::nearest::nearest;

/// Prefix of the environment variables.
const PREFIX: &str = "FANWIRE_";
/// The variables that are arguments, not keys: the configuration file, and where the client commands connect as whom.
const ARGUMENT_VARIABLES: [&str; 6] =
    ["FANWIRE_CONFIG", "FANWIRE_URL", "FANWIRE_TOKEN", "FANWIRE_USER", "FANWIRE_CA_FILE", "FANWIRE_CONTEXT"];

/// One thing that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// Its place in the file, `sse.outbox.max_bytes`.
    pub name: String,
    /// The environment variable that sets it, `FANWIRE_SSE_OUTBOX_MAX_BYTES`.
    pub variable: String,
    /// Its default as it would be written; `None` where the absence means something.
    pub default: Option<String>,
}

/// Every key of a configuration whose defaults are these, sorted by name. Those of a list's elements are not among
/// them.
pub(super) fn keys_of(defaults: &Dict) -> Vec<Key> {
    let mut keys = Vec::new();
    collect(defaults, "", &mut keys);
    keys
}

fn collect(dict: &Dict, prefix: &str, keys: &mut Vec<Key>) {
    for (name, value) in dict {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) => collect(inner, &name, keys),
            value => {
                let variable = format!("{PREFIX}{}", name.replace('.', "_").to_ascii_uppercase());
                keys.push(Key { name, variable, default: written(value) });
            }
        }
    }
}

fn written(value: &Value) -> Option<String> {
    Some(match value {
        Value::Empty(_, Empty::None | Empty::Unit) | Value::Dict(..) => return None,
        Value::String(_, text) => format!("\"{text}\""),
        Value::Char(_, char) => format!("\"{char}\""),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => {
            let unsigned = number.to_u128().map(|number| number.to_string());
            unsigned.or_else(|| number.to_i128().map(|number| number.to_string()))?
        }
        Value::Array(_, values) => {
            format!("[{}]", values.iter().filter_map(written).collect::<Vec<_>>().join(", "))
        }
    })
}

/// The key that an environment variable sets, and its value. Variables of others are passed over.
pub(super) fn variable(
    known: &[Key],
    name: &OsStr,
    value: &OsStr,
) -> Result<Option<(String, Value)>, ConfigError> {
    let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { return Ok(None) };
    if ARGUMENT_VARIABLES.contains(&name) || is_service_link(name) {
        return Ok(None);
    }
    let Some(key) = known.iter().find(|key| key.variable == name) else {
        let variables = known.iter().map(|key| key.variable.as_str()).chain(ARGUMENT_VARIABLES);
        let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        let nearest = nearest(&bare(name), variables.map(|name| (bare(name), name.to_owned())));
        return Err(ConfigError::Unknown { origin: "environment".into(), key: name.into(), nearest });
    };
    let value = value.to_str().ok_or_else(|| ConfigError::Value {
        origin: "environment".into(),
        key: name.into(),
        message: "not UTF-8".into(),
    })?;
    Ok(Some((key.name.clone(), parse_value(value))))
}

/// Kubernetes tells every pod about a service named `fanwire` by variables with our prefix.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

/// A variable's text as the TOML value it looks like, else as the string it is.
fn parse_value(text: &str) -> Value {
    let document = format!("value = {text}");
    match Toml::from_str::<Dict>(&document) {
        Ok(mut dict) if dict.len() == 1 => dict.remove("value").unwrap_or_else(|| Value::from(text)),
        _ => Value::from(text),
    }
}
