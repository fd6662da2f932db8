//! The server's arguments.

use std::path::PathBuf;

use clap::Args;

use super::LogFormat;

/// What the command line says about the server. An embedding binary can flatten it into its own.
#[derive(Args, Clone, Debug, Default)]
#[non_exhaustive]
pub struct Arguments {
    /// Configuration file, TOML
    #[arg(short, long, value_name = "FILE", env = "FANWIRE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where HTTP, SSE and the WebSockets are served, e.g. 127.0.0.1:8080; port 0 takes a free one, "off" none
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where MQTT over TCP is served, e.g. 127.0.0.1:1883; port 0 takes a free one, "off" none
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<String>,
    /// Where messages are kept, so that they outlive the server; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Listen beyond loopback although everybody may do everything
    #[arg(long)]
    pub allow_anonymous: bool,
    /// Form of the log lines on standard error
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Arguments {
    /// Where they say that the listener of a section is.
    pub(super) fn address_of(&self, section: &str) -> Option<&str> {
        match section {
            "http" => self.http.as_deref(),
            "mqtt" => self.mqtt.as_deref(),
            _ => None,
        }
    }
}
