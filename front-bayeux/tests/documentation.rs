//! The page of the protocol names files and tests; they must be there.

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/bayeux.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands between backquotes in a column of the tables of rules.
fn names(column: usize) -> Vec<&'static str> {
    let rules = PAGE.split("## Rules, files, tests").nth(1).expect("the tables of rules");
    let rows = rules
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule ") && !line.starts_with("| ---"));
    rows.flat_map(|row| row.split(" | ").nth(column).unwrap_or_default().split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn files_that_the_page_names_exist() {
    let files = names(1);
    assert!(files.len() > 60, "{}", files.len());
    for name in files {
        assert!(root().join("front-bayeux/src").join(name).exists(), "{name}");
    }
}

#[test]
fn tests_that_the_page_names_exist() {
    let tests = names(2);
    assert!(tests.len() > 100, "{}", tests.len());
    for test in tests {
        let Some((place, name)) = test.split_once("::") else {
            assert!(root().join(test).exists(), "{test}");
            continue;
        };
        let file = match place.starts_with("src/") {
            true => root().join("front-bayeux").join(place),
            false => root().join(format!("front-bayeux/tests/bayeux/{place}.rs")),
        };
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(text.contains(&format!("fn {name}(")), "{test}");
    }
}
