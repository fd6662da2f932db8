//! Servers that were saved under a name, with their credentials: `fanwire context`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One saved server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure: bool,
}

/// All of them, and the one that is in use where none is named.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, Context>,
}

/// Where they are kept: `fanwire/contexts.json` in the user's folder for configuration.
pub(crate) fn file(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(folder.join("fanwire").join("contexts.json"))
}

impl Contexts {
    /// What the file says; a file that is not there says nothing.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |why: &dyn std::fmt::Display| Failure::Arguments(format!("{}: {why}", file.display()));
        let mut text = String::new();
        match File::open(file) {
            Ok(open) => open.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| wrong(&error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(wrong(&error)),
        };
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }

    /// Writes the file, readable for its owner alone, in one step.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        let wrong = |error: io::Error| Failure::Arguments(format!("{}: {error}", file.display()));
        if let Some(folder) = file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| wrong(error.into()))?;
        let beside = file.with_extension(format!("{}.new", std::process::id()));
        let written = || {
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            new.write_all(text.as_bytes())?;
            new.write_all(b"\n")?;
            new.sync_all()?;
            fs::rename(&beside, file)
        };
        written().map_err(|error| {
            let _ = fs::remove_file(&beside);
            wrong(error)
        })
    }

    /// The server of this name.
    pub(crate) fn named(&self, name: &str) -> Result<&Context, Failure> {
        self.servers.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.servers.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none is saved".to_owned() } else { known.join(", ") };
            Failure::Arguments(format!(
                "no context is called `{name}` ({known}); `fanwire context save` makes one"
            ))
        })
    }
}

/// Whether others on the machine can read a file with credentials.
pub(crate) fn is_open_to_others(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|known| known.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_users_own() {
        let of = |pairs: &[(&str, &str)]| {
            file(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), Some("/x/fanwire/contexts.json".into()));
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.config/fanwire/contexts.json".into()));
        assert_eq!(
            of(&[("XDG_CONFIG_HOME", "relative"), ("HOME", "/h")]),
            Some("/h/.config/fanwire/contexts.json".into())
        );
        assert_eq!(of(&[]), None);
    }
}
