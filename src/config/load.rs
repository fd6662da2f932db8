//! Puts defaults, file, environment and arguments together; the later wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use auth::{Access, AccessError, BuiltIn, Rate};
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use front::Common;
use http_edge::{LiveOrigins, OriginPolicy, TokenPlaces, TokenSources, below};

use super::arguments::Arguments;
use super::fixed::Fixed;
use super::keys::{Key, keys_of, variable};
use super::mistakes::{invalid, one_line};
use super::sections::{Filled, FrontSection};
use super::settings::Settings;
use super::settings::tls::{Mode, mode};
use super::show::show;
use super::{Config, ConfigError, Logging};
use crate::listen::ListenerTls;
use crate::{OwnFront, fronts};

/// Paths of AWS IoT's data plane.
const IOT_PATHS: [&str; 5] = ["/topics", "/retainedMessage", "/connections", "/things", "/api"];

/// The front whose listener stands in the server's configuration.
const MQTT: &str = "mqtt";

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
    /// Where messages are kept, if they are: for [`Store::open`](store::Store::open), as the engine of `config`.
    pub store: Option<store::Settings>,
    /// The cluster that this node belongs to, if it does: for [`Cluster::join`](cluster::Cluster::join), as the engine of
    /// `config`.
    pub cluster: Option<cluster::Settings>,
    /// Whether the configuration says who may do what. If not, everybody may do everything.
    pub has_rights: bool,
    /// Whether addresses that other machines reach may be listened on: there are rights, or it was allowed without.
    pub may_be_open: bool,
    /// Who may do what: what the authenticator in `config` answers by.
    pub rights: Rights,
    /// How often the configuration file is looked at for changes; zero: only when asked.
    pub reload_interval: Duration,
    /// What it was read with.
    pub(crate) loader: Loader,
    /// The configuration file before it was read.
    pub(crate) file: Option<Stamp>,
    /// All that is set, as it is written, the arguments aside.
    pub(crate) written: Dict,
    /// What of it takes effect at the next start only.
    pub(crate) fixed: Fixed,
}

impl Loaded {
    /// The text of a configuration file that says what this one does: file, environment and defaults together, the
    /// arguments aside. What differs from its default says so. Keys, users and issuers are counted and not shown, as
    /// there are secrets among them.
    pub fn show(&self) -> String {
        show(&self.written, &defaults(&self.loader.sections()))
    }
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
#[non_exhaustive]
pub struct Rights {
    /// Keys, users, issuers and what anonymous clients may do.
    pub access: Access,
    /// Web pages that may come.
    pub origins: OriginPolicy,
    /// Where a token is read beside the headers.
    pub token_places: TokenPlaces,
    /// Requests that one address may send.
    pub address_rate: Option<Rate>,
    /// Routes to origins.
    pub routes: gateway_grip::Settings,
    /// Connections outward.
    pub sources: Vec<sources::Settings>,
    /// Backends that decide about clients and hear of them.
    pub webhooks: Vec<gateway::webhook::Settings>,
    /// The handles through which `config` sees all this.
    pub live: Live,
}

/// Handles to what a running server answers by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// Keys, users, issuers and what anonymous clients may do.
    pub authenticator: BuiltIn,
    /// Web pages that may come.
    pub origins: LiveOrigins,
    /// Where a token is read beside the headers.
    pub token_sources: TokenSources,
    /// Routes to origins.
    pub routes: gateway_grip::Routes,
}

/// Reads configurations: what the server knows, and the sections of your own fronts. The default has none of those.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    own: Vec<OwnFront>,
}

impl Loader {
    /// Adds a protocol of your own to what is loaded, and its section, if it has one ([`OwnFront::with_section`]), to
    /// what can be set.
    #[must_use]
    pub fn with_front(mut self, front: OwnFront) -> Self {
        self.own.push(front);
        self
    }

    /// Reads the file that the arguments name and the environment, and puts the arguments on top.
    ///
    /// # Errors
    /// Anything that is wrong with what was read, and two fronts whose sections have one name.
    pub fn load(
        &self,
        arguments: Arguments,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        // Before it is read: what is written to it meanwhile is a change.
        let stamp = arguments.config.as_deref().and_then(stamp);
        let text = arguments.config.as_deref().map(read).transpose()?;
        Ok(Loaded { file: stamp, ..self.load_text(arguments, text.as_deref(), environment)? })
    }

    /// As [`load`](Self::load), as if the file that the arguments name held `text`. The file is not read, and need not
    /// exist.
    ///
    /// # Errors
    /// Anything that would be wrong with it.
    pub fn check(
        &self,
        arguments: Arguments,
        text: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        self.load_text(arguments, Some(text), environment)
    }

    /// Every key, sorted by name. Those of a list's elements are not among them.
    pub fn keys(&self) -> Vec<Key> {
        keys_of(&defaults(&self.sections()))
    }

    /// The text of a configuration file that sets every key to its default.
    pub fn show_defaults(&self) -> String {
        let defaults = defaults(&self.sections());
        show(&defaults, &defaults)
    }

    /// The fronts whose listeners a configuration can place.
    pub(crate) fn listeners(&self) -> Vec<&'static str> {
        let sections = self.sections();
        let listening = sections.iter().filter(|section| !section.keys_of_listener().is_empty());
        listening.map(|section| section.name).collect()
    }

    fn sections(&self) -> Vec<FrontSection> {
        let mut sections = fronts::sections();
        sections.extend(self.own.iter().filter_map(|own| own.section().cloned()));
        sections
    }

    fn load_text(
        &self,
        arguments: Arguments,
        text: Option<&str>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        let sections = self.sections();
        distinct(&sections)?;
        let defaults = defaults(&sections);
        let known = keys_of(&defaults);
        let mut figment = Figment::from(Serialized::defaults(defaults));
        if let (Some(path), Some(text)) = (&arguments.config, text) {
            figment = figment.merge(parse(path, text)?);
        }
        let mut set = Vec::new();
        for (name, value) in environment {
            if let Some((key, value)) = variable(&known, &name, &value)? {
                figment = figment.merge(Serialized::global(&key, value));
                set.push(key);
            }
        }
        let file = arguments.config.as_deref();
        let (settings, filled) =
            extract(&figment, &sections).map_err(|error| invalid(*error, &known, &sections, file, &set))?;
        let of_fronts = filled.iter().map(|section| (section.name, section.written()));
        let written = with_sections(&settings, of_fronts);
        let fixed = Fixed::of(written.clone());
        Ok(Loaded { written, fixed, ..self.finish(settings, filled, arguments)? })
    }

    fn finish(
        &self,
        mut settings: Settings,
        filled: Vec<Filled>,
        arguments: Arguments,
    ) -> Result<Loaded, ConfigError> {
        settings.server.allow_anonymous |= arguments.allow_anonymous;
        if let Some(format) = arguments.log_format {
            settings.logging.format = format;
        }
        let has_rights = settings.has_rights();
        let may_be_open = has_rights || settings.server.allow_anonymous;
        let listens = |section: &str, written: &str| {
            let written = arguments.address_of(section).unwrap_or(written);
            address(&format!("{section}.address"), written, may_be_open)
        };
        let http = listens("http", &settings.http.address)?;
        let of_front = |section: &Filled| {
            let written = section.listener.as_ref().map(|listener| listens(section.name, &listener.address));
            written.transpose().map(Option::flatten)
        };
        let addresses = filled.iter().map(of_front).collect::<Result<Vec<_>, _>>()?;
        let has_tls = settings.tls.has_certificates();
        let tls_of = |section: &str, said: Option<Mode>, written: Option<&str>| {
            let address = |written| address(&format!("{section}.tls_address"), written, may_be_open);
            let address = written.map_or(Ok(None), address)?;
            Ok(ListenerTls { mode: mode(said, has_tls, address.is_some()), address })
        };
        let http_tls = tls_of("http", settings.http.tls, settings.http.tls_address.as_deref())?;
        let tls_of_front = |section: &Filled| {
            let listener = section.listener.as_ref()?;
            let tls = tls_of(section.name, listener.tls, listener.tls_address.as_deref());
            Some(tls.map(|tls| (section.name, tls)))
        };
        let front_tls = filled.iter().filter_map(tls_of_front).collect::<Result<BTreeMap<_, _>, _>>()?;
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
            return Err(wrong(AccessError::new("server.shutdown_window", message)));
        }
        let tls = settings.tls.config(folder, reload_interval);
        let tls = tls.map_err(|(key, message)| wrong_value(&wrong, key, message))?;
        let mut spoken = front_tls.iter().map(|(section, tls)| (*section, *tls)).chain([("http", http_tls)]);
        if tls.is_none()
            && let Some((section, _)) = spoken.find(|(_, tls)| *tls != ListenerTls::default())
        {
            let message = "TLS needs a certificate: `tls.cert_file` and `tls.key_file`";
            return Err(wrong_value(&wrong, &format!("{section}.tls"), message));
        }
        drop(spoken);
        let control = settings.gateway.control_address();
        let control = address("gateway.grip.control_address", control, may_be_open)?;
        let of_tls = front_tls.values().chain([&http_tls]).filter_map(|tls| tls.address);
        let listeners = addresses.iter().copied().flatten().chain(http).chain(of_tls);
        let aws_keys = settings.aws.all(folder, listeners.clone()).map_err(wrong)?;
        let aws = settings.aws(folder, listeners).map_err(wrong)?;
        let store = settings.store(arguments.data.clone(), folder);
        let store = store.map_err(|(key, message)| wrong_value(&wrong, &key, message))?;
        let cluster = settings.cluster(folder);
        let cluster = cluster.map_err(|(key, message)| wrong_value(&wrong, &key, message))?;
        if cluster.is_some() && store.is_some() {
            let why = "what a store keeps is on one machine, and nothing brings it to other nodes: in a cluster NATS keeps what \
                       namespaces say (`durability`). Take out the store (`store.directory`, --data) or the cluster";
            return Err(wrong_value(&wrong, "cluster.servers", why));
        }
        let gateway = settings.gateway(folder);
        let mut gateway = gateway.map_err(|(key, message)| wrong_value(&wrong, &key, &message))?;
        let sources = settings.sources(&gateway.addresses);
        let sources = sources.map_err(|(key, message)| wrong_value(&wrong, &key, &message))?;
        gateway.rules = settings.aws.rules().map_err(|(key, message)| wrong_value(&wrong, &key, &message))?;
        let access = settings.access(folder).map_err(wrong)?;
        let authenticator = BuiltIn::with(access.clone()).map_err(wrong)?;
        let (origins, address_rate) = (settings.origins(), settings.address_rate());
        let token_places = settings.token_places();
        let live = Live {
            authenticator: authenticator.clone(),
            origins: LiveOrigins::new(origins.clone()),
            token_sources: token_places.clone().into(),
            routes: gateway_grip::Routes::default(),
        };
        let mut common = Common::default();
        common.origins = OriginPolicy::Live(live.origins.clone());
        common.token_sources = live.token_sources.clone();
        common.intake = settings.intake();
        common.http = http;
        common.metrics = settings.http.metrics;
        let aws = aws.map(|mut aws| {
            aws.origins = common.origins.clone();
            aws.intake = common.intake.clone();
            aws
        });
        let of_gateway = settings.gateway.clone();
        let mut config = settings.into_config();
        config.access_log = logging.access;
        let of_file = (sources.sources.clone(), gateway.webhooks.clone());
        (config.gateway, config.sources) = (gateway, sources);
        (config.http, config.authenticator) = (http, Arc::new(authenticator));
        (config.tls, config.http_tls, config.front_tls) = (tls, http_tls, front_tls);
        config.mqtt = filled
            .iter()
            .zip(&addresses)
            .find_map(|(section, address)| (section.name == MQTT).then_some(*address)?);
        let (intake, token_sources) = (common.intake.clone(), common.token_sources.clone());
        let of_grip = (intake.clone(), token_sources.clone(), common.origins.clone());
        self.set_up_fronts(&mut config, common, filled.into_iter().zip(addresses));
        config.own_fronts.extend(aws.map(|aws| {
            OwnFront::new(move |context: &front::Context| aws_api::Front::new(context, aws.clone()))
        }));
        let apis = of_gateway.aws(&aws_keys, |path| {
            is_taken(&config, path)
                || (aws_keys.iot && IOT_PATHS.iter().any(|own| below(path, own).is_some()))
        });
        if let Some(mut apis) = apis.map_err(|(key, message)| wrong_value(&wrong, &key, &message))? {
            (apis.intake, apis.token_sources) = (intake, token_sources);
            apis.dead = config.gateway.dead.clone();
            config.own_fronts.push(OwnFront::new(move |context: &front::Context| {
                let authenticator = Arc::clone(&context.authenticator);
                gateway_aws::Front::new(context.broker.clone(), authenticator, apis.clone())
            }));
        }
        let routes = of_gateway.routes(folder, |path| {
            is_taken(&config, path)
                || (aws_keys.iot && IOT_PATHS.iter().any(|own| below(path, own).is_some()))
        });
        let routes = routes.map_err(|(key, message)| wrong_value(&wrong, &key, &message))?;
        (config.grip.settings, config.grip.routes) = (routes.clone(), live.routes.clone());
        (config.grip.intake, config.grip.token_sources, config.grip.origins) = of_grip;
        config.grip.control = control;
        config.grip.max_message_bytes = config.broker.max_message_bytes;
        #[cfg(feature = "http")]
        {
            config.grip.max_request_bytes = config.api.max_request_bytes;
        }
        let store = store.map(|mut store| {
            store.max_retained_messages = config.broker.max_retained_messages;
            store.max_retained_bytes = config.broker.max_retained_bytes;
            store
        });
        let (sources, webhooks) = of_file;
        let rights = Rights { access, origins, token_places, address_rate, routes, sources, webhooks, live };
        Ok(Loaded {
            config,
            logging,
            worker_threads,
            huge_pages,
            store,
            cluster,
            has_rights,
            may_be_open,
            rights,
            reload_interval,
            loader: self.clone(),
            file: None,
            written: Dict::new(),
            fixed: Fixed::default(),
        })
    }

    /// The sections that were read take effect: first what they say of the broker, then each on its front.
    fn set_up_fronts(
        &self,
        config: &mut Config,
        mut common: Common,
        filled: impl Iterator<Item = (Filled, Option<SocketAddr>)>,
    ) {
        let fronts: Vec<_> =
            filled.map(|(section, address)| (section.set_broker(&mut config.broker), address)).collect();
        common.broker = config.broker.clone();
        for (set_up, address) in fronts {
            let mut common = common.clone();
            common.address = address;
            set_up(&common, config);
        }
        // Those with a section are there by now, made of it.
        config.own_fronts.extend(self.own.iter().filter(|own| own.section().is_none()).cloned());
    }
}

/// As [`Loader::load`], without fronts of your own.
///
/// # Errors
/// Anything that is wrong with what was read.
pub fn load(
    arguments: Arguments,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    Loader::default().load(arguments, environment)
}

/// As [`Loader::check`], without fronts of your own.
///
/// # Errors
/// Anything that would be wrong with it.
pub fn check(
    arguments: Arguments,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    Loader::default().check(arguments, text, environment)
}

/// As [`Loader::keys`], without fronts of your own.
pub fn keys() -> Vec<Key> {
    Loader::default().keys()
}

/// The defaults of all that can be set.
fn defaults(sections: &[FrontSection]) -> Dict {
    let of_fronts = sections.iter().map(|section| (section.name, section.defaults()));
    with_sections(&Settings::default(), of_fronts)
}

/// The settings as they are written, with the sections of fronts among them.
fn with_sections(settings: &Settings, of_fronts: impl Iterator<Item = (&'static str, Value)>) -> Dict {
    let mut dict = match Value::serialize(settings) {
        Ok(Value::Dict(_, dict)) => dict,
        _ => Dict::new(),
    };
    dict.extend(of_fronts.map(|(name, section)| (name.to_owned(), section)));
    dict
}

/// Every section has a name of its own.
fn distinct(sections: &[FrontSection]) -> Result<(), ConfigError> {
    let mut taken = with_sections(&Settings::default(), std::iter::empty());
    for FrontSection { name, .. } in sections {
        if taken.insert((*name).to_owned(), Dict::new().into()).is_some() {
            return Err(ConfigError::SectionTaken { name });
        }
    }
    Ok(())
}

/// What was put together, by the server's own settings and the sections of fronts.
///
/// # Errors
/// The first thing that is wrong, by the order of keys.
fn extract(
    figment: &Figment,
    sections: &[FrontSection],
) -> Result<(Settings, Vec<Filled>), Box<figment::Error>> {
    let mut all = figment.find_value("")?;
    let (mut filled, mut wrong) = (Vec::new(), Vec::new());
    for section in sections {
        let written = match &mut all {
            Value::Dict(_, all) => all.remove(section.name),
            _ => None,
        };
        match section.read(written.unwrap_or_else(|| section.defaults())) {
            Ok(section) => filled.push(section),
            Err(error) => wrong.push(error),
        }
    }
    let settings = all.deserialize().map_err(|error| wrong.push(Box::new(error)));
    match (settings, wrong.into_iter().min_by(|one, other| one.path.cmp(&other.path))) {
        (Ok(settings), None) => Ok((settings, filled)),
        (_, Some(first)) => Err(first),
        (Err(()), None) => unreachable!("what is wrong was put there"),
    }
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

fn wrong_value(wrong: &impl Fn(AccessError) -> ConfigError, key: &str, message: &str) -> ConfigError {
    wrong(AccessError::new(key, message.to_owned()))
}

/// Whether a front of this build, or the server itself, answers at a path or somewhere below it.
fn is_taken(config: &Config, path: &str) -> bool {
    let mut mounts = vec!["/page", "/healthz", "/readyz", "/metrics", "/grip"];
    #[cfg(feature = "http")]
    mounts.push(&config.api.path);
    #[cfg(feature = "sse")]
    mounts.push(&config.sse.path);
    #[cfg(feature = "mqtt")]
    mounts.push(&config.mqtt_front.path);
    #[cfg(feature = "bayeux")]
    mounts.extend(config.bayeux.mount.iter().map(String::as_str));
    mounts.into_iter().any(|mount| below(path, mount).is_some())
}

/// An address to listen on, or none for `off`. A name is resolved, its first IPv4 address preferred.
fn address(key: &str, text: &str, may_be_open: bool) -> Result<Option<SocketAddr>, ConfigError> {
    if text == "off" {
        return Ok(None);
    }
    let found: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|_| ConfigError::Address { key: key.to_owned(), value: text.to_owned() })?
        .collect();
    let address = found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first())
        .copied()
        .ok_or_else(|| ConfigError::Address { key: key.to_owned(), value: text.to_owned() })?;
    if !may_be_open && !address.ip().is_loopback() {
        return Err(ConfigError::Open { key: key.to_owned(), address });
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests;
