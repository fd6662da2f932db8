//! What ARCHITECTURE.md says of the source is so: its arrows between rooms, its files and its types.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../ARCHITECTURE.md");

/// Types of other crates that the page speaks of.
const FOREIGN: &[&str] = &["Arc", "EventSource", "Instant", "OnceLock", "Vec", "WebSocketContext", "Weak"];

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose name ends so.
pub(crate) fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !matches!(name, "target" | "node_modules" | ".git" | ".cache") {
                    folders.push(path);
                }
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// The part of a source before its tests.
pub(crate) fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// Which room of a crate uses which, by the `use crate::` lines of its files. A room is a folder or a file beside
/// `lib.rs`; of a folder below `src/` it is a folder or a file beside `mod.rs`, and the lines are `use super::`, in what lies
/// deeper `use crate::` with the folder's name.
fn arrows(source: &Path) -> Arrows {
    let folder = source.iter().skip_while(|part| *part != "src").skip(1);
    let deeper = folder.fold("use crate::".to_owned(), |path, part| path + &part.to_string_lossy() + "::");
    let mut arrows = Arrows::new();
    for file in files(source, ".rs") {
        let relative = file.strip_prefix(source).expect("below");
        let first = relative.components().next().expect("a name").as_os_str().to_str().expect("plain");
        let room = first.trim_end_matches(".rs");
        if matches!(room, "lib" | "mod" | "fuzzing") || relative.ends_with("tests.rs") {
            continue;
        }
        let is_deeper = relative.components().count() > 1 && !relative.ends_with(format!("{room}/mod.rs"));
        let within = if source.ends_with("src") || is_deeper { &*deeper } else { "use super::" };
        let text = std::fs::read_to_string(&file).expect("a source");
        for line in without_tests(&text).lines() {
            let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let Some(path) = line.strip_prefix(within) else { continue };
            let used = path.split(['{', ':', ';']).next().unwrap_or_default();
            assert!(!used.is_empty(), "{}: a line for each room, please: {line}", file.display());
            if used != room {
                arrows.entry(room.to_owned()).or_default().insert(used.to_owned());
            }
        }
    }
    arrows
}

/// The blocks of the page that list the arrows of a crate, or of a folder in one.
fn listed() -> Vec<(&'static str, Arrows)> {
    let blocks = PAGE.split("```text arrows ").skip(1);
    let parse = |block: &'static str| {
        let (name, rest) = block.split_once('\n').expect("a name");
        let lines = rest.split("```").next().expect("an end").lines();
        let arrow = |line: &str| {
            let (from, to) = line.split_once('→').expect("an arrow");
            (from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect())
        };
        (name.trim(), lines.map(arrow).collect())
    };
    blocks.map(parse).collect()
}

/// A room from which one comes back to it.
fn circle(arrows: &Arrows) -> Option<Vec<&str>> {
    fn walk<'a>(
        arrows: &'a Arrows,
        room: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if way.contains(&room) {
            way.push(room);
            return true;
        }
        if !done.insert(room) {
            return false;
        }
        way.push(room);
        let next = arrows.get(room).into_iter().flatten();
        if next.map(String::as_str).any(|room| walk(arrows, room, way, done)) {
            return true;
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|room| {
        let mut way = Vec::new();
        walk(arrows, room, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn the_arrows_between_rooms_are_those_of_the_page() {
    let listed = listed();
    assert!(listed.iter().any(|(name, _)| *name == "broker-core"), "the core's arrows stand on the page");
    for (name, listed) in listed {
        let source = root().join(name);
        let found = arrows(&if name.contains('/') { source } else { source.join("src") });
        assert!(!found.is_empty(), "{name} has rooms");
        for (from, to) in &found {
            let known = listed.get(from);
            let new: Vec<_> =
                to.iter().filter(|room| !known.is_some_and(|known| known.contains(*room))).collect();
            assert!(new.is_empty(), "{name}: ARCHITECTURE.md has no arrow from {from} to {new:?}");
        }
        for (from, to) in &listed {
            let gone: Vec<_> = to
                .iter()
                .filter(|room| !found.get(from).is_some_and(|found| found.contains(*room)))
                .collect();
            assert!(
                gone.is_empty(),
                "{name}: ARCHITECTURE.md has an arrow from {from} to {gone:?}, the source none"
            );
        }
        assert_eq!(circle(&found), None, "{name}: rooms in a circle");
    }
}

#[test]
fn a_circle_is_found() {
    let arrows = |pairs: &[(&str, &[&str])]| -> Arrows {
        let rooms = |rooms: &[&str]| rooms.iter().map(|room| (*room).to_owned()).collect();
        pairs.iter().map(|(from, to)| ((*from).to_owned(), rooms(to))).collect()
    };
    assert_eq!(circle(&arrows(&[("a", &["b", "c"]), ("b", &["c"]), ("d", &["a"])])), None);
    assert!(circle(&arrows(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"])])).is_some());
}

/// What stands between single backticks, code blocks aside.
fn quoted() -> Vec<&'static str> {
    let prose = PAGE.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_file_that_the_page_names_is_there() {
    let all: Vec<String> = files(root(), "")
        .into_iter()
        .map(|path| format!("/{}", path.strip_prefix(root()).expect("below").to_str().expect("plain")))
        .collect();
    let mut looked_at = 0;
    for text in quoted() {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        let is_file = [".rs", ".toml", ".md", ".sh", ".py"].iter().any(|end| text.ends_with(end));
        // A slash at the end, or a path with one inside; `/readyz` is a request's.
        let is_path = text.ends_with('/') || text.contains('/') && !text.starts_with('/') && text.is_ascii();
        if !plain || !(is_file || is_path) {
            continue;
        }
        looked_at += 1;
        let (end, inside) = (format!("/{text}"), format!("/{}/", text.trim_end_matches('/')));
        let known = all.iter().any(|path| path.ends_with(&end) || path.contains(&inside));
        assert!(known, "ARCHITECTURE.md names `{text}`, which is not there");
    }
    assert!(looked_at > 30, "{looked_at}");
}

#[test]
fn every_type_that_the_page_names_is_there() {
    let mut sources = String::new();
    for file in files(root(), ".rs") {
        sources.push_str(&std::fs::read_to_string(file).expect("a source"));
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let kinds = ["struct", "enum", "trait", "type", "const", "static", "fn"];
    // Every word, and those that are defined: behind one of `kinds`, or at the first level of an enum.
    let (mut words, mut defined) = (HashSet::new(), HashSet::new());
    for line in sources.lines() {
        let mut last = "";
        for word in line.split(|c| !is_word(c)).filter(|word| !word.is_empty()) {
            words.insert(word);
            if kinds.contains(&last) {
                defined.insert(word);
            }
            last = word;
        }
        if let Some(variant) = line.strip_prefix("    ") {
            let (name, end) = variant.split_at(variant.find(|c| !is_word(c)).unwrap_or(variant.len()));
            if [",", "(", " {"].iter().any(|known| end.starts_with(known)) {
                defined.insert(name);
            }
        }
    }
    let defined = |name: &str| defined.contains(name);
    let mut looked_at = 0;
    for text in quoted() {
        let path = text.trim_end_matches("()").trim_end_matches('s');
        let is_type = text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
            && text.bytes().any(|byte| byte.is_ascii_lowercase());
        if !is_type {
            continue;
        }
        looked_at += 1;
        let mut names = text.split("::");
        let first = names.next().unwrap_or_default();
        let known = defined(first) || FOREIGN.contains(&first) || defined(path);
        assert!(known, "ARCHITECTURE.md names the type `{text}`, which is not there");
        for name in names {
            assert!(words.contains(name), "ARCHITECTURE.md names `{text}`, and `{name}` is nowhere");
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}
