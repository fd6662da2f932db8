//! What an authorizer answers: who it is, and whether it may connect.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// Largest answer of an authorizer, in bytes, as AWS has it.
pub const MAX_BYTES: usize = 8 * 1024;

/// The action that a policy has to allow.
const INVOKE: &str = "execute-api:Invoke";

/// An answer that says who it is. Whether the client may connect is another question: [`Grant::allows`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Who it is: the broker's user.
    pub principal_id: String,
    /// What the authorizer says to later events; all values are texts.
    pub context: BTreeMap<String, String>,
    statements: Vec<Statement>,
    expires_at_ms: Option<u64>,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadGrant {
    /// Not JSON, not an object, or a member is of another type, or of one that is not supported, such as `Condition`.
    #[error("the authorizer's answer cannot be read: {0}")]
    Malformed(String),
    /// It says nobody.
    #[error("the authorizer's answer has no principalId")]
    NoPrincipal,
    /// It has no policy.
    #[error("the authorizer's answer has no policyDocument")]
    NoPolicy,
    /// A value of the context is an object or an array.
    #[error("`{0}` in the authorizer's context is neither text, number nor boolean")]
    Nested(String),
    /// `expiresAt` in the context is no time.
    #[error("`expiresAt` in the authorizer's context is no number of seconds since 1970: {0:?}")]
    NoTime(String),
    /// It is larger than it may be.
    #[error("the authorizer's answer has more than {MAX_BYTES} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    principal_id: Option<Value>,
    policy_document: Option<Document>,
    context: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    statement: OneOrMore<Statement>,
}

/// What is not listed would change what it means, so it is refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid", default)]
    _sid: Unread,
    effect: Effect,
    action: OneOrMore<String>,
    resource: OneOrMore<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// A member that says nothing to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Unread)
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

impl Grant {
    /// Reads an answer.
    ///
    /// # Errors
    /// See [`BadGrant`].
    pub fn parse(answer: &[u8]) -> Result<Self, BadGrant> {
        if answer.len() > MAX_BYTES {
            return Err(BadGrant::TooLarge);
        }
        if !answer.trim_ascii_start().starts_with(b"{") {
            return Err(BadGrant::Malformed("it is no JSON object".to_owned()));
        }
        let written: Written =
            serde_json::from_slice(answer).map_err(|error| BadGrant::Malformed(error.to_string()))?;
        let Some(Value::String(principal_id)) = written.principal_id else {
            return Err(BadGrant::NoPrincipal);
        };
        if principal_id.is_empty() {
            return Err(BadGrant::NoPrincipal);
        }
        let Document { statement } = written.policy_document.ok_or(BadGrant::NoPolicy)?;
        let mut context = BTreeMap::new();
        for (name, value) in written.context.unwrap_or_default() {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Null => continue,
                Value::Array(_) | Value::Object(_) => return Err(BadGrant::Nested(name)),
            };
            context.insert(name, value);
        }
        // What cannot be read would let it stay for ever, which its authorizer has not said.
        let end = |text: &String| milliseconds(text).ok_or_else(|| BadGrant::NoTime(text.clone()));
        let expires_at_ms = context.get("expiresAt").map(end).transpose()?;
        let statements = statement.all().to_vec();
        Ok(Self { principal_id, context, statements, expires_at_ms })
    }

    /// Whether its policy allows to invoke `arn`: some statement does, and none denies it.
    pub fn allows(&self, arn: &str) -> bool {
        let mut allowed = false;
        for Statement { effect, action, resource, .. } in &self.statements {
            let acts = action
                .all()
                .iter()
                .any(|pattern| is_like(&pattern.to_ascii_lowercase(), &INVOKE.to_ascii_lowercase()));
            if acts && resource.all().iter().any(|pattern| is_like(pattern, arn)) {
                match effect {
                    Effect::Deny => return false,
                    Effect::Allow => allowed = true,
                }
            }
        }
        allowed
    }

    /// When it ends, in milliseconds since 1970, if its context says so (`expiresAt`, in seconds).
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }
}

/// Seconds since 1970, whole ones or not (Python's `time.time()` has a fraction), in milliseconds.
fn milliseconds(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.trim().parse().ok()?;
    // A time that is over is one, too. What is later than numbers go ends there.
    seconds.is_finite().then_some((seconds * 1_000.0).max(0.0) as u64)
}

/// Whether a text is like a pattern, in which `*` is any text and `?` any one character. Takes no more steps than both
/// are long, multiplied.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Behind the last `*`, and where what it stands for ends as yet.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, seen));
            }
            Some(b'?') => (at, seen) = (at + 1, seen + 1),
            Some(byte) if text.get(seen) == Some(byte) => (at, seen) = (at + 1, seen + 1),
            _ => {
                let Some((behind, end)) = star else { return false };
                star = Some((behind, end + 1));
                (at, seen) = (behind, end + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:execute-api:us-east-1:123456789012:chat/dev/$connect";

    fn grant(statements: &str) -> Result<Grant, BadGrant> {
        let answer =
            format!(r#"{{"principalId":"ann","policyDocument":{{"Version":"x","Statement":{statements}}}}}"#);
        Grant::parse(answer.as_bytes())
    }

    #[test]
    fn policies_are_evaluated_and_deny_wins() {
        let allow = |action: &str, resource: &str| {
            format!(r#"{{"Effect":"Allow","Action":{action},"Resource":{resource}}}"#)
        };
        let any = allow(r#""*""#, r#""*""#);
        let arn = format!("{ARN:?}");
        for (statements, allowed) in [
            (any.clone(), true),
            (allow(r#""execute-api:Invoke""#, &arn), true),
            (allow(r#""execute-api:*""#, &arn), true),
            (allow(r#"["s3:Get","EXECUTE-API:invoke"]"#, &format!("[\"a\",{arn}]")), true),
            (allow(r#""execute-api:ManageConnections""#, r#""*""#), false),
            (allow(r#""*""#, r#""arn:aws:execute-api:*:*:chat/*/$connect""#), true),
            (allow(r#""*""#, r#""arn:aws:execute-api:*:*:chat/d?v/*""#), true),
            (allow(r#""*""#, r#""arn:aws:execute-api:*:*:chat/d??v/*""#), false),
            (allow(r#""*""#, r#""arn:aws:execute-api:*:*:other/*""#), false),
            (format!("[{any}]"), true),
            ("[]".to_owned(), false),
            (format!(r#"[{any},{{"Sid":"1","Effect":"Deny","Action":"*","Resource":"*"}}]"#), false),
            (format!(r#"[{{"Effect":"Deny","Action":"*","Resource":"x"}},{any}]"#), true),
            (format!(r#"{{"Effect":"Deny","Action":"*","Resource":{arn}}}"#), false),
        ] {
            assert_eq!(grant(&statements).unwrap().allows(ARN), allowed, "{statements}");
        }
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for statements in [
            r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}"#,
            r#"{"Effect":"Allow","NotAction":"s3:*","Resource":"*"}"#,
            r#"{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}"#,
            r#"{"Effect":"allow","Action":"*","Resource":"*"}"#,
            r#"{"Effect":"Allow","Action":"*"}"#,
            r#"{"Effect":"Allow","Action":7,"Resource":"*"}"#,
            r#""*""#,
        ] {
            assert!(matches!(grant(statements), Err(BadGrant::Malformed(_))), "{statements}");
        }
        let policy = r#""policyDocument":{"Statement":[]}"#;
        for (answer, expected) in [
            (format!("{{{policy}}}"), BadGrant::NoPrincipal),
            (format!(r#"{{"principalId":null,{policy}}}"#), BadGrant::NoPrincipal),
            (format!(r#"{{"principalId":"",{policy}}}"#), BadGrant::NoPrincipal),
            (format!(r#"{{"principalId":7,{policy}}}"#), BadGrant::NoPrincipal),
            (r#"{"principalId":"a"}"#.to_owned(), BadGrant::NoPolicy),
            (
                format!(r#"{{"principalId":"a",{policy},"context":{{"x":{{}}}}}}"#),
                BadGrant::Nested("x".to_owned()),
            ),
            (
                format!(r#"{{"principalId":"a",{policy},"context":{{"x":[1]}}}}"#),
                BadGrant::Nested("x".to_owned()),
            ),
            (format!(r#"{{"principalId":"{}",{policy}}}"#, "a".repeat(MAX_BYTES)), BadGrant::TooLarge),
        ] {
            assert_eq!(Grant::parse(answer.as_bytes()), Err(expected), "{answer}");
        }
        for answer in ["", "null", "[]", "Task timed out", r#"{"principalId":"a","policyDocument":[]}"#] {
            assert!(matches!(Grant::parse(answer.as_bytes()), Err(BadGrant::Malformed(_))), "{answer}");
        }
    }

    #[test]
    fn what_the_context_says_becomes_text() {
        let answer = br#"{"principalId":"a","policyDocument":{"Statement":[]},
            "context":{"n":42,"f":1.5,"b":true,"s":"t","z":null,"expiresAt":1795989300}}"#;
        let grant = Grant::parse(answer).unwrap();
        let context: Vec<_> = grant.context.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            context,
            [("b", "true"), ("expiresAt", "1795989300"), ("f", "1.5"), ("n", "42"), ("s", "t")]
        );
        assert_eq!(grant.expires_at_ms(), Some(1_795_989_300_000));
    }

    #[test]
    fn an_end_is_in_seconds_with_or_without_a_fraction_and_nothing_else() {
        let grant = |end: &str| {
            let answer = format!(
                r#"{{"principalId":"a","policyDocument":{{"Statement":[]}},"context":{{"expiresAt":{end}}}}}"#
            );
            Grant::parse(answer.as_bytes()).map(|grant| grant.expires_at_ms())
        };
        for (end, expected) in [
            ("1795989300", Some(1_795_989_300_000)),
            ("1795989300.25", Some(1_795_989_300_250)),
            ("\"1795989300\"", Some(1_795_989_300_000)),
            ("0", Some(0)),
            ("-5", Some(0)),
            ("1e30", Some(u64::MAX)),
            ("null", None),
        ] {
            assert_eq!(grant(end), Ok(expected), "{end}");
        }
        for end in ["\"\"", "\"soon\"", "\"2026-11-30T10:00:00Z\"", "true", "\"NaN\"", "\"inf\""] {
            assert!(matches!(grant(end), Err(BadGrant::NoTime(_))), "{end}");
        }
    }

    #[test]
    fn patterns_match_in_few_steps() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("*a", "bba", true),
            ("a", "aa", false),
            ("**", "x", true),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!is_like(&"*a".repeat(2_000), &"a".repeat(1_999)));
    }
}
