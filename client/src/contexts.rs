//! `fanwire context`: saving, choosing, listing and removing servers.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Subcommand;

use crate::arguments::{ServerArguments, variable};
use crate::context::{self, Context, Contexts};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::table::Table;
use crate::tell;

/// What can be done with saved servers.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum ContextCommand {
    /// Save a server with its credentials under a name, and use it from now on
    ///
    /// The file is readable for you alone. --url, --token or --user, --ca-file and --insecure are saved.
    Save {
        /// Its name
        name: String,
        /// The server and its credentials
        #[command(flatten)]
        server: Box<ServerArguments>,
    },
    /// Use this server where neither --url, --context nor the environment names one
    Use {
        /// Its name
        name: String,
    },
    /// Use none
    Leave,
    /// List the servers that are saved; credentials are not shown
    List,
    /// Forget a server and its credentials
    Remove {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(command: ContextCommand) -> Result<(), Failure> {
    let file = file()?;
    let mut contexts = Contexts::read(&file)?;
    match command {
        ContextCommand::Save { name, server } => {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Failure::Arguments("a context needs a name".to_owned()));
            }
            let context = server.to_save()?;
            // What cannot be called is better said now.
            Endpoint::at(&context)?;
            contexts.servers.insert(name.clone(), context);
            contexts.current = Some(name);
        }
        ContextCommand::Use { name } => {
            contexts.named(&name)?;
            contexts.current = Some(name);
        }
        ContextCommand::Leave => contexts.current = None,
        ContextCommand::Remove { name } => {
            contexts.named(&name)?;
            contexts.servers.remove(&name);
            contexts.current.take_if(|current| *current == name);
        }
        ContextCommand::List => return list(&contexts),
    }
    contexts.write(&file)
}

fn list(contexts: &Contexts) -> Result<(), Failure> {
    let mut table = Table::new(&["IN USE", "NAME", "URL", "CREDENTIALS"]);
    for (name, Context { url, token, user, .. }) in &contexts.servers {
        let in_use = if contexts.current.as_ref() == Some(name) { "*" } else { " " };
        let credentials = match (token, user) {
            (Some(_), _) => "token".to_owned(),
            (None, Some(user)) => format!("user {}", user.split(':').next().unwrap_or_default()),
            (None, None) => String::new(),
        };
        table.row(vec![in_use.to_owned(), name.clone(), url.clone(), credentials]);
    }
    let mut out = io::stdout().lock();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn file() -> Result<PathBuf, Failure> {
    let file = context::file(variable).ok_or_else(|| {
        Failure::Arguments("neither XDG_CONFIG_HOME nor HOME says where to keep it".to_owned())
    })?;
    if context::is_open_to_others(&file) {
        tell(format_args!("{} can be read by others: chmod 600", file.display()));
    }
    Ok(file)
}
