//! Puts defaults, file, environment and arguments together; the later wins.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Empty, Value};
use http_edge::{LiveOrigins, OriginPolicy, TokenPlaces, TokenSources};

use super::arguments::Arguments;
use super::fixed::Fixed;
use super::settings::Settings;
use super::{Config, ConfigError, Logging};
use auth::{Access, AccessError, BuiltIn, Rate};

/// Prefix of the environment variables.
const PREFIX: &str = "FANWIRE_";
/// The variables that are arguments, not keys: the configuration file, and where the client commands connect as whom.
const ARGUMENT_VARIABLES: [&str; 5] =
    ["FANWIRE_CONFIG", "FANWIRE_URL", "FANWIRE_TOKEN", "FANWIRE_USER", "FANWIRE_CA_FILE"];

/// A configuration, and what of it concerns the process instead of the server.
#[derive(Debug)]
pub struct Loaded {
    /// For the server.
    pub config: Config,
    /// How to log.
    pub logging: Logging,
    /// Threads that serve; `None` means as many as the machine has cores.
    pub worker_threads: Option<usize>,
    /// Whether the kernel may back memory with transparent huge pages.
    pub huge_pages: bool,
    /// Whether the configuration says who may do what. If not, everybody may do everything.
    pub has_rights: bool,
    /// Whether addresses that other machines reach may be listened on: there are rights, or it was allowed without.
    pub may_be_open: bool,
    /// Who may do what: what the authenticator in `config` answers by.
    pub rights: Rights,
    /// How often the configuration file is looked at for changes; zero: only when asked.
    pub reload_interval: Duration,
    /// The configuration file before it was read.
    pub(crate) file: Option<Stamp>,
    /// What of it takes effect at the next start only.
    pub(crate) fixed: Fixed,
}

/// What changes when a file does: its time and its length. An editor that replaces the file changes both.
pub(crate) type Stamp = (SystemTime, u64);

/// `None` if there is no file now.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The part of a configuration that can change while the server runs.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Keys, users, issuers and what anonymous clients may do.
    pub access: Access,
    /// Web pages that may come.
    pub origins: OriginPolicy,
    /// Where a token is read beside the headers.
    pub token_places: TokenPlaces,
    /// Requests that one address may send.
    pub address_rate: Option<Rate>,
    /// The handles through which `config` sees all this.
    pub live: Live,
}

/// Handles to what a running server answers by.
#[derive(Clone, Debug)]
pub struct Live {
    /// Keys, users, issuers and what anonymous clients may do.
    pub authenticator: BuiltIn,
    /// Web pages that may come.
    pub origins: LiveOrigins,
    /// Where a token is read beside the headers.
    pub token_sources: TokenSources,
}

/// One thing that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its place in the file, `sse.outbox.max_bytes`.
    pub name: String,
    /// The environment variable that sets it, `FANWIRE_SSE_OUTBOX_MAX_BYTES`.
    pub variable: String,
    /// Its default as it would be written; `None` where the absence means something.
    pub default: Option<String>,
}

/// Reads the file that the arguments name and the environment, and puts the arguments on top.
///
/// # Errors
/// Anything that is wrong with what was read.
pub fn load(
    arguments: Arguments,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    // Before it is read: what is written to it meanwhile is a change.
    let stamp = arguments.config.as_deref().and_then(stamp);
    let text = arguments.config.as_deref().map(read).transpose()?;
    Ok(Loaded { file: stamp, ..load_text(arguments, text.as_deref(), environment)? })
}

/// As [`load`], as if the file that the arguments name held `text`. The file is not read, and need not exist.
///
/// # Errors
/// Anything that would be wrong with it.
pub fn check(
    arguments: Arguments,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    load_text(arguments, Some(text), environment)
}

fn load_text(
    arguments: Arguments,
    text: Option<&str>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    if let (Some(path), Some(text)) = (&arguments.config, text) {
        figment = figment.merge(parse(path, text)?);
    }
    let known = keys();
    let mut set = Vec::new();
    for (name, value) in environment {
        if let Some((key, value)) = variable(&known, &name, &value)? {
            figment = figment.merge(Serialized::global(&key, value));
            set.push(key);
        }
    }
    let settings: Settings =
        figment.extract().map_err(|error| invalid(error, &known, arguments.config.as_deref(), &set))?;
    let fixed = Fixed::of(&settings);
    Ok(Loaded { fixed, ..finish(settings, arguments)? })
}

/// Every key, sorted by name. Those of a list's elements are not among them.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    if let Ok(Value::Dict(_, dict)) = Value::serialize(Settings::default()) {
        collect(&dict, "", &mut keys);
    }
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

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn parse(path: &Path, text: &str) -> Result<impl figment::Provider + use<>, ConfigError> {
    let dict: Dict = Toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: path.display().to_string(),
        message: one_line(&error.to_string()),
    })?;
    Ok(Serialized::globals(dict))
}

/// The key that an environment variable sets, and its value. Variables of others are passed over.
fn variable(known: &[Key], name: &OsStr, value: &OsStr) -> Result<Option<(String, Value)>, ConfigError> {
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

/// Names the key, and for an unknown one the known one most like it.
fn invalid(error: figment::Error, known: &[Key], file: Option<&Path>, set: &[String]) -> ConfigError {
    let path = error.path.join(".");
    let written = written_path(&error.path);
    let from_environment = set.iter().find(|key| path == **key || path.starts_with(&format!("{key}.")));
    let origin = match (from_environment, file) {
        (None, Some(file)) => file.display().to_string(),
        _ => "environment".to_owned(),
    };
    let message = match error.kind {
        Kind::UnknownField(field, siblings) => {
            let section = written.strip_suffix(field.as_str()).unwrap_or(&written);
            let siblings = siblings.iter().map(|name| ((*name).to_owned(), format!("{section}{name}")));
            // What is only in the wrong section is found by its last part.
            let elsewhere = known
                .iter()
                .filter(|key| key.name.rsplit('.').next() == Some(field.as_str()))
                .min_by_key(|key| key.name.split('.').count());
            let elsewhere = elsewhere.map(|key| key.name.clone());
            let nearest = nearest(&field, siblings).or(elsewhere).or_else(|| nearest_key(&path, known));
            return ConfigError::Unknown { origin, key: written, nearest };
        }
        Kind::UnknownVariant(found, possible) => {
            let possible: Vec<String> = possible.iter().map(|name| format!("\"{name}\"")).collect();
            format!("\"{found}\" is none of {}", possible.join(", "))
        }
        // How serde says it names a type of Rust.
        kind => one_line(&kind.to_string())
            .replace("a nonzero u32", ONE_OR_MORE)
            .replace("a nonzero usize", ONE_OR_MORE),
    };
    ConfigError::Value { origin, key: written, message }
}

const ONE_OR_MORE: &str = "a whole number of 1 or more";

/// A place as it is told everywhere: `keys[0].rights[1].channels`.
fn written_path(path: &[String]) -> String {
    let mut written = String::new();
    for part in path {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            written.push_str(&format!("[{part}]"));
            continue;
        }
        if !written.is_empty() {
            written.push('.');
        }
        written.push_str(part);
    }
    written
}

fn nearest_key(key: &str, known: &[Key]) -> Option<String> {
    nearest(key, known.iter().map(|key| (key.name.clone(), key.name.clone())))
}

/// The name most like `wanted`, unless none is like it at all. Names come with what is told of them: what all have in front
/// makes none more like another.
fn nearest(wanted: &str, names: impl Iterator<Item = (String, String)>) -> Option<String> {
    const MIN_LIKENESS: f64 = 0.6;
    names
        .map(|(name, told)| (strsim::normalized_damerau_levenshtein(wanted, &name), told))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, told)| told)
}

fn finish(mut settings: Settings, arguments: Arguments) -> Result<Loaded, ConfigError> {
    settings.server.allow_anonymous |= arguments.allow_anonymous;
    if let Some(format) = arguments.log_format {
        settings.logging.format = format;
    }
    let has_rights = settings.has_rights();
    let may_be_open = has_rights || settings.server.allow_anonymous;
    let http =
        address("http.address", arguments.http.as_ref().unwrap_or(&settings.http.address), may_be_open)?;
    #[cfg(feature = "mqtt")]
    let mqtt =
        address("mqtt.address", arguments.mqtt.as_ref().unwrap_or(&settings.mqtt.address), may_be_open)?;
    #[cfg(not(feature = "mqtt"))]
    let mqtt = None;
    let logging = settings.logging.clone();
    let (worker_threads, huge_pages) = (settings.server.worker_threads, settings.server.huge_pages);
    let reload_interval = settings.server.reload_interval.0;
    let origin = arguments.config.as_deref();
    let folder = origin.and_then(Path::parent).unwrap_or(Path::new(""));
    let wrong = |error: AccessError| ConfigError::Value {
        origin: origin.map_or_else(|| "environment".to_owned(), |file| file.display().to_string()),
        key: error.key,
        message: error.message,
    };
    if settings.server.shutdown_window.0 > Config::MAX_SHUTDOWN_WINDOW {
        let message = format!("at most {}", humantime::format_duration(Config::MAX_SHUTDOWN_WINDOW));
        return Err(wrong(AccessError { key: "server.shutdown_window".to_owned(), message }));
    }
    let access = settings.access(folder).map_err(wrong)?;
    let authenticator = BuiltIn::with(access.clone()).map_err(wrong)?;
    let (origins, address_rate) = (settings.origins(), settings.address_rate());
    let token_places = settings.token_places();
    let live = Live {
        authenticator: authenticator.clone(),
        origins: LiveOrigins::new(origins.clone()),
        token_sources: token_places.clone().into(),
    };
    #[cfg(feature = "http")]
    let metrics = settings.http.metrics_access(http);
    let mut config = settings.into_config(&live.origins, &live.token_sources);
    (config.http, config.mqtt, config.authenticator) = (http, mqtt, Arc::new(authenticator));
    #[cfg(feature = "http")]
    {
        config.api.metrics = metrics;
    }
    let rights = Rights { access, origins, token_places, address_rate, live };
    Ok(Loaded {
        config,
        logging,
        worker_threads,
        huge_pages,
        has_rights,
        may_be_open,
        rights,
        reload_interval,
        file: None,
        fixed: Fixed::default(),
    })
}

/// An address to listen on, or none for `off`. A name is resolved, its first IPv4 address preferred.
fn address(key: &'static str, text: &str, may_be_open: bool) -> Result<Option<SocketAddr>, ConfigError> {
    if text == "off" {
        return Ok(None);
    }
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|_| ConfigError::Address { key, value: text.to_owned() })?.collect();
    let address = found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first())
        .copied()
        .ok_or_else(|| ConfigError::Address { key, value: text.to_owned() })?;
    if !may_be_open && !address.ip().is_loopback() {
        return Err(ConfigError::Open { key, address });
    }
    Ok(Some(address))
}

/// The parts of a message that say something: TOML errors draw a picture below their first line.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|') && !line.chars().all(|c| c == '^'))
        .collect();
    lines.join(": ")
}

#[cfg(test)]
mod tests;
