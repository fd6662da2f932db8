//! `fanwire key …`: what a configuration of rights is made of.

use std::error::Error;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fanwire::auth::{NewKey, hash_password};
use fanwire::{Action, Pattern};

use crate::say::say;

/// `fanwire key`
#[derive(Debug, Args)]
pub(crate) struct KeyCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key: its secret is shown this once, its hash goes into the configuration
    New(New),
    /// Hash a password from standard input for a `[[users]]` entry
    HashPassword,
}

#[derive(Debug, Args)]
struct New {
    /// The key's name, e.g. the service's; a random one if there is none
    #[arg(long)]
    id: Option<String>,
    /// What it may do, e.g. `publish,history:orders/**,news`; may be given several times
    #[arg(long, value_name = "ACTIONS:CHANNELS")]
    rights: Vec<String>,
    /// Add it to this configuration file, which a running server notices; without, the lines for it are printed
    #[arg(long, value_name = "FILE")]
    append_to: Option<PathBuf>,
}

/// Does what `command` says.
pub(crate) fn run(command: KeyCommand) -> Result<(), Box<dyn Error>> {
    match command.what {
        What::New(new) => make(new),
        What::HashPassword => hash(),
    }
}

fn make(new: New) -> Result<(), Box<dyn Error>> {
    let key = NewKey::generate()?;
    let id = match new.id {
        Some(id) => checked_id(id)?,
        // A part of the hash: as random as the secret, and no secret.
        None => {
            format!("key-{}", key.hash.to_string().chars().skip("sha256:".len()).take(8).collect::<String>())
        }
    };
    let mut entry = format!("[[keys]]\nid = \"{id}\"\nhash = \"{}\"\n", key.hash);
    let rights = new.rights.iter().map(|text| grant(text)).collect::<Result<Vec<_>, _>>()?;
    if rights.is_empty() {
        entry.push_str("rights = []\n");
    } else {
        entry.push_str(&format!("rights = [\n{}]\n", rights.concat()));
    }
    let mut out = io::stdout();
    match &new.append_to {
        Some(file) => {
            append(file, &entry)?;
            writeln!(out, "{}", key.secret)?;
            say(format!(
                "added key \"{id}\" to {}; its secret stands above, and nowhere else",
                file.display()
            ));
        }
        None => {
            writeln!(out, "{}\n\n{entry}", key.secret)?;
            say(
                "the first line is the secret, shown this once; the lines below it belong into the configuration",
            );
        }
    }
    Ok(out.flush()?)
}

/// What can stand between quotes in any file without escapes.
fn checked_id(id: String) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    if !id.is_empty() && id.chars().all(legal) {
        return Ok(id);
    }
    Err(format!("{id:?} is no id: letters, digits and `- _ . @ :`"))
}

/// `publish,history:orders/**,news`
pub(crate) fn parse_grant(text: &str) -> Result<(Vec<Action>, Vec<Pattern>), String> {
    let (actions, channels) =
        text.split_once(':').ok_or_else(|| format!("{text:?}: write it as `publish,history:orders/**`"))?;
    let names = Action::ALL.map(Action::name).join(", ");
    let actions = actions
        .split(',')
        .map(|name| Action::from_name(name.trim()).ok_or_else(|| format!("{name:?} is none of {names}")));
    let channels = channels
        .split(',')
        .map(|channel| Pattern::parse(channel).map_err(|error| format!("{channel:?}: {error}")));
    Ok((actions.collect::<Result<_, _>>()?, channels.collect::<Result<_, _>>()?))
}

/// One line of `rights`.
fn grant(text: &str) -> Result<String, String> {
    let (actions, channels) = parse_grant(text)?;
    let actions: Vec<_> = actions.iter().map(|action| format!("\"{}\"", action.name())).collect();
    let channels = channels.iter().map(Pattern::as_str).map(|channel| {
        if channel.contains(['"', '\\']) || channel.chars().any(char::is_control) {
            return Err(format!("{channel:?} has to be written into the file by hand"));
        }
        Ok(format!("\"{channel}\""))
    });
    let actions = actions.join(", ");
    let channels = channels.collect::<Result<Vec<_>, String>>()?.join(", ");
    Ok(format!("  {{ actions = [{actions}], channels = [{channels}] }},\n"))
}

/// Adds `entry` if the file loads with it, and leaves the file alone if not.
fn append(file: &Path, entry: &str) -> Result<(), Box<dyn Error>> {
    let mut text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let entry = format!("\n{entry}");
    text.push_str(&entry);
    let mut arguments = fanwire::Arguments::default();
    arguments.config = Some(file.to_owned());
    fanwire::check(arguments, &text, std::env::vars_os())
        .map_err(|error| format!("not added, as the file would not load then: {error}"))?;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    // One write: a server that looks now sees all of it or nothing.
    file.write_all(entry.as_bytes())?;
    Ok(file.sync_all()?)
}

fn hash() -> Result<(), Box<dyn Error>> {
    const MAX_BYTES: u64 = 4096;
    if io::stdin().is_terminal() {
        say("type the password, it can be seen, and Enter and Ctrl-D:");
    }
    let mut password = Vec::new();
    io::stdin().take(MAX_BYTES + 1).read_to_end(&mut password)?;
    let without_end = password.strip_suffix(b"\n").unwrap_or(&password);
    let password = without_end.strip_suffix(b"\r").unwrap_or(without_end);
    if password.is_empty() || password.len() as u64 > MAX_BYTES {
        return Err(format!("a password of 1 to {MAX_BYTES} bytes is read from standard input").into());
    }
    let hash = hash_password(password).map_err(|error| error.to_string())?;
    Ok(writeln!(io::stdout(), "{hash}")?)
}
