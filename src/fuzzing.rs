//! What the fuzzers of `fuzz/` call. Their corpus runs as an ordinary test as well, so that what a fuzzer has found
//! once is looked at on every run.

use std::ffi::OsString;

use crate::{Arguments, Loader};

pub use crate::listen::fuzzing::{forwarded, proxy_header};

/// A configuration file, then, behind a NUL, lines of environment variables. What is taken can be written down and is
/// the same when it is read again; what is refused says in one line what is wrong.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Nothing that would be read or resolved: what is behind it is not ours.
    if ["file", "address", "url"].iter().any(|word| text.contains(word) && !text.contains("per_address")) {
        return;
    }
    let (text, environment) = text.split_once('\0').unwrap_or((text, ""));
    let environment: Vec<(OsString, OsString)> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("FANWIRE_{name}").into(), value.into()))
        .collect();
    let arguments = Arguments { config: Some("fanwire.toml".into()), ..Arguments::default() };
    let loader = Loader::default();
    let loaded = match loader.check(arguments.clone(), text, environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.trim_end().contains('\n'), "{said}");
            return;
        }
    };
    let shown = loaded.show();
    // Secrets are not shown, so what is left of those is another configuration.
    if shown.contains("which are not shown") {
        return;
    }
    match loader.check(arguments, &shown, []) {
        Ok(again) => assert_eq!(again.show(), shown),
        Err(error) => panic!("{error}: {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{}", folder.display());
        for file in files {
            println!("{}", file.display());
            run(&std::fs::read(&file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_configurations_holds() {
        replay("configuration", super::configuration);
    }

    #[test]
    fn the_corpus_of_forwarded_addresses_holds() {
        replay("forwarded", super::forwarded);
    }

    #[test]
    fn the_corpus_of_proxy_headers_holds() {
        replay("proxy_header", super::proxy_header);
    }
}
