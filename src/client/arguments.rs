//! What the commands can be told.

use clap::Args;

/// Where the server is, and who asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArguments {
    /// Address of the server
    #[arg(long, value_name = "URL", env = "FANWIRE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A key or JWT; FANWIRE_TOKEN is the better place, as others can see arguments
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    pub(crate) token: Option<String>,
    /// A user's name and password; FANWIRE_USER is the better place, as others can see arguments
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Option<String>,
}

/// `fanwire pub`.
///
/// Prints the server's answer, one line of JSON. Exit codes: 0 published, 1 refused, 2 wrong arguments, 3 server not
/// reachable, 4 credentials needed or wrong, 5 no right, 6 too busy now.
#[derive(Args, Clone, Debug)]
pub(crate) struct Pub {
    /// Channel, e.g. chat/room1
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Payload; "-" reads it from standard input. Write `--` before data that starts with a hyphen
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    pub(crate) data: String,
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
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}
