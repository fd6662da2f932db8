//! Log lines of the binary, on standard error: standard output is for programs that start it.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{ConfigError, LogFormat, Logging};

/// Sends log lines to standard error from now on. Later calls change nothing.
///
/// # Errors
/// [`Logging::level`] cannot be understood.
pub fn start(logging: &Logging) -> Result<(), ConfigError> {
    let targets = parse(&logging.level).ok_or_else(|| ConfigError::Value {
        origin: "configuration".to_owned(),
        key: "logging.level".to_owned(),
        message: format!(
            "`{}` is none of error, warn, info, debug, trace, off, also by crate (`info,fanwire=debug`)",
            logging.level
        ),
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    let _ = match logging.format {
        LogFormat::Text => registry.with(lines.with_target(false).with_ansi(wants_colour())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

/// Colours are for terminals, and for people who want them (<https://no-color.org>).
fn wants_colour() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && !is_unwanted
}

/// Refuses a bare word that is no level: the library would take it for the name of a crate.
fn parse(level: &str) -> Option<Targets> {
    let is_legal = |part: &str| part.contains('=') || LevelFilter::from_str(part.trim()).is_ok();
    if level.split(',').all(is_legal) { Targets::from_str(level).ok() } else { None }
}
