//! The sections of fronts in a configuration, whatever fronts there are.

use std::sync::Arc;

use figment::value::{Dict, Value};
use front::{Common, Section};
use serde::{Deserialize, Serialize};

use super::Config;
use super::settings::tls::Mode;

/// Boxed, as it is large.
type Error = Box<figment::Error>;

/// What a front with a listener of its own has in its section beside its own keys: the listener's settings are the
/// server's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) address: String,
    pub(super) tls: Option<Mode>,
    pub(super) tls_address: Option<String>,
}

impl Listener {
    pub(super) const KEYS: [&str; 3] = ["address", "tls", "tls_address"];

    fn at(address: &str) -> Self {
        Listener { address: address.to_owned(), tls: None, tls_address: None }
    }
}

/// The section of one front, of which only the front knows what is in it.
#[derive(Clone)]
pub(crate) struct FrontSection {
    pub(super) name: &'static str,
    listener: Option<Listener>,
    defaults: fn() -> Result<Value, Error>,
    read: Arc<Read>,
}

type Read = dyn Fn(&Value) -> Result<Set, Error> + Send + Sync;

/// Sets up a front in the server's configuration.
type SetUp = Box<dyn FnOnce(&Common, &mut Config)>;

/// What a section sets, once it was read.
struct Set {
    written: Value,
    broker: Box<dyn FnOnce(&mut broker_core::Config)>,
    front: SetUp,
}

/// A section that was read.
pub(super) struct Filled {
    pub(super) name: &'static str,
    pub(super) listener: Option<Listener>,
    set: Set,
}

impl FrontSection {
    /// That of `S`, whose front is made of what `store` keeps in the server's configuration.
    pub(crate) fn of<S: Section>(store: impl Fn(&mut Config, S::Config) + Send + Sync + 'static) -> Self {
        let store = Arc::new(store);
        let read = move |written: &Value| {
            let section: S = written.deserialize()?;
            let (store, of_broker) = (Arc::clone(&store), section.clone());
            Ok(Set {
                written: Value::serialize(&section)?,
                broker: Box::new(move |broker| of_broker.set_broker(broker)),
                front: Box::new(move |common, config| store(config, section.into_config(common))),
            })
        };
        Self {
            name: S::NAME,
            listener: S::ADDRESS.map(Listener::at),
            defaults: || Ok(Value::serialize(S::default())?),
            read: Arc::new(read),
        }
    }

    /// Keys that it has beside the front's own.
    pub(super) fn keys_of_listener(&self) -> &'static [&'static str] {
        if self.listener.is_some() { &Listener::KEYS } else { &[] }
    }

    /// All its keys with their defaults.
    pub(super) fn defaults(&self) -> Value {
        let Ok(mut defaults) = (self.defaults)() else { return Dict::new().into() };
        add_listener(&mut defaults, self.listener.as_ref());
        defaults
    }

    /// # Errors
    /// The first thing that is wrong with it, by the order of keys.
    pub(super) fn read(&self, mut written: Value) -> Result<Filled, Error> {
        let of_listener = take_listener(&mut written, self.keys_of_listener());
        let listener = self.listener.as_ref().map(|_| Ok(of_listener.deserialize()?)).transpose();
        match (listener, (self.read)(&written)) {
            (Ok(listener), Ok(set)) => Ok(Filled { name: self.name, listener, set }),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Err(one), Err(other)) => Err(if one.path < other.path { one } else { other }),
        }
        .map_err(|mut error| {
            error.path.insert(0, self.name.to_owned());
            error
        })
    }
}

impl Filled {
    /// All its keys with their values.
    pub(super) fn written(&self) -> Value {
        let mut written = self.set.written.clone();
        add_listener(&mut written, self.listener.as_ref());
        written
    }

    /// Sets what it says of the broker; what is left says the rest.
    pub(super) fn set_broker(self, broker: &mut broker_core::Config) -> SetUp {
        (self.set.broker)(broker);
        self.set.front
    }
}

impl std::fmt::Debug for FrontSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FrontSection").field(&self.name).finish()
    }
}

fn add_listener(section: &mut Value, listener: Option<&Listener>) {
    let listener = listener.map(Value::serialize);
    if let (Value::Dict(_, keys), Some(Ok(Value::Dict(_, listener)))) = (section, listener) {
        keys.extend(listener);
    }
}

/// Takes the keys of a listener out of a section. A value that is not a table has none.
fn take_listener(section: &mut Value, keys: &[&str]) -> Value {
    let mut taken = Dict::new();
    if let Value::Dict(_, all) = section {
        taken.extend(keys.iter().filter_map(|key| all.remove_entry(*key)));
    }
    taken.into()
}
