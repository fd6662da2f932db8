//! The command line.

use std::path::PathBuf;

use clap::Parser;

use super::LogFormat;

/// A realtime pub/sub broker: Bayeux, MQTT, Server-Sent Events and HTTP on one channel space.
///
/// Without arguments it listens on loopback only, and everybody there may do everything.
#[derive(Debug, Parser)]
#[command(name = "fanwire", version, max_term_width = 100)]
pub(super) struct Arguments {
    /// Configuration file, TOML
    #[arg(long, value_name = "FILE", env = "FANWIRE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Where HTTP, SSE and the WebSockets are served, e.g. 127.0.0.1:8080; port 0 takes a free one, "off" none
    #[arg(long, value_name = "ADDR")]
    pub(super) http: Option<String>,
    /// Where MQTT over TCP is served, e.g. 127.0.0.1:1883; port 0 takes a free one, "off" none
    #[arg(long, value_name = "ADDR")]
    pub(super) mqtt: Option<String>,
    /// Listen beyond loopback although everybody may do everything
    #[arg(long)]
    pub(super) allow_anonymous: bool,
    /// Form of the log lines on standard error
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}
