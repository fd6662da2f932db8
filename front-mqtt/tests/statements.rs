//! The table of normative statements in docs/mqtt.md: every statement that concerns a server is in it, and the tests it
//! names exist.

use std::collections::BTreeSet;
use std::path::Path;

/// Statements of MQTT 5.0 that concern a server, by section.
const VERSION_5: &str = "
    1.5.4: 1-3; 1.5.5: 1; 1.5.7: 1; 2.1.3: 1; 2.2.1: 2-6; 2.2.2: 1
    3.1.0: 1-2; 3.1.2: 1-19 22-29; 3.1.3: 1-12; 3.1.4: 1-6; 3.2.0: 1-2; 3.2.2: 1-3 6-10 12-13 16 19-20 22
    3.3.1: 1-13; 3.3.2: 1-8 11-20; 3.3.4: 1-7 9-10; 3.4.2: 1-3; 3.5.2: 1-3; 3.6.1: 1; 3.6.2: 1-3; 3.7.2: 1-3
    3.8.1: 1; 3.8.3: 1-5; 3.8.4: 1-8; 3.9.2: 1-2; 3.9.3: 1-2; 3.10.1: 1; 3.10.3: 1-2; 3.10.4: 1-6
    3.11.2: 1-2; 3.11.3: 1-2; 3.12.4: 1; 3.14.0: 1; 3.14.1: 1; 3.14.2: 1-4; 3.14.4: 1-3; 3.15.1: 1; 3.15.2: 1-3
    4.1.0: 1-2; 4.2.0: 1; 4.3.1: 1; 4.3.2: 1-5; 4.3.3: 1-13; 4.4.0: 1-2; 4.5.0: 1; 4.6.0: 1-6; 4.7.0: 1
    4.7.1: 1-2; 4.7.2: 1; 4.7.3: 1-4; 4.8.2: 1-6; 4.9.0: 1-3; 4.12.0: 1-2 4-7; 4.12.1: 1-2; 4.13.1: 1; 4.13.2: 1
    6.0.0: 1-2 4";

/// The same for MQTT 3.1.1.
const VERSION_3: &str = "
    1.5.3: 1-3; 2.2.2: 1-2; 2.3.1: 1 4-7; 3.1.0: 1-2; 3.1.2: 1-22 24; 3.1.3: 1-6 8-11; 3.1.4: 1-5; 3.2.0: 1
    3.2.2: 1-6; 3.3.1: 1-12; 3.3.2: 1-3; 3.3.4: 1; 3.3.5: 1-2; 3.6.1: 1; 3.8.1: 1; 3.8.3: 1-4; 3.8.4: 1-6
    3.9.3: 1-2; 3.10.1: 1; 3.10.3: 1-2; 3.10.4: 1-6; 3.12.4: 1; 3.14.1: 1; 3.14.4: 3; 4.1.0: 1-2; 4.3.1: 1
    4.3.2: 1-2; 4.3.3: 1-2; 4.4.0: 1; 4.5.0: 1; 4.6.0: 1 5-6; 4.7.1: 1-3; 4.7.2: 1; 4.7.3: 1-4; 4.8.0: 1-2
    6.0.0: 1-2 4";

fn listed(sections: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for section in sections.split([';', '\n']).map(str::trim).filter(|section| !section.is_empty()) {
        let (section, numbers) = section.split_once(": ").unwrap();
        for range in numbers.split(' ') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for number in first.parse::<u32>().unwrap()..=last.parse().unwrap() {
                all.insert(format!("{section}-{number}"));
            }
        }
    }
    all
}

/// `3.1.2-4, -5, 3.3.2-1 to 3.3.2-3` in full.
fn numbers(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut section = String::new();
    for range in text.split(", ").filter(|range| !range.is_empty()) {
        let mut number = |text: &str| {
            let (before, number) = text.rsplit_once('-').unwrap();
            if !before.is_empty() {
                before.clone_into(&mut section);
            }
            number.parse::<u32>().unwrap()
        };
        let (first, last) = range.split_once(" to ").unwrap_or((range, range));
        let (first, last) = (number(first), number(last));
        all.extend((first..=last).map(|number| format!("{section}-{number}")));
    }
    all
}

/// The rows' first and last cells.
fn table() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mqtt.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Normative statements").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [statements, _, _, tests] = cells[..] else { panic!("four cells: {row}") };
        (statements.trim_start_matches("| ").to_owned(), tests.trim_end_matches(" |").to_owned())
    })
    .collect()
}

#[test]
fn every_statement_that_concerns_a_server_is_in_the_table() {
    let (mut version_5, mut version_3) = (BTreeSet::new(), BTreeSet::new());
    for (statements, _) in table() {
        let (five, three) = statements.split_once('(').unwrap_or((&statements, ""));
        version_5.extend(numbers(five.trim()));
        version_3.extend(numbers(three.trim_end_matches(')')));
    }
    let missing =
        |all: &str, got: &BTreeSet<String>| -> Vec<String> { listed(all).difference(got).cloned().collect() };
    assert!(missing(VERSION_5, &version_5).is_empty(), "{:?}", missing(VERSION_5, &version_5));
    // Where both standards have the same number for the same rule it is written once.
    version_3.extend(version_5);
    assert!(missing(VERSION_3, &version_3).is_empty(), "{:?}", missing(VERSION_3, &version_3));
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for (statements, tests) in table() {
        let mut source = String::new();
        for (index, part) in tests.split('`').enumerate() {
            if index % 2 == 0 {
                let module = part.trim_matches([',', ' ']);
                let path = match module {
                    "" => continue,
                    "codec" | "protocol" => format!("src/{module}/tests.rs"),
                    "websocket crate" => "../websocket/src/assembler/tests.rs".to_owned(),
                    module => format!("tests/mqtt/{module}.rs"),
                };
                source = std::fs::read_to_string(root.join(&path)).expect(&path);
            } else if part.ends_with(".rs") {
                assert!(root.join(part).is_file(), "{statements}: {part}");
            } else {
                assert!(source.contains(&format!("fn {part}(")), "{statements}: there is no {part}");
                named += 1;
            }
        }
    }
    assert!(named > 100, "{named}");
}
