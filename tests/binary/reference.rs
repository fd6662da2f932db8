//! `docs/api.md` is written from the OpenAPI description, which the tests of front-http hold to the code.
//!
//! `FANWIRE_WRITE_DOCS=1 cargo nextest run -p fanwire -E 'test(the_reference)'` writes it anew.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const MARKS: (&str, &str) =
    ("<!-- written from the description: begin -->\n", "<!-- written from the description: end -->\n");

fn description() -> Value {
    serde_json::from_str(include_str!("../../front-http/src/openapi.json")).expect("the description is JSON")
}

/// The members of an object by name: whether a map keeps their order is a feature that any crate may turn on.
fn members<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let all: BTreeMap<_, _> = value.get(key).and_then(Value::as_object).into_iter().flatten().collect();
    all.into_iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `Published` of `#/components/schemas/Published`.
fn referred(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()?.rsplit('/').next()
}

/// What of a schema is said in the table of another one: a name with a link, or the kind of value with its bounds.
fn kind(schema: &Value) -> String {
    if let Some(name) = referred(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for all in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(all).and_then(Value::as_array) {
            let kinds: Vec<_> = choices.iter().map(kind).collect();
            return kinds.join(" or ");
        }
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(" ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let mut said = match schema.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => "any JSON".to_owned(),
    };
    if let Some(items) = schema.get("items") {
        let _ = write!(said, " of {}", kind(items));
    }
    if said == "object" {
        let names: Vec<_> = members(schema, "properties").map(|(name, _)| format!("`{name}`")).collect();
        if !names.is_empty() {
            let _ = write!(said, " of {}", names.join(", "));
        }
    }
    for (key, words) in [
        ("format", ", "),
        ("contentEncoding", ", "),
        ("minimum", ", at least "),
        ("maximum", ", at most "),
        ("minItems", ", items at least "),
        ("maxItems", ", items at most "),
        ("maxLength", ", characters at most "),
        ("default", "; default "),
    ] {
        match schema.get(key) {
            Some(Value::String(value)) => _ = write!(said, "{words}{value}"),
            Some(value) => _ = write!(said, "{words}{value}"),
            None => {}
        }
    }
    said
}

/// Text for a cell: a bar would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn operation(out: &mut String, method: &str, path: &str, said: &Value) {
    let _ = writeln!(out, "\n### `{} {path}`\n\n{}.", method.to_uppercase(), text(said, "summary"));
    if let Some(more) = said.get("description").and_then(Value::as_str) {
        let _ = writeln!(out, "{more}.");
    }
    let parameters = said.get("parameters").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        out.push_str("\n| parameter | in | value | what it is |\n| --- | --- | --- | --- |\n");
        for one in parameters {
            let (name, place) = (text(one, "name"), text(one, "in"));
            let (value, what) = (kind(&one["schema"]), text(one, "description"));
            let _ = writeln!(out, "| `{name}` | {place} | {} | {} |", cell(&value), cell(what));
        }
    }
    let mut bodies = members(&said["requestBody"], "content").peekable();
    if bodies.peek().is_some() {
        let each = bodies.map(|(media, body)| match &body["schema"] {
            Value::Object(schema) if schema.is_empty() => format!("`{media}`, any bytes"),
            schema => format!("`{media}`: {}", kind(schema)),
        });
        let _ = writeln!(out, "\nBody: {}.", each.collect::<Vec<_>>().join("; "));
    }
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for (status, answer) in members(said, "responses") {
        if let Some(name) = referred(answer) {
            problems.push(format!("[{status}](#{})", name.to_lowercase()));
            continue;
        }
        let medias: Vec<_> = members(answer, "content")
            .map(|(media, body)| match body.get("schema") {
                Some(schema) => format!("`{media}`: {}", kind(schema)),
                None => format!("`{media}`"),
            })
            .collect();
        let medias = if medias.is_empty() { String::new() } else { format!(" ({})", medias.join("; ")) };
        good.push(format!("**{status}** {}{medias}", text(answer, "description")));
    }
    let _ = writeln!(out, "\nAnswers: {}.", good.join("; "));
    if !problems.is_empty() {
        let _ = writeln!(out, "Problems: {}.", problems.join(", "));
    }
}

fn schema(out: &mut String, name: &str, said: &Value) {
    let _ = writeln!(out, "\n### {name}\n");
    if let Some(more) = said.get("description").and_then(Value::as_str) {
        let _ = writeln!(out, "{more}.\n");
    }
    if said.get("properties").is_none() {
        let _ = writeln!(out, "{}", kind(said));
        return;
    }
    let always: Vec<_> = said
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    out.push_str("| member | value | what it is |\n| --- | --- | --- |\n");
    for (member, of) in members(said, "properties") {
        let value = kind(of) + if always.contains(&member.as_str()) { "" } else { " (may be left out)" };
        let _ = writeln!(out, "| `{member}` | {} | {} |", cell(&value), cell(text(of, "description")));
    }
}

fn reference() -> String {
    let description = description();
    let mut out = String::from("\n## Requests\n");
    for (path, _) in members(&description, "paths") {
        let methods = members(&description["paths"], path).filter(|(name, _)| !name.starts_with("x-"));
        for (method, said) in methods {
            operation(&mut out, method, path, said);
        }
    }
    out.push_str("\n## Problems\n\n| status | what it is |\n| --- | --- |\n");
    for (name, said) in members(&description["components"], "responses") {
        let status = name.trim_start_matches("Problem");
        let anchor = name.to_lowercase();
        let _ = writeln!(out, "| <a id=\"{anchor}\"></a>{status} | {} |", cell(text(said, "description")));
    }
    out.push_str("\n## Values\n");
    for (name, said) in members(&description["components"], "schemas") {
        schema(&mut out, name, said);
    }
    out.push('\n');
    out
}

#[test]
fn the_reference_is_what_the_description_says() {
    let written = reference();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(MARKS.0).expect("where the reference begins");
    let (found, after) = rest.split_once(MARKS.1).expect("where the reference ends");
    if std::env::var_os("FANWIRE_WRITE_DOCS").is_some() {
        let (begin, end) = MARKS;
        std::fs::write(&path, format!("{before}{begin}{written}{end}{after}")).expect("written");
        return;
    }
    assert_eq!(found, written, "the head of tests/binary/reference.rs says how to write it anew");
}
