//! `[gateway.grip]`: who may publish, and what requests are signed with.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use broker_core::{Action, Filter, Principal, Rights, Rule};
use gateway::written::{Fault, Wrong, fault};
use grip::Key;
use grip::signature::{Signer, Verifier};
use serde::{Deserialize, Serialize};

use super::values::{file, parse};
use crate::config::ForwardedFor;
use crate::keys::ControlKey;

/// `[gateway.grip]`, as it is written.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenGrip {
    control_address: String,
    control_keys: Vec<WrittenKey>,
    pub(super) sig_iss: String,
    pub(super) sig_key: Option<String>,
    pub(super) sig_key_file: Option<String>,
    pub(super) upstream_key: Option<String>,
    pub(super) upstream_key_file: Option<String>,
    pub(super) x_forwarded_for: String,
}

/// One key by which items are published, as it is written.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    iss: String,
    key: Option<String>,
    key_file: Option<String>,
    channels: Vec<String>,
    rate: Option<u32>,
}

impl fmt::Debug for WrittenKey {
    /// Nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenKey").field("iss", &self.iss).finish_non_exhaustive()
    }
}

impl fmt::Debug for WrittenGrip {
    /// Nothing of its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenGrip").field("sig_iss", &self.sig_iss).finish_non_exhaustive()
    }
}

impl Default for WrittenGrip {
    fn default() -> Self {
        Self {
            control_address: "off".to_owned(),
            control_keys: Vec::new(),
            sig_iss: "fanwire".to_owned(),
            sig_key: None,
            sig_key_file: None,
            upstream_key: None,
            upstream_key_file: None,
            x_forwarded_for: "append".to_owned(),
        }
    }
}

impl WrittenGrip {
    /// Where items are published on a listener of its own, as it is written: an address or `off`.
    pub fn control_address(&self) -> &str {
        &self.control_address
    }

    pub(super) fn keys(&self, folder: &Path) -> Result<Arc<[ControlKey]>, Wrong> {
        let keys = self.control_keys.iter().enumerate();
        keys.map(|(at, key)| {
            let place = |(key, message): Fault| Wrong::new(format!("grip.control_keys[{at}].{key}"), message);
            key.read(folder).map_err(place)
        })
        .collect()
    }
}

impl WrittenKey {
    fn read(&self, folder: &Path) -> Result<ControlKey, Fault> {
        if self.iss.is_empty() || self.iss.len() > 256 {
            return fault("iss", "1 to 256 bytes name who publishes");
        }
        let (place, text) = match (&self.key, &self.key_file) {
            (Some(text), None) => ("key", text.clone()),
            (None, Some(name)) => {
                let text = String::from_utf8(file(folder, "key_file", name)?);
                ("key_file", text.map_err(|_| ("key_file".to_owned(), "is no text".to_owned()))?)
            }
            _ => return fault("key", "one of `key` and `key_file`"),
        };
        let wrong = |why: String| (place.to_owned(), why);
        let key = Key::parse(text.trim()).map_err(|problem| wrong(problem.to_string()))?;
        let verifier = Verifier::new(Some(&self.iss), &key).map_err(|error| wrong(error.to_string()))?;
        if self.channels.is_empty() {
            return fault("channels", "a key without channels may do nothing; `[\"**\"]` is all");
        }
        let mut rights = Rights::none();
        for text in &self.channels {
            rights = rights.allow(Rule::new([Action::Publish], parse::<Filter>("channels", text)?));
        }
        let key = ControlKey::new(&*self.iss, key, verifier, Principal::user_with(&self.iss, rights));
        match self.rate {
            Some(0) => fault("rate", "at least one item a second"),
            Some(rate) => Ok(key.limited(rate)),
            None => Ok(key),
        }
    }
}

pub(super) fn forwarded_for(text: &str) -> Result<ForwardedFor, String> {
    match text {
        "drop" => Ok(ForwardedFor::Drop),
        "append" => Ok(ForwardedFor::Append),
        _ => {
            let kept = text.strip_prefix("keep:").and_then(|number| number.parse().ok());
            kept.map(ForwardedFor::Keep).ok_or_else(|| {
                format!(
                    "{text:?} is none of \"drop\", \"append\" and \"keep:N\", N addresses of trusted proxies"
                )
            })
        }
    }
}

/// What requests are signed with, if there is a key.
pub(super) fn signer(
    iss: Option<&String>,
    key: Option<&String>,
    key_file: Option<&String>,
    folder: &Path,
) -> Result<Option<Arc<Signer>>, Fault> {
    let Some((place, key)) = one_key("sig_key", key, key_file, folder)? else { return Ok(None) };
    let signer = Signer::new(iss.map_or("fanwire", String::as_str), &key);
    Ok(Some(Arc::new(signer.map_err(|error| (place, error.to_string()))?)))
}

/// What items are sealed with, where requests are signed: servers that sign alike are one for their origins.
pub(super) fn seal(grip: &WrittenGrip, folder: &Path) -> Result<Option<Key>, Fault> {
    let key = one_key("sig_key", grip.sig_key.as_ref(), grip.sig_key_file.as_ref(), folder)?;
    Ok(key.map(|(_, key)| key))
}

/// Whose signatures are believed, if there is a key: whoever has it.
pub(super) fn upstream(
    key: Option<&String>,
    key_file: Option<&String>,
    folder: &Path,
) -> Result<Option<Arc<Verifier>>, Fault> {
    let Some((place, key)) = one_key("upstream_key", key, key_file, folder)? else { return Ok(None) };
    Ok(Some(Arc::new(Verifier::new(None, &key).map_err(|error| (place, error.to_string()))?)))
}

/// A key that stands under `name`, or in the file that `NAME_file` names, and where it stood.
fn one_key(
    name: &str,
    key: Option<&String>,
    key_file: Option<&String>,
    folder: &Path,
) -> Result<Option<(String, Key)>, Fault> {
    let in_file = format!("{name}_file");
    let (place, text) = match (key, key_file) {
        (None, None) => return Ok(None),
        (Some(text), None) => (name.to_owned(), text.clone()),
        (None, Some(path)) => match String::from_utf8(file(folder, &in_file, path)?) {
            Ok(text) => (in_file, text),
            Err(_) => return fault(in_file, "is no text"),
        },
        (Some(_), Some(_)) => return fault(name, format!("one of `{name}` and `{in_file}`")),
    };
    match Key::parse(text.trim()) {
        Ok(key) => Ok(Some((place, key))),
        Err(problem) => fault(place, problem.to_string()),
    }
}
