//! What the binary can be told to do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::data::StoreCommand;
use crate::keys::KeyCommand;
use crate::token::TokenCommand;
use clap_complete::Shell;
use client::{
    Bench, Channels, Close, Connections, ContextCommand, DeadCommand, Health, History, Pub, Retained, Sub,
};

/// A realtime pub/sub broker: Bayeux, MQTT, Server-Sent Events and HTTP on one channel space.
///
/// Without a command it is the server. Without arguments that listens on loopback only, and everybody there may do
/// everything.
#[derive(Debug, Parser)]
#[command(
    name = "fanwire",
    version = env!("BUILT_VERSION"),
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    propagate_version = true
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) server: fanwire::Arguments,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what is set, as a configuration file that says the same
    ///
    /// File, environment and defaults are put together as for the server. What differs from its default says so. Keys,
    /// users and issuers are counted and not shown, as there are secrets among them.
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Every key with its default, whatever is set
        #[arg(long)]
        defaults: bool,
    },
}

/// Everything but being the server.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish one message to a running server, and print its answer: one line of JSON
    #[command(visible_alias = "publish", after_help = PUB_CODES)]
    Pub(Pub),
    /// Print what a running server publishes
    ///
    /// The stream is opened again from where it broke, whenever it breaks. Messages go to standard output; gaps and
    /// reconnects are told on standard error.
    #[command(visible_alias = "subscribe", after_help = SUB_CODES)]
    Sub(Sub),
    /// List who is connected to a running server
    #[command(after_help = CODES)]
    Connections(Connections),
    /// Close connections of a running server
    ///
    /// Each protocol closes in its own terms. Clients may come back; rights keep them away.
    #[command(after_help = CODES)]
    Close(Close),
    /// List the channels that have a subscriber or something in the history
    #[command(after_help = CODES)]
    Channels(Channels),
    /// Print what a running server remembers of a channel, the oldest first
    #[command(after_help = CODES)]
    History(History),
    /// List the channels that keep a message, print one of these, or make the server forget it
    #[command(after_help = CODES)]
    Retained(Retained),
    /// Look after events that a running server could not deliver to webhooks
    #[command(after_help = CODES)]
    Dead {
        #[command(subcommand)]
        what: DeadCommand,
    },
    /// Ask a running server whether it lives, for whoever watches it: nothing is printed if it does
    #[command(after_help = CODES)]
    Health(Health),
    /// Measure a running server: how fast it publishes, and how long messages take to event streams
    ///
    /// One process with one thread: with many streams it measures itself. Exit code 1 if messages are missing.
    #[command(after_help = CODES)]
    Bench(Bench),
    /// Save servers with their credentials under a name, for --context
    Context {
        #[command(subcommand)]
        what: ContextCommand,
    },
    /// Make and check signed tokens
    Token(TokenCommand),
    /// Print completions for a shell, e.g. `fanwire completions bash > /etc/bash_completion.d/fanwire`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for each command into a folder
    Man {
        /// The folder, e.g. /usr/local/share/man/man1
        folder: Option<PathBuf>,
    },
    /// Look at a store of messages, or copy it
    Store {
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// Make keys and password hashes for a configuration
    Key(KeyCommand),
    /// Print what is set
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Print the routes file of Pushpin as routes of a configuration
    ///
    /// What cannot be said here is told with its line, on standard error and in comments. Exit code 0, or 1 if there is
    /// any of that.
    ImportRoutes {
        /// The routes file, e.g. /etc/pushpin/routes; `-` is standard input
        file: PathBuf,
    },
    /// Say whether a configuration is right, and what it would serve
    ///
    /// The environment counts as for the server. Exit code 0, or 2 with what is wrong.
    CheckConfig {
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Which configuration is looked at: the file alone, or as the server is told of it.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file; without one that of FANWIRE_CONFIG, if there is any
    file: Option<PathBuf>,
    /// The same, as for the server
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, if one is named anywhere.
    pub(crate) fn path(self) -> Option<PathBuf> {
        let of_environment =
            || std::env::var_os("FANWIRE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        self.file.or(self.config).or_else(of_environment)
    }
}

const PUB_CODES: &str = "Exit codes: 0 published, 1 refused, 2 wrong arguments, 3 server not reachable, \
                         4 credentials needed or wrong, 5 no right, 6 busy, try again.";

const SUB_CODES: &str = "Exit codes: 0 enough messages, 1 refused, 2 wrong arguments, 3 server not reachable at the start, \
                         4 credentials needed or wrong, 5 no right, 6 busy at the start.";

const CODES: &str = "Exit codes: 0 done, 1 refused or not there, 2 wrong arguments, 3 server not reachable, \
                     4 credentials needed or wrong, 5 no right, 6 busy, try again.";

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
        for wrong in [
            &["fanwire", "check-config", "a", "--config", "b"][..],
            &["fanwire", "--http", "off", "pub", "a", "b"],
            &["fanwire", "pub", "a"],
            &["fanwire", "sub"],
        ] {
            assert!(CommandLine::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_configuration_is_looked_at_as_the_server_is_told_of_it_or_by_itself() {
        for given in [&["a.toml"][..], &["--config", "a.toml"], &["--config=a.toml"], &["-c", "a.toml"]] {
            for command in [&["check-config"][..], &["config", "show"]] {
                let line = [&["fanwire"], command, given].concat();
                let file = match CommandLine::try_parse_from(&line).unwrap().command {
                    Some(Command::CheckConfig { file }) => file,
                    Some(Command::Config { what: ConfigCommand::Show { file, .. } }) => file,
                    other => panic!("{line:?}: {other:?}"),
                };
                assert_eq!(file.path(), Some(PathBuf::from("a.toml")), "{line:?}");
            }
        }
        let server = CommandLine::try_parse_from(["fanwire", "-c", "a.toml"]).unwrap().server;
        assert_eq!(server.config, Some(PathBuf::from("a.toml")));
    }

    #[test]
    fn what_is_misspelt_is_answered_with_what_was_meant() {
        for (wrong, meant) in [
            (&["fanwire", "subs", "a"][..], "'sub'"),
            (&["fanwire", "sub", "a", "--fromat", "raw"], "'--format'"),
            (&["fanwire", "--htpp", "off"], "'--http'"),
            (&["fanwire", "pub", "a", "b", "--retian"], "'--retain'"),
        ] {
            let said = CommandLine::try_parse_from(wrong).unwrap_err().to_string();
            assert!(said.contains(meant), "{wrong:?}: {said}");
        }
    }
}
