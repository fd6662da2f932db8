//! What the pages say of defaults is what the code has: each such figure stands here with the key that it comes from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// The pages, but for `docs/configuration.md`, whose rows have a test of their own.
const PAGES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../README.md")),
    ("ARCHITECTURE.md", include_str!("../../ARCHITECTURE.md")),
    ("docs/bayeux.md", include_str!("../../docs/bayeux.md")),
    ("docs/http.md", include_str!("../../docs/http.md")),
    ("docs/mqtt.md", include_str!("../../docs/mqtt.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
    ("docs/recipes.md", include_str!("../../docs/recipes.md")),
    ("docs/rights.md", include_str!("../../docs/rights.md")),
    ("docs/sse.md", include_str!("../../docs/sse.md")),
];

/// The same with each paragraph and item on one line, as it was before it was wrapped: a claim may go over lines.
fn pages() -> Vec<(&'static str, String)> {
    PAGES.iter().map(|(name, page)| (*name, unwrapped(page))).collect()
}

fn unwrapped(page: &str) -> String {
    let mut joined = String::with_capacity(page.len());
    let (mut is_code, mut goes_on) = (false, false);
    for line in page.lines() {
        let text = line.trim_start();
        let is_item = text.starts_with("- ")
            || text.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        let is_prose = !is_code
            && !text.is_empty()
            && !text.starts_with(['|', '#', '<', '>'])
            && !text.starts_with("```");
        if goes_on && is_prose && !is_item {
            joined.truncate(joined.trim_end().len());
            joined.push(' ');
            joined.push_str(text);
        } else {
            joined.push_str(line);
        }
        joined.push('\n');
        is_code ^= text.starts_with("```");
        goes_on = is_prose;
    }
    joined
}

/// A page, and a piece of it in which every `{key}` stands for a figure.
const CLAIMS: &[(&str, &str)] = &include!("claims.in");

/// What has no key: a constant of the code, under a name of its own.
fn constants() -> Vec<(&'static str, Value)> {
    let in_process = broker_core::SubscribeOptions::default().outbox;
    vec![
        ("envelope.MAX_DEPTH", Value::Count(envelope::MAX_DEPTH as u64)),
        ("http_edge.DEFAULT_BODY_STALL", Value::Time(http_edge::DEFAULT_BODY_STALL)),
        ("link.STALL_LIMIT", Value::Time(link::STALL_LIMIT)),
        ("server.RESERVED_DESCRIPTORS", Value::Count(fanwire::Config::RESERVED_DESCRIPTORS as u64)),
        ("in_process.max_messages", Value::Count(in_process.max_messages as u64)),
        ("mqtt.MAX_LEFT_PUBLISHES", Value::Count(fanwire::mqtt::Front::MAX_LEFT_PUBLISHES as u64)),
        ("in_process.max_bytes", Value::Bytes(in_process.max_bytes as u64)),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Count(u64),
    Bytes(u64),
    Time(Duration),
    Text(String),
    NotSet,
}

/// As a page writes it, or as a default is written in a configuration.
fn parse(text: &str) -> Value {
    let text = text.trim().trim_matches(['"', '`']);
    if matches!(text, "none" | "not set" | "") {
        return Value::NotSet;
    }
    let plain = text.replace(',', "");
    if let Ok(count) = plain.parse() {
        return Value::Count(count);
    }
    if let Some(count) = plain.strip_suffix(" million").and_then(|count| count.parse::<u64>().ok()) {
        return Value::Count(count * 1_000_000);
    }
    for (unit, bytes) in [(" KiB", 1 << 10), (" MiB", 1 << 20), (" GiB", 1 << 30), (" bytes", 1)] {
        if let Some(count) = plain.strip_suffix(unit).and_then(|count| count.parse::<u64>().ok()) {
            return Value::Bytes(count * bytes);
        }
    }
    let spelled = plain.replace(" minutes", "m").replace(" seconds", "s").replace(" hours", "h");
    match humantime::parse_duration(&spelled) {
        Ok(time) => Value::Time(time),
        Err(_) => Value::Text(text.to_owned()),
    }
}

fn values() -> BTreeMap<String, Value> {
    let keys = fanwire::keys();
    let keyed = keys.iter().map(|key| {
        let value = key.default.as_deref().map_or(Value::NotSet, parse);
        (key.name.clone(), value)
    });
    let named = constants().into_iter().map(|(name, value)| (name.to_owned(), value));
    keyed.chain(named).collect()
}

/// Where a claim stands on its page, once it was found true.
fn check(page: &str, claim: &str, values: &BTreeMap<String, Value>) -> Result<Range<usize>, String> {
    let mut pieces = claim.split(['{', '}']);
    let first = pieces.next().unwrap_or_default();
    let start = page.find(first).ok_or_else(|| format!("does not say {first:?}"))?;
    let mut at = start + first.len();
    while let (Some(key), Some(literal)) = (pieces.next(), pieces.next()) {
        let value = values.get(key).ok_or_else(|| format!("there is no key {key:?}"))?;
        let end = if literal.is_empty() { page[at..].find('\n') } else { page[at..].find(literal) };
        let end = at + end.ok_or_else(|| format!("does not go on with {literal:?}"))?;
        let said = &page[at..end];
        // A size of bytes may be a bare number in a configuration.
        let same = match (parse(said), value) {
            (Value::Bytes(said), Value::Count(value)) => said == *value,
            (said, value) => said == *value,
        };
        if !same {
            return Err(format!("says {said:?}, and {key} is {value:?}"));
        }
        at = end + literal.len();
    }
    Ok(start..at)
}

#[test]
fn what_the_pages_say_of_defaults_is_what_the_code_has() {
    let values = values();
    let mut wrong = Vec::new();
    let pages = pages();
    let mut checked: BTreeMap<&str, Vec<Range<usize>>> = BTreeMap::new();
    for (name, claim) in CLAIMS {
        let page = &pages.iter().find(|(page, _)| page == name).expect("a page").1;
        match check(page, claim, &values) {
            Ok(range) => checked.entry(name).or_default().push(range),
            Err(why) => wrong.push(format!("{name} {why}\n  in the claim {claim:?}")),
        }
    }
    for (name, page) in &pages {
        let known = checked.get(*name).map_or(&[][..], Vec::as_slice);
        for range in figures(page) {
            if !known.iter().any(|claim| claim.start < range.end && range.start < claim.end) {
                wrong.push(format!("{name}: no claim checks the default in\n  {}", &page[range]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines that state a default as a figure: rows of tables with a column *default* or *bound*, and prose that says
/// so.
fn figures(page: &str) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let (mut at, mut column, mut is_code) = (0, None, false);
    for line in page.split_inclusive('\n') {
        let range = at..at + line.trim_end().len();
        at += line.len();
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            continue;
        }
        let has_digit = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
        let Some(row) = line.strip_prefix('|') else {
            column = None;
            let says =
                line.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|word| word == "default");
            if says && has_digit(&line.replace("default-features", "")) {
                lines.push(range);
            }
            continue;
        };
        let mut cells = row.split('|').map(str::trim);
        if let Some(found) = cells.clone().position(|cell| matches!(cell, "default" | "bound")) {
            column = Some(found);
        } else if column.and_then(|column| cells.nth(column)).is_some_and(has_digit) {
            lines.push(range);
        }
    }
    lines
}
