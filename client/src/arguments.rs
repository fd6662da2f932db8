//! What the commands can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::context::{self, Context, Contexts};
use crate::failure::Failure;
use crate::output::Format;

/// The server that is spoken to where nothing names one.
const LOCAL: &str = "http://127.0.0.1:8080";

/// Where the server is, and who asks.
// The environment is read by hand: which of its variables counts depends on where the server comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArguments {
    /// Address of the server, http:// or https:// [env: FANWIRE_URL] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A saved server with its credentials, see `fanwire context` [env: FANWIRE_CONTEXT]
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    pub(crate) context: Option<String>,
    /// A key or JWT; FANWIRE_TOKEN is the better place, as others can see arguments
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    pub(crate) token: Option<String>,
    /// A user's name and password; FANWIRE_USER is the better place, as others can see arguments
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Option<String>,
    /// Trust the certificates in this PEM file for https:// instead of the system's authorities [env: FANWIRE_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Take any certificate: whoever is in between can read the credentials and all messages, and change them
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// A variable of the environment that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ServerArguments {
    /// The server that is meant, by arguments, environment and what is saved.
    pub(crate) fn resolve(&self) -> Result<Context, Failure> {
        self.resolve_with(variable, || match context::file(variable) {
            Some(file) => Contexts::read(&file),
            None => Ok(Contexts::default()),
        })
    }

    /// A saved server brings its own credentials: those of the environment are for the environment's server and are
    /// never sent to another one. What stands in the arguments counts in any case.
    fn resolve_with(
        &self,
        variable: impl Fn(&str) -> Option<String>,
        contexts: impl FnOnce() -> Result<Contexts, Failure>,
    ) -> Result<Context, Failure> {
        let named =
            self.context.clone().or_else(|| variable("FANWIRE_CONTEXT").filter(|_| self.url.is_none()));
        let url = self.url.clone().or_else(|| variable("FANWIRE_URL"));
        let saved = match (named, &url) {
            (Some(name), _) => Some(contexts()?.named(&name)?.clone()),
            (None, Some(_)) => None,
            (None, None) => {
                let contexts = contexts()?;
                contexts.current.as_ref().map(|name| contexts.named(name).cloned()).transpose()?
            }
        };
        let mut meant = saved.unwrap_or_else(|| Context {
            url: url.unwrap_or_else(|| LOCAL.to_owned()),
            token: variable("FANWIRE_TOKEN"),
            user: variable("FANWIRE_USER"),
            ca_file: variable("FANWIRE_CA_FILE").map(Into::into),
            insecure: false,
        });
        if self.token.is_some() || self.user.is_some() {
            (meant.token, meant.user) = (self.token.clone(), self.user.clone());
        }
        if self.ca_file.is_some() {
            meant.ca_file.clone_from(&self.ca_file);
        }
        meant.insecure |= self.insecure;
        Ok(meant)
    }

    /// What of them a context keeps: arguments alone, so that what is saved is what was written.
    pub(crate) fn to_save(&self) -> Result<Context, Failure> {
        if self.context.is_some() {
            return Err(Failure::Arguments("a context is saved from --url, not from --context".to_owned()));
        }
        let url = self.url.clone();
        Ok(Context {
            url: url.ok_or_else(|| Failure::Arguments("--url says which server to save".to_owned()))?,
            token: self.token.clone(),
            user: self.user.clone(),
            ca_file: self.ca_file.as_ref().map(std::path::absolute).transpose()?,
            insecure: self.insecure,
        })
    }
}

// What is told of a command as a whole stands with the command line of the binary.
#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Pub {
    /// Channel, e.g. chat/room1
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Payload; "-" reads it from standard input. Write `--` before data that starts with a hyphen
    #[arg(value_name = "DATA", allow_negative_numbers = true, required_unless_present = "lines")]
    pub(crate) data: Option<String>,
    /// Publish each line of standard input as a message of its own, as it comes
    #[arg(long, conflicts_with_all = ["data", "key"])]
    pub(crate) lines: bool,
    /// The payload's type, e.g. application/json; without one, valid JSON counts as JSON
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Keep it as the channel's retained message; empty data forgets the one that is kept
    #[arg(long)]
    pub(crate) retain: bool,
    /// Seconds after which it is not sent any more
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<f64>,
    /// Event name
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// Idempotency key: however often it is tried with this key, it is published once
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Try so many times more when the server is away or busy; a key is made if none is given
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retry: u32,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Sub {
    /// Channels; "*" is one segment, a last "**" the rest, a last "#" the rest or nothing
    #[arg(value_name = "FILTER", required = true)]
    pub(crate) filters: Vec<String>,
    /// Form of the output
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Begin after this id; "earliest" with the oldest message that is kept
    #[arg(long, value_name = "ID")]
    pub(crate) last_event_id: Option<String>,
    /// Leave out the retained messages
    #[arg(long)]
    pub(crate) no_retained: bool,
    /// Seconds without a byte after which the connection counts as lost; must be above the server's keep-alive
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) idle_timeout: u64,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Connections {
    /// Those of this user only
    #[arg(long, value_name = "NAME")]
    pub(crate) of: Option<String>,
    /// Those that are subscribed to this channel only
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,
    /// Those of the node that is asked, or of all nodes
    #[arg(long, value_name = "SCOPE", default_value = "node")]
    pub(crate) scope: Scope,
    /// One JSON object per line, as the HTTP API has it, instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// Whose clients are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    Node,
    Cluster,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Close {
    /// Ids, as `fanwire connections` shows them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// What the client is told, where its protocol has a place for it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// What can be done with dead letters.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "clap would tell it")]
#[non_exhaustive]
pub enum DeadCommand {
    /// List events that were not delivered to webhooks
    List {
        #[command(flatten)]
        which: Which,
        /// One JSON object per line, as the HTTP API has it, instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Print one of them: one line of JSON
    Show {
        /// Its id, as the list shows it
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Deliver them anew, under their ids
    Replay {
        /// Their ids, as the list shows them
        #[arg(value_name = "ID", conflicts_with_all = ["hook", "since", "all"])]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        server: ServerArguments,
    },
}

/// Which dead letters.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Those of this webhook only
    #[arg(long, value_name = "ID")]
    pub(crate) hook: Option<String>,
    /// Those of the last minutes, hours or days only, e.g. 1h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Health {
    /// Ask whether new clients should come, which they should not to a server that stops
    #[arg(long)]
    pub(crate) ready: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Channels {
    /// Those whose name begins so only
    #[arg(value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// One JSON object per line, as the HTTP API has it, instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct History {
    /// A channel, or a filter as of `fanwire sub`
    #[arg(value_name = "FILTER")]
    pub(crate) filter: String,
    /// So many of the newest
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with_all = ["after", "all"],
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) last: u64,
    /// All that came after the message with this id
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub(crate) after: Option<String>,
    /// All that is kept
    #[arg(long)]
    pub(crate) all: bool,
    /// Form of the output
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Retained {
    /// A channel; a filter, or nothing, lists the channels that keep a message
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,
    /// Forget the channel's message instead of showing it
    #[arg(long, conflicts_with_all = ["format", "json"], requires = "channel")]
    pub(crate) forget: bool,
    /// Form of the message
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Of a list one JSON object per line, as the HTTP API has it, instead of a table
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "clap would tell it")]
pub struct Bench {
    /// What the channel's name begins with; a part of its own follows, so that nobody else's messages are counted
    #[arg(long, value_name = "PREFIX", default_value = "bench")]
    pub(crate) channel: String,
    /// Event streams that listen
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) subscribers: u32,
    /// Publishers, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) publishers: u32,
    /// Messages a second, of all publishers together; without, as fast as they are answered
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<f64>,
    /// Bytes of a payload; 16 at least, for the time that it carries
    #[arg(long, value_name = "BYTES", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(..=16 << 20))]
    pub(crate) size: u32,
    /// How long to publish, e.g. 10s, 1m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(url: Option<&str>, context: Option<&str>, token: Option<&str>) -> ServerArguments {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        ServerArguments {
            url: owned(url),
            context: owned(context),
            token: owned(token),
            ..ServerArguments::default()
        }
    }

    /// Url and token of the server that is meant.
    fn meant(
        arguments: &ServerArguments,
        environment: &[(&str, &str)],
        current: Option<&str>,
    ) -> (String, Option<String>) {
        let saved = |name: &str| Context {
            url: format!("https://{name}"),
            token: Some(format!("of-{name}")),
            ..Context::default()
        };
        let contexts = Contexts {
            current: current.map(str::to_owned),
            servers: ["one", "two"].map(|name| (name.to_owned(), saved(name))).into(),
        };
        let variable = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let found = arguments.resolve_with(variable, || Ok(contexts)).unwrap();
        (found.url, found.token)
    }

    #[test]
    fn credentials_go_to_the_server_they_were_given_for() {
        let environment = [("FANWIRE_URL", "http://env"), ("FANWIRE_TOKEN", "of-env")];
        let named = [("FANWIRE_URL", "http://env"), ("FANWIRE_CONTEXT", "two"), ("FANWIRE_TOKEN", "of-env")];
        let token = [("FANWIRE_TOKEN", "of-env")];
        for (arguments, environment, current, url, token) in [
            (arguments(None, None, None), &environment[..], Some("one"), "http://env", Some("of-env")),
            (arguments(None, None, None), &token[..], Some("one"), "https://one", Some("of-one")),
            (arguments(None, None, None), &token[..], None, LOCAL, Some("of-env")),
            (
                arguments(None, Some("two"), None),
                &environment[..],
                Some("one"),
                "https://two",
                Some("of-two"),
            ),
            (arguments(None, None, None), &named[..], Some("one"), "https://two", Some("of-two")),
            (
                arguments(Some("http://arg"), None, None),
                &named[..],
                Some("one"),
                "http://arg",
                Some("of-env"),
            ),
            (arguments(None, Some("two"), Some("arg")), &environment[..], None, "https://two", Some("arg")),
        ] {
            let expected = (url.to_owned(), token.map(str::to_owned));
            assert_eq!(meant(&arguments, environment, current), expected, "{arguments:?} {environment:?}");
        }
    }
}
