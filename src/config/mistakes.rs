//! How a mistake in a configuration is told: with its place, and what was probably meant.

use std::path::Path;

use figment::error::Kind;

use super::ConfigError;
use super::keys::Key;
use super::nearest::nearest;
use super::sections::FrontSection;

/// Names the key, and for an unknown one the known one most like it.
pub(super) fn invalid(
    error: figment::Error,
    known: &[Key],
    sections: &[FrontSection],
    file: Option<&Path>,
    set: &[String],
) -> ConfigError {
    let path = error.path.join(".");
    let written = written_path(&error.path);
    let from_environment = set.iter().find(|key| path == **key || path.starts_with(&format!("{key}.")));
    let origin = match (from_environment, file) {
        (None, Some(file)) => file.display().to_string(),
        _ => "environment".to_owned(),
    };
    let message = match error.kind {
        Kind::UnknownField(field, siblings) => {
            let section = written.strip_suffix(field.as_str()).unwrap_or(&written);
            let siblings = beside(&error.path, sections).into_iter().chain(siblings.iter().copied());
            let siblings = siblings.map(|name| (name.to_owned(), format!("{section}{name}")));
            // What is only in the wrong section is found by its last part.
            let elsewhere = known
                .iter()
                .filter(|key| key.name.rsplit('.').next() == Some(field.as_str()))
                .min_by_key(|key| key.name.split('.').count());
            let elsewhere = elsewhere.map(|key| key.name.clone());
            let nearest = nearest(&field, siblings).or(elsewhere).or_else(|| nearest_key(&path, known));
            return ConfigError::Unknown { origin, key: written, nearest };
        }
        Kind::UnknownVariant(found, possible) => {
            let possible: Vec<String> = possible.iter().map(|name| format!("\"{name}\"")).collect();
            format!("\"{found}\" is none of {}", possible.join(", "))
        }
        // How serde says it names a type of Rust.
        kind => one_line(&kind.to_string())
            .replace("a nonzero u32", ONE_OR_MORE)
            .replace("a nonzero usize", ONE_OR_MORE),
    };
    ConfigError::Value { origin, key: written, message }
}

/// What could stand where an unknown key does, besides what its own section knows: the sections of fronts, and what a
/// listener adds to one.
fn beside(path: &[String], sections: &[FrontSection]) -> Vec<&'static str> {
    match path {
        [_] => sections.iter().map(|section| section.name).collect(),
        [section, _] => {
            let mut found = sections.iter().filter(|known| known.name == section);
            found.next().map(|section| section.keys_of_listener().to_vec()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

const ONE_OR_MORE: &str = "a whole number of 1 or more";

/// A place as it is told everywhere: `keys[0].rights[1].channels`.
fn written_path(path: &[String]) -> String {
    let mut written = String::new();
    for part in path {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            written.push_str(&format!("[{part}]"));
            continue;
        }
        if !written.is_empty() {
            written.push('.');
        }
        written.push_str(part);
    }
    written
}

fn nearest_key(key: &str, known: &[Key]) -> Option<String> {
    nearest(key, known.iter().map(|key| (key.name.clone(), key.name.clone())))
}

/// The parts of a message that say something: TOML errors draw a picture below their first line.
pub(super) fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|') && !line.chars().all(|c| c == '^'))
        .collect();
    lines.join(": ")
}
