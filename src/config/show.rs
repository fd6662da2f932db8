//! A configuration as it would be written into a file.

use std::fmt::Write as _;

use figment::value::{Dict, Empty, Value};

/// Keys that are secrets themselves.
const SECRETS: [&str; 3] = ["password", "sig_key", "token"];

/// The text of a file that sets every key to its value. What differs from its default says so; a key that is not set,
/// and lists of tables (keys, users, issuers: there are secrets among them), stand as comments.
pub(super) fn show(settings: &Dict, defaults: &Dict) -> String {
    let mut text = String::new();
    table(&mut text, "", settings, Some(defaults));
    text
}

fn table(text: &mut String, path: &str, dict: &Dict, defaults: Option<&Dict>) {
    let default = |name: &str| defaults.and_then(|defaults| defaults.get(name));
    let is_table = |value: &&Value| matches!(value, Value::Dict(..));
    for (name, value) in dict.iter().filter(|(_, value)| !is_table(value)) {
        line(text, name, value, default(name));
    }
    for (name, value) in dict {
        let Value::Dict(_, inner) = value else { continue };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if inner.values().any(|value| !matches!(value, Value::Dict(..))) {
            let _ = writeln!(text, "\n[{path}]");
        }
        table(text, &path, inner, default(name).and_then(Value::as_dict));
    }
}

fn line(text: &mut String, name: &str, value: &Value, default: Option<&Value>) {
    let _ = match (written(value), default.map(written)) {
        (Written::Unset, _) => writeln!(text, "# {name} is not set"),
        (Written::As(_), _) if SECRETS.contains(&name) => writeln!(text, "# {name} is set, and not shown"),
        (Written::Tables(0), _) => writeln!(text, "{name} = []"),
        (Written::Tables(count), _) => writeln!(text, "# {name} has {count} entries, which are not shown"),
        (Written::As(value), Some(Written::As(default))) if value != default => {
            writeln!(text, "{name} = {value}    # default: {default}")
        }
        (Written::As(value), Some(Written::Unset)) => {
            writeln!(text, "{name} = {value}    # not set by default")
        }
        (Written::As(value), _) => writeln!(text, "{name} = {value}"),
    };
}

enum Written {
    As(String),
    Unset,
    Tables(usize),
}

fn written(value: &Value) -> Written {
    match value {
        Value::Empty(_, Empty::None | Empty::Unit) => Written::Unset,
        Value::Array(_, values) if values.iter().any(|value| matches!(value, Value::Dict(..))) => {
            Written::Tables(values.len())
        }
        // A table is no line.
        Value::Dict(..) => Written::Tables(1),
        value => Written::As(plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, char) => quoted(char.encode_utf8(&mut [0; 4])),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => format!("{:?}", number.to_f64().unwrap_or_default()),
        },
        Value::Array(_, values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Empty(..) | Value::Dict(..) => String::new(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn dict(text: &str) -> Dict {
        Toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_shown_reads_as_it_was() {
        let text = "a = 1\nb = \"x\\\"\\\\\\u0001\"\n[s]\nc = [\"y\", \"z\"]\nd = -1.5\n[s.t.u]\ne = true\n";
        let all = dict(text);
        let shown = show(&all, &all);
        assert_eq!(dict(&shown), all, "{shown}");
    }

    #[test]
    fn what_differs_says_so_and_secrets_are_counted() {
        let all = dict("a = 2\n[[keys]]\nhash = \"secret\"\n[[keys]]\nhash = \"secret\"\n");
        let mut defaults = dict("a = 1\nkeys = []\n");
        assert_eq!(
            show(&all, &defaults),
            "a = 2    # default: 1\n# keys has 2 entries, which are not shown\n"
        );
        defaults.insert("a".to_owned(), Value::from(Empty::None));
        assert_eq!(show(&defaults, &defaults), "# a is not set\nkeys = []\n");
        let secret = dict("sig_key = \"secret\"\n");
        assert_eq!(show(&secret, &secret), "# sig_key is set, and not shown\n");
        assert!(show(&all, &defaults).starts_with("a = 2    # not set by default\n"));
    }
}
