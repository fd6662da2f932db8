//! Tells the binary which commit it was made of: `BUILT_VERSION` and `BUILT_COMMIT`.
//!
//! No name here begins with `FANWIRE_`: `cargo run` hands these variables to the program it starts, and the program takes
//! what begins so for its configuration.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_COMMIT");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let given = std::env::var("SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty());
    match given.or_else(packaged).or_else(checked_out) {
        Some(commit) => {
            let short: String = commit.trim().chars().take(12).collect();
            println!("cargo:rustc-env=BUILT_VERSION={version} ({short})");
            println!("cargo:rustc-env=BUILT_COMMIT={short}");
        }
        None => {
            println!("cargo:rustc-env=BUILT_VERSION={version}");
            println!("cargo:rustc-env=BUILT_COMMIT=");
        }
    }
}

/// Of the sources that `cargo package` makes.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    println!("cargo:rerun-if-changed=.cargo_vcs_info.json");
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// Of a checkout. Not where it is worked on: there every commit would build everything anew.
fn checked_out() -> Option<String> {
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        // A file that is not there would make cargo ask each time.
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).exists()) {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
