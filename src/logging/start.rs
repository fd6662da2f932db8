//! Log lines of the binary, on standard error: standard output is for programs that start it.

use std::ffi::OsStr;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::writer::Lines;
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
    let targets = quieten(targets, &logging.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines);
    let registry = tracing_subscriber::registry().with(targets);
    let _ = match logging.format {
        LogFormat::Text => registry.with(lines.with_target(false).with_ansi(wants_colour())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

/// Colours are for terminals, and for people who want them (<https://no-color.org>: set, and not empty, says no).
fn wants_colour() -> bool {
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    is_coloured(on_terminal, std::env::var_os("NO_COLOR").as_deref())
}

fn is_coloured(on_terminal: bool, no_color: Option<&OsStr>) -> bool {
    on_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The client of NATS tells at level info what the node tells in its own words.
fn quieten(targets: Targets, level: &str) -> Targets {
    const CLIENT: &str = "async_nats";
    if level.contains(CLIENT) {
        return targets;
    }
    let of_all = targets.default_level().unwrap_or(LevelFilter::OFF);
    targets.with_target(CLIENT, of_all.min(LevelFilter::WARN))
}

/// Refuses a bare word that is no level: the library would take it for the name of a crate.
fn parse(level: &str) -> Option<Targets> {
    let is_legal = |part: &str| part.contains('=') || LevelFilter::from_str(part.trim()).is_ok();
    if level.split(',').all(is_legal) { Targets::from_str(level).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_wants_no_colour_gets_none() {
        for (value, coloured) in [(None, true), (Some(""), true), (Some("1"), false)] {
            let value = value.map(OsStr::new);
            assert_eq!(is_coloured(true, value), coloured, "{value:?}");
            assert!(!is_coloured(false, value));
        }
    }
}
