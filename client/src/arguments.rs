//! What the commands can be told.

use std::path::PathBuf;

use clap::Args;
use outgoing::{Authorities, Trust};

use crate::failure::Failure;
use crate::output::Format;

/// Where the server is, and who asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArguments {
    /// Address of the server, http:// or https://
    #[arg(long, value_name = "URL", env = "FANWIRE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A key or JWT; FANWIRE_TOKEN is the better place, as others can see arguments
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    pub(crate) token: Option<String>,
    /// A user's name and password; FANWIRE_USER is the better place, as others can see arguments
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Option<String>,
    /// Trust the certificates in this PEM file for https:// instead of the system's authorities
    #[arg(long, value_name = "FILE", env = "FANWIRE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Take any certificate: whoever is in between can read the credentials and all messages, and change them
    #[arg(long)]
    pub(crate) insecure: bool,
}

impl ServerArguments {
    pub(crate) fn trust(&self) -> Result<Trust, Failure> {
        match &self.ca_file {
            _ if self.insecure => Ok(Trust::Anyone),
            Some(file) => match Authorities::read(file) {
                Ok(authorities) => Ok(Trust::Authorities(authorities)),
                Err(error) => Err(Failure::Arguments(error.to_string())),
            },
            None => Ok(Trust::System),
        }
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
