//! Which route a message takes.

use std::str::FromStr;

use serde_json::Value;

/// A route selection expression: `$request.body.action`, `${request.body.a.b}`, and text around several of the second
/// form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body(Vec<String>),
}

/// A text that is no route selection expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no route selection expression such as \"$request.body.action\" or \"${{request.body.a.b}}\"")]
pub struct NoSelection;

const BODY: &str = "request.body.";

/// Names of members between dots.
fn path(text: &str) -> Option<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
    let names = text.strip_prefix(BODY)?.split('.');
    names.map(|name| (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())).collect()
}

impl FromStr for Selection {
    type Err = NoSelection;

    fn from_str(text: &str) -> Result<Self, NoSelection> {
        if let Some(whole) = text.strip_prefix('$').filter(|rest| rest.starts_with(BODY)) {
            return path(whole).map(|path| Self(vec![Piece::Body(path)])).ok_or(NoSelection);
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, behind) = after.split_once('}').ok_or(NoSelection)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Body(path(inside).ok_or(NoSelection)?));
            rest = behind;
        }
        if pieces.is_empty() || text.replace("${", "").contains('$') {
            return Err(NoSelection);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

impl Selection {
    /// What a message says; `None` if it is no JSON, or a member is missing or no text.
    pub fn evaluate(&self, body: &str) -> Option<String> {
        let body: Value = serde_json::from_str(body).ok()?;
        let mut result = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => result.push_str(text),
                Piece::Body(path) => {
                    let found = path.iter().try_fold(&body, |value, name| value.get(name.as_str()))?;
                    result.push_str(found.as_str()?);
                }
            }
        }
        (!result.is_empty()).then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_and_evaluated() {
        for (expression, body, expected) in [
            ("$request.body.action", r#"{"action":"send"}"#, Some("send")),
            ("$request.body.a.b", r#"{"a":{"b":"x"}}"#, Some("x")),
            ("${request.body.a.b}", r#"{"a":{"b":"x"}}"#, Some("x")),
            (
                "${request.body.service}/${request.body.action}",
                r#"{"service":"s","action":"a"}"#,
                Some("s/a"),
            ),
            ("v1-${request.body.action}!", r#"{"action":"a"}"#, Some("v1-a!")),
            ("$request.body.action", r#"{"action":""}"#, None),
            ("$request.body.action", r#"{"action":7}"#, None),
            ("$request.body.action", r#"{"action":{"action":"x"}}"#, None),
            ("$request.body.action", r#"["action"]"#, None),
            ("$request.body.action", r#""action""#, None),
            ("$request.body.action", "hello", None),
            ("$request.body.action", "", None),
            ("${request.body.a}/${request.body.b}", r#"{"a":"x"}"#, None),
        ] {
            let selection: Selection = expression.parse().unwrap();
            assert_eq!(selection.evaluate(body).as_deref(), expected, "{expression} {body}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "",
            "action",
            "$request.body.",
            "$request.body.a..b",
            "$request.header.action",
            "${request.body.action",
            "${request.body.}",
            "${action}",
            "$request.body.a b",
            "$context.routeKey",
            "$",
        ] {
            assert_eq!(text.parse::<Selection>(), Err(NoSelection), "{text}");
        }
    }

    #[test]
    fn a_deep_message_needs_no_stack() {
        let selection: Selection = "$request.body.action".parse().unwrap();
        assert_eq!(selection.evaluate(&"[".repeat(100_000)), None);
        assert_eq!(selection.evaluate(&r#"{"a":"#.repeat(100_000)), None);
    }
}
