//! Changes of a JSON document (RFC 6902), with bounds: operations that copy could make a document of any size out of a
//! small one, and of any depth.

use bytes::Bytes;
use json_patch::PatchOperation;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Problem;
use crate::json;

/// Most operations of one patch.
const MAX_OPERATIONS: usize = 1_000;
/// How deep a document may be.
const MAX_DEPTH: usize = 100;

/// Operations on a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch(json_patch::Patch);

/// Why a document could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// What is to be changed is no JSON.
    #[error("what is to be changed is not JSON")]
    NoDocument,
    /// An operation cannot be done with this document.
    #[error("{0}")]
    Operation(String),
    /// It would grow beyond its bounds.
    #[error("the document would become too large or too deep")]
    TooLarge,
}

impl Patch {
    pub(super) fn read(raw: &RawValue) -> Result<Self, Problem> {
        if !raw.get().starts_with('[') {
            return Err(Problem::Type("a list"));
        }
        let wrong = |error: serde_json::Error| Problem::Patch(json::shortened(&error.to_string()));
        let patch: json_patch::Patch = serde_json::from_str(raw.get()).map_err(wrong)?;
        if patch.0.len() > MAX_OPERATIONS {
            return Err(Problem::TooMany(MAX_OPERATIONS));
        }
        Ok(Self(patch))
    }

    /// The document with all operations done, of at most `max_bytes`.
    ///
    /// # Errors
    /// One of them cannot be done, and so none is.
    pub fn apply(&self, document: &[u8], max_bytes: usize) -> Result<Bytes, PatchError> {
        if document.len() > max_bytes {
            return Err(PatchError::TooLarge);
        }
        let mut changed: Value = serde_json::from_slice(document).map_err(|_| PatchError::NoDocument)?;
        let mut bytes = document.len();
        for operation in &self.0.0 {
            let (added, at) = match operation {
                PatchOperation::Add(add) => (Some(&add.value), Some(&add.path)),
                PatchOperation::Replace(replace) => (Some(&replace.value), Some(&replace.path)),
                PatchOperation::Copy(copy) => (changed.pointer(copy.from.as_str()), Some(&copy.path)),
                PatchOperation::Move(moved) => (changed.pointer(moved.from.as_str()), Some(&moved.path)),
                PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, None),
            };
            let levels = at.map_or(0, |path| path.as_str().matches('/').count());
            if let Some(added) = added {
                // What a move takes away is counted twice: that is the price of not looking at it again.
                let (added_bytes, depth) = measure(added);
                bytes += added_bytes + at.map_or(0, |path| path.as_str().len()) + 4;
                if bytes > max_bytes || depth + levels > MAX_DEPTH {
                    return Err(PatchError::TooLarge);
                }
            }
            json_patch::patch(&mut changed, std::slice::from_ref(operation))
                .map_err(|error| PatchError::Operation(error.to_string()))?;
        }
        Ok(changed.to_string().into())
    }
}

/// About how long a value is as text, and how deep.
fn measure(value: &Value) -> (usize, usize) {
    match value {
        Value::Null | Value::Bool(_) => (5, 0),
        Value::Number(number) => (number.to_string().len(), 0),
        Value::String(text) => (text.len() + 2, 0),
        Value::Array(list) => list
            .iter()
            .map(measure)
            .fold((2, 1), |(bytes, depth), (more, inner)| (bytes + more + 1, depth.max(inner + 1))),
        Value::Object(members) => members.iter().fold((2, 1), |(bytes, depth), (name, value)| {
            let (more, inner) = measure(value);
            (bytes + name.len() + more + 4, depth.max(inner + 1))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(text: &str) -> Result<Patch, Problem> {
        Patch::read(&RawValue::from_string(text.to_owned()).unwrap())
    }

    fn applied(document: &str, text: &str) -> Result<String, PatchError> {
        let changed = patch(text).unwrap().apply(document.as_bytes(), 1 << 20)?;
        Ok(String::from_utf8(changed.to_vec()).unwrap())
    }

    #[test]
    fn operations_change_a_document() {
        let text = r#"[{"op":"test","path":"/a","value":1},{"op":"replace","path":"/a","value":2},
            {"op":"add","path":"/b/-","value":{"c":null}},{"op":"copy","from":"/a","path":"/d"},
            {"op":"move","from":"/b","path":"/e"},{"op":"remove","path":"/x"}]"#;
        assert_eq!(applied(r#"{"a":1,"b":[],"x":0}"#, text).unwrap(), r#"{"a":2,"d":2,"e":[{"c":null}]}"#);
        assert_eq!(applied("[1]", "[]").unwrap(), "[1]");
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
        let text = r#"[{"op":"replace","path":"/a","value":2},{"op":"remove","path":"/x"}]"#;
        assert!(matches!(applied(r#"{"a":1}"#, text), Err(PatchError::Operation(_))));
        assert!(matches!(
            applied(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#),
            Err(PatchError::Operation(_))
        ));
        assert_eq!(applied("text", "[]"), Err(PatchError::NoDocument));
    }

    #[test]
    fn copies_do_not_grow_without_end() {
        let copies: Vec<_> =
            (0..60).map(|n| format!(r#"{{"op":"copy","from":"/a","path":"/a/{n}"}}"#)).collect();
        let text = format!("[{}]", copies.join(","));
        assert_eq!(applied(r#"{"a":{"x":"0123456789"}}"#, &text), Err(PatchError::TooLarge));
        // A hundred levels in one.
        let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
        let text = format!(r#"[{{"op":"add","path":"/a","value":{deep}}}]"#);
        assert!(applied("{}", &text).is_ok());
        let text = format!(r#"[{{"op":"add","path":"/a/b","value":{deep}}}]"#);
        assert_eq!(applied(r#"{"a":{}}"#, &text), Err(PatchError::TooLarge));
    }

    #[test]
    fn a_list_that_is_no_patch_is_refused() {
        assert_eq!(patch("{}"), Err(Problem::Type("a list")));
        assert!(matches!(patch(r#"[{"op":"jump"}]"#), Err(Problem::Patch(_))));
        assert!(matches!(patch(r#"[{"op":"add","path":"a","value":1}]"#), Err(Problem::Patch(_))));
        let many = vec![r#"{"op":"remove","path":"/a"}"#; 1001].join(",");
        assert_eq!(patch(&format!("[{many}]")), Err(Problem::TooMany(1000)));
    }
}
