//! What the binary can be told to do.

use clap::{Parser, Subcommand};

use crate::client::Pub;

/// A realtime pub/sub broker: Bayeux, MQTT, Server-Sent Events and HTTP on one channel space.
///
/// Without a command it is the server. Without arguments that listens on loopback only, and everybody there may do
/// everything.
#[derive(Debug, Parser)]
#[command(name = "fanwire", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) server: fanwire::Arguments,
}

/// Everything but being the server.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish one message to a running server
    #[command(visible_alias = "publish")]
    Pub(Pub),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_the_server() {
        let line = CommandLine::try_parse_from(["fanwire", "--http", "off"]).unwrap();
        assert!(line.command.is_none());
        assert_eq!(line.server.http.as_deref(), Some("off"));
        assert!(matches!(
            CommandLine::try_parse_from(["fanwire", "pub", "a", "-1"]).unwrap().command,
            Some(Command::Pub(_))
        ));
        for wrong in [&["fanwire", "--http", "off", "pub", "a", "b"][..], &["fanwire", "pub", "a"]] {
            assert!(CommandLine::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_misspelt_is_answered_with_what_was_meant() {
        for (wrong, meant) in [
            (&["fanwire", "pubs", "a"][..], "'pub'"),
            (&["fanwire", "--htpp", "off"], "'--http'"),
            (&["fanwire", "pub", "a", "b", "--retian"], "'--retain'"),
        ] {
            let said = CommandLine::try_parse_from(wrong).unwrap_err().to_string();
            assert!(said.contains(meant), "{wrong:?}: {said}");
        }
    }
}
