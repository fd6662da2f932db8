//! One shadow's document, and an update to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::node::{self, Members, View, invalid_json};
use crate::rejection::Rejection;
use crate::text::write_text;

/// A shadow: what it is to be and what it says that it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) desired: Option<Members>,
    pub(crate) reported: Option<Members>,
    pub(crate) version: u64,
}

/// What is to become of a section.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Stay,
    Remove,
    Merge(Members),
}

/// An update as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) desired: Change,
    pub(crate) reported: Change,
    /// For which version it was made.
    pub(crate) version: Option<u64>,
}

/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// What a request calls itself; `None` for no document at all.
///
/// # Errors
/// It is no JSON object, or the token cannot be one.
pub(crate) fn client_token(payload: &[u8]) -> Result<Option<String>, Rejection> {
    if payload.is_empty() {
        return Ok(None);
    }
    token_of(&members(payload)?)
}

fn members(payload: &[u8]) -> Result<BTreeMap<String, &RawValue>, Rejection> {
    serde_json::from_slice(payload).map_err(|_| invalid_json())
}

fn token_of(members: &BTreeMap<String, &RawValue>) -> Result<Option<String>, Rejection> {
    let Some(raw) = members.get("clientToken") else { return Ok(None) };
    let token = serde_json::from_str::<String>(raw.get()).ok().filter(|token| token.len() <= MAX_TOKEN_BYTES);
    token.map(Some).ok_or_else(|| Rejection::new(400, "Invalid clientToken"))
}

impl Update {
    /// Reads an update, and what it calls itself.
    pub(crate) fn parse(payload: &[u8], now: u64) -> Result<(Self, Option<String>), Rejection> {
        let members = members(payload)?;
        let token = token_of(&members)?;
        Self::read(&members, now)
            .map_err(|rejection| rejection.of(token.as_deref()))
            .map(|update| (update, token))
    }

    fn read(members: &BTreeMap<String, &RawValue>, now: u64) -> Result<Self, Rejection> {
        let wrong = |message: &'static str| Rejection::new(400, message);
        let version = members.get("version").filter(|raw| raw.get() != "null");
        let version =
            version.map(|raw| raw.get().parse().map_err(|_| wrong("Invalid version"))).transpose()?;
        let state = members.get("state").ok_or_else(|| wrong("Missing required node: state"))?;
        if !state.get().starts_with('{') {
            return Err(wrong("State node must be an object"));
        }
        let state: BTreeMap<String, &RawValue> =
            serde_json::from_str(state.get()).map_err(|_| invalid_json())?;
        let (mut desired, mut reported) = (Change::Stay, Change::Stay);
        for (name, raw) in state {
            let (place, message) = match &*name {
                "desired" => (&mut desired, "Desired node must be an object"),
                "reported" => (&mut reported, "Reported node must be an object"),
                _ => return Err(wrong("State contains an invalid node")),
            };
            *place = match raw.get() {
                "null" => Change::Remove,
                _ => Change::Merge(node::section(raw, now)?.ok_or_else(|| wrong(message))?),
            };
        }
        Ok(Self { desired, reported, version })
    }

    /// The sections as they were sent.
    pub(crate) fn write(&self, view: View, out: &mut String) {
        let mut sections = Sections::new(out);
        for (name, change) in [("desired", &self.desired), ("reported", &self.reported)] {
            match change {
                Change::Merge(members) => sections.members(name, members, view),
                Change::Remove if view == View::State => sections.null(name),
                Change::Remove | Change::Stay => {}
            }
        }
        sections.end();
    }
}

/// Writes the sections of a document.
struct Sections<'o> {
    out: &'o mut String,
    is_first: bool,
}

impl<'o> Sections<'o> {
    fn new(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, is_first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
        let _ = write!(self.out, "\"{name}\":");
    }

    fn members(&mut self, name: &str, members: &Members, view: View) {
        self.name(name);
        node::write(members, view, self.out);
    }

    fn null(&mut self, name: &str) {
        self.name(name);
        self.out.push_str("null");
    }

    fn end(self) {
        self.out.push('}');
    }
}

impl Document {
    /// The document with an update in it, one version later.
    pub(crate) fn with(&self, update: Update) -> Self {
        let apply = |section: &Option<Members>, change| match change {
            Change::Stay => section.clone(),
            Change::Remove => None,
            Change::Merge(members) => {
                let mut section = section.clone().unwrap_or_default();
                node::merge(&mut section, members);
                Some(section).filter(|section| !section.is_empty())
            }
        };
        Self {
            desired: apply(&self.desired, update.desired),
            reported: apply(&self.reported, update.reported),
            version: self.version + 1,
        }
    }

    /// What differs; `None` if nothing does.
    pub(crate) fn delta(&self) -> Option<Members> {
        let delta = node::difference(self.desired.as_ref()?, self.reported.as_ref());
        (!delta.is_empty()).then_some(delta)
    }

    /// A document as a note has it: `{"state":{…},"metadata":{…},"version":…}`.
    pub(crate) fn to_note(&self) -> String {
        let mut out = "{\"state\":".to_owned();
        self.write_sections(View::State, None, &mut out);
        out.push_str(",\"metadata\":");
        self.write_sections(View::Times, None, &mut out);
        let _ = write!(out, ",\"version\":{}}}", self.version);
        out
    }

    /// What such a note says; `None` if it is none.
    pub(crate) fn from_note(note: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Noted {
            state: BTreeMap<String, Box<RawValue>>,
            metadata: BTreeMap<String, Box<RawValue>>,
            version: u64,
        }
        let noted: Noted = serde_json::from_slice(note).ok()?;
        let section = |name: &str| match noted.state.get(name) {
            Some(state) => node::restored(state, noted.metadata.get(name)?).map(Some),
            None => Some(None),
        };
        Some(Self { desired: section("desired")?, reported: section("reported")?, version: noted.version })
    }

    /// `"state":{…},"metadata":{…}`, with the delta among the state or not.
    pub(crate) fn write(&self, with_delta: bool, out: &mut String) {
        let delta = self.delta().filter(|_| with_delta);
        out.push_str("\"state\":");
        self.write_sections(View::State, delta.as_ref(), out);
        out.push_str(",\"metadata\":");
        self.write_sections(View::Metadata, None, out);
    }

    fn write_sections(&self, view: View, delta: Option<&Members>, out: &mut String) {
        let mut sections = Sections::new(out);
        let own = [("desired", self.desired.as_ref()), ("reported", self.reported.as_ref())];
        for (name, section) in own.into_iter().chain([("delta", delta)]) {
            if let Some(section) = section {
                sections.members(name, section, view);
            }
        }
        sections.end();
    }

    /// Bytes of the state, as it is written.
    pub(crate) fn state_bytes(&self) -> usize {
        let mut out = String::new();
        for section in [&self.desired, &self.reported].into_iter().flatten() {
            node::write(section, View::State, &mut out);
        }
        out.len()
    }

    /// What it counts in budgets, in bytes.
    pub(crate) fn weight(&self) -> usize {
        [&self.desired, &self.reported].into_iter().flatten().map(node::weight).sum()
    }
}

/// The end of a document: `,"version":…,"timestamp":…,"clientToken":…}`.
pub(crate) fn write_end(version: Option<u64>, now: u64, client_token: Option<&str>, out: &mut String) {
    if let Some(version) = version {
        let _ = write!(out, ",\"version\":{version}");
    }
    let _ = write!(out, ",\"timestamp\":{now}");
    if let Some(token) = client_token {
        out.push_str(",\"clientToken\":");
        write_text(token, out);
    }
    out.push('}');
}
