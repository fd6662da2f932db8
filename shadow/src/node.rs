//! JSON as a tree of objects whose leaves keep their text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::rejection::Rejection;
use crate::text::write_text;

/// The members of an object.
pub(crate) type Members = BTreeMap<Box<str>, Node>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// An object is merged member by member.
    Object(Members),
    /// Anything else is replaced whole: its text without spaces, and when it was set, in seconds since 1970.
    Leaf { text: Box<str>, at: u64 },
    /// In an update: what is to be removed.
    Null,
}

/// Levels of a section, itself among them.
const MAX_LEVELS: usize = 6;

/// What a node counts in budgets beyond its texts, in bytes.
const OVERHEAD: usize = 64;

fn too_deep() -> Rejection {
    let message = "JSON contains too many levels of nesting; maximum is 6";
    Rejection::new(400, message)
}

pub(crate) fn invalid_json() -> Rejection {
    Rejection::new(400, "Invalid JSON")
}

fn invalid_node() -> Rejection {
    Rejection::new(400, "State contains an invalid node")
}

/// A section of a state. `None`: it is no object.
pub(crate) fn section(raw: &RawValue, at: u64) -> Result<Option<Members>, Rejection> {
    match node(raw, at, 1)? {
        Node::Object(members) => Ok(Some(members)),
        _ => Ok(None),
    }
}

/// A section that was written before, with when each of its leaves was set.
pub(crate) fn restored(state: &RawValue, metadata: &RawValue) -> Option<Members> {
    let members = |raw: &RawValue| serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(raw.get()).ok();
    let (state, metadata) = (members(state)?, members(metadata)?);
    let restore = |(name, raw): (String, Box<RawValue>)| {
        let known = metadata.get(&name)?;
        let node = match raw.get().as_bytes().first() {
            Some(b'{') => Node::Object(restored(&raw, known)?),
            _ => {
                let at = members(known)?.get("timestamp")?.get().parse().ok()?;
                Node::Leaf { text: raw.get().into(), at }
            }
        };
        Some((name.into(), node))
    };
    state.into_iter().map(restore).collect()
}

fn node(raw: &RawValue, at: u64, level: usize) -> Result<Node, Rejection> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members = members(raw, level)?;
            let node = |(name, raw): (String, &RawValue)| Ok((name.into(), node(raw, at, level + 1)?));
            members.into_iter().map(node).collect::<Result<_, _>>().map(Node::Object)
        }
        Some(b'n') => Ok(Node::Null),
        _ => {
            let mut out = String::with_capacity(text.len());
            compact(raw, level, &mut out)?;
            Ok(Node::Leaf { text: out.into(), at })
        }
    }
}

fn members(raw: &RawValue, level: usize) -> Result<BTreeMap<String, &RawValue>, Rejection> {
    if level > MAX_LEVELS {
        return Err(too_deep());
    }
    serde_json::from_str(raw.get()).map_err(|_| invalid_json())
}

/// The text of a value in one form, so that values can be compared by it; numbers stay as they are.
fn compact(raw: &RawValue, level: usize, out: &mut String) -> Result<(), Rejection> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|_| invalid_json())?;
            write_text(&text, out);
        }
        Some(b'[') => {
            if level > MAX_LEVELS {
                return Err(too_deep());
            }
            let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| invalid_json())?;
            out.push('[');
            for (number, element) in elements.into_iter().enumerate() {
                separate(number, out);
                not_null(element)?;
                compact(element, level + 1, out)?;
            }
            out.push(']');
        }
        Some(b'{') => {
            out.push('{');
            for (number, (name, member)) in members(raw, level)?.into_iter().enumerate() {
                separate(number, out);
                write_text(&name, out);
                out.push(':');
                not_null(member)?;
                compact(member, level + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(text),
    }
    Ok(())
}

/// Within an array nothing can be removed.
fn not_null(raw: &RawValue) -> Result<(), Rejection> {
    if raw.get() == "null" { Err(invalid_node()) } else { Ok(()) }
}

fn separate(number: usize, out: &mut String) {
    if number > 0 {
        out.push(',');
    }
}

/// Puts an update into a section: objects are merged, what is null is removed, everything else is replaced.
pub(crate) fn merge(section: &mut Members, update: Members) {
    for (name, change) in update {
        match change {
            Node::Null => _ = section.remove(&name),
            Node::Object(members) => match section.get_mut(&name) {
                Some(Node::Object(known)) => merge(known, members),
                _ => {
                    let mut made = Members::new();
                    merge(&mut made, members);
                    section.insert(name, Node::Object(made));
                }
            },
            leaf => _ = section.insert(name, leaf),
        }
    }
}

/// The leaves of `desired` that `reported` lacks or has otherwise.
pub(crate) fn difference(desired: &Members, reported: Option<&Members>) -> Members {
    let mut delta = Members::new();
    for (name, wanted) in desired {
        let known = reported.and_then(|reported| reported.get(name));
        match (wanted, known) {
            (Node::Object(wanted), known) => {
                let known = match known {
                    Some(Node::Object(known)) => Some(known),
                    _ => None,
                };
                let below = difference(wanted, known);
                if !below.is_empty() {
                    delta.insert(name.clone(), Node::Object(below));
                }
            }
            (Node::Leaf { text, .. }, Some(Node::Leaf { text: known, .. })) if text == known => {}
            (wanted, _) => _ = delta.insert(name.clone(), wanted.clone()),
        }
    }
    delta
}

/// What is written of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The values.
    State,
    /// When each was set, as AWS shows it: each element of an array has its own.
    Metadata,
    /// When each was set, once for each leaf: as it is noted.
    Times,
}

/// Writes an object.
pub(crate) fn write(members: &Members, view: View, out: &mut String) {
    out.push('{');
    let shown = members.iter().filter(|(_, node)| view == View::State || !matches!(node, Node::Null));
    for (number, (name, node)) in shown.enumerate() {
        separate(number, out);
        write_text(name, out);
        out.push(':');
        match (node, view) {
            (Node::Object(members), _) => write(members, view, out),
            (Node::Leaf { text, .. }, View::State) => out.push_str(text),
            (Node::Leaf { text, at }, View::Metadata) => write_times(text, *at, out),
            (Node::Leaf { at, .. }, View::Times) => write_time(*at, out),
            (Node::Null, _) => out.push_str("null"),
        }
    }
    out.push('}');
}

/// Writes when all that a leaf holds was set.
fn write_times(text: &str, at: u64, out: &mut String) {
    // A leaf's text is written here, and nested no deeper than `MAX_LEVELS`.
    match text.as_bytes().first() {
        Some(b'[') => {
            out.push('[');
            let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            for (number, element) in elements.into_iter().enumerate() {
                separate(number, out);
                write_times(element.get(), at, out);
            }
            out.push(']');
        }
        Some(b'{') => {
            out.push('{');
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
            for (number, (name, member)) in members.into_iter().enumerate() {
                separate(number, out);
                write_text(&name, out);
                out.push(':');
                write_times(member.get(), at, out);
            }
            out.push('}');
        }
        _ => write_time(at, out),
    }
}

fn write_time(at: u64, out: &mut String) {
    let _ = write!(out, "{{\"timestamp\":{at}}}");
}

/// What a tree counts in budgets, in bytes.
pub(crate) fn weight(members: &Members) -> usize {
    let of = |name: &str, node: &Node| {
        let own = match node {
            Node::Object(members) => weight(members),
            Node::Leaf { text, .. } => text.len(),
            Node::Null => 0,
        };
        name.len() + own + OVERHEAD
    };
    members.iter().map(|(name, node)| of(name, node)).sum()
}
