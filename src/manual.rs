//! `fanwire completions` and `fanwire man`: what shells and `man` know of the command line, made from its definition.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::command_line::CommandLine;

/// The completions of a shell, on standard output.
pub(crate) fn completions(shell: Shell) -> Result<(), Box<dyn Error>> {
    let mut command = CommandLine::command();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "fanwire", &mut text);
    let mut out = io::stdout();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

/// The main page on standard output, or a page for each command in a folder.
pub(crate) fn man(folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let command = CommandLine::command();
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            Ok(clap_mangen::generate_to(command, folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?)
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            let mut out = io::stdout();
            out.write_all(&text)?;
            Ok(out.flush()?)
        }
    }
}
