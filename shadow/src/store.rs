//! All shadows, within bounds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;

use crate::document::{Document, Update, client_token, write_end};
use crate::node::{self, View};
use crate::rejection::Rejection;
use crate::request::Name;

/// Bounds on shadows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Shadows. Default 100,000. One more is refused (429).
    pub max_shadows: usize,
    /// Bytes of all, with what they cost in memory. Default 64 MiB. What would be more is refused (429).
    pub max_bytes: usize,
    /// Bytes of a document, as it is sent and as its state is once it is merged. Default 8 KiB, as AWS'. A larger one is
    /// refused (413).
    pub max_document_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_shadows: 100_000, max_bytes: 64 << 20, max_document_bytes: 8 << 10 }
    }
}

/// All shadows. One that is changed is changed by one request at a time.
#[derive(Debug, Default)]
pub struct Shadows {
    limits: Limits,
    things: HashMap<Box<str>, BTreeMap<Option<Box<str>>, Document>>,
    count: usize,
    bytes: usize,
    /// The last version of shadows that were deleted, so that a new one goes on from there.
    versions: HashMap<Name, u64>,
    /// When those are forgotten, in the order of deleting.
    deleted: VecDeque<(u64, Name, u64)>,
}

/// How long the version of a deleted shadow is known, in seconds.
const VERSION_SECS: u64 = 48 * 3_600;

/// What an update brings about: documents to be answered and published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// The answer: what was sent, with its metadata, version and time.
    pub accepted: String,
    /// What was before and what is now.
    pub documents: String,
    /// What differs between the sections, if anything does.
    pub delta: Option<String>,
}

/// A page of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// In order.
    pub names: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// What a shadow counts beyond its document, in bytes.
const OVERHEAD: usize = 256;

fn weight(name: &Name, document: &Document) -> usize {
    name.thing().len() + name.shadow().map_or(0, str::len) + document.weight() + OVERHEAD
}

impl Shadows {
    /// None yet, within these bounds.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many there are, and the bytes that they count.
    pub fn usage(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    fn find(&self, name: &Name) -> Option<&Document> {
        self.things.get(name.thing())?.get(&name.shadow().map(Box::from))
    }

    /// Merges an update into a shadow, which is made if it is not there.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn update(&mut self, name: &Name, payload: &[u8], now: u64) -> Result<Updated, Rejection> {
        let too_large = || Rejection::new(413, "The payload exceeds the maximum size allowed");
        if payload.len() > self.limits.max_document_bytes {
            return Err(too_large());
        }
        let (update, token) = Update::parse(payload, now)?;
        let token = token.as_deref();
        self.merge(name, update, token, now).map_err(|rejection| rejection.of(token))
    }

    fn merge(
        &mut self,
        name: &Name,
        update: Update,
        token: Option<&str>,
        now: u64,
    ) -> Result<Updated, Rejection> {
        self.forget(now);
        let known = self.find(name);
        let is_new = known.is_none();
        let before = match known {
            Some(document) => document.clone(),
            None => {
                Document { version: self.versions.get(name).copied().unwrap_or(0), ..Document::default() }
            }
        };
        if update.version.is_some_and(|version| version != before.version) {
            return Err(Rejection::new(409, "Version conflict"));
        }
        let mut accepted = "{\"state\":".to_owned();
        update.write(View::State, &mut accepted);
        accepted.push_str(",\"metadata\":");
        update.write(View::Metadata, &mut accepted);
        let after = before.with(update);
        if after.state_bytes() > self.limits.max_document_bytes {
            return Err(Rejection::new(413, "The payload exceeds the maximum size allowed"));
        }
        let old = if is_new { 0 } else { weight(name, &before) };
        let bytes = self.bytes - old + weight(name, &after);
        if bytes > self.limits.max_bytes || (is_new && self.count >= self.limits.max_shadows) {
            return Err(Rejection::new(429, "There is no room for more shadows"));
        }
        write_end(Some(after.version), now, token, &mut accepted);
        let mut documents = "{\"previous\":{".to_owned();
        before.write(false, &mut documents);
        let _ = write!(documents, ",\"version\":{}}},\"current\":{{", before.version);
        after.write(false, &mut documents);
        let _ = write!(documents, ",\"version\":{}}}", after.version);
        write_end(None, now, token, &mut documents);
        let delta = after.delta().map(|delta| {
            let mut out = format!("{{\"version\":{},\"timestamp\":{now},\"state\":", after.version);
            node::write(&delta, View::State, &mut out);
            out.push_str(",\"metadata\":");
            node::write(&delta, View::Metadata, &mut out);
            out.push('}');
            out
        });
        self.bytes = bytes;
        self.count += usize::from(is_new);
        if is_new {
            self.versions.remove(name);
        }
        let shadows = self.things.entry(name.thing().into()).or_default();
        shadows.insert(name.shadow().map(Box::from), after);
        Ok(Updated { accepted, documents, delta })
    }

    /// The document. `payload` may hold a `clientToken`, or be empty.
    ///
    /// # Errors
    /// 404 if it is not there, 400 for a payload that is no JSON object.
    pub fn get(&self, name: &Name, payload: &[u8], now: u64) -> Result<String, Rejection> {
        let token = client_token(payload)?;
        let document = self.find(name).ok_or_else(|| missing(name).of(token.as_deref()))?;
        let mut out = "{".to_owned();
        document.write(true, &mut out);
        write_end(Some(document.version), now, token.as_deref(), &mut out);
        Ok(out)
    }

    /// Forgets a shadow; its versions go on if it is made again within 48 hours.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, name: &Name, payload: &[u8], now: u64) -> Result<String, Rejection> {
        self.forget(now);
        let token = client_token(payload)?;
        let gone = || missing(name).of(token.as_deref());
        let shadows = self.things.get_mut(name.thing()).ok_or_else(gone)?;
        let document = shadows.remove(&name.shadow().map(Box::from)).ok_or_else(gone)?;
        if shadows.is_empty() {
            self.things.remove(name.thing());
        }
        self.count -= 1;
        self.bytes -= weight(name, &document);
        self.versions.insert(name.clone(), document.version);
        self.deleted.push_back((now, name.clone(), document.version));
        let mut out = format!("{{\"version\":{}", document.version);
        write_end(None, now, token.as_deref(), &mut out);
        Ok(out)
    }

    /// What is to be noted of a shadow so that it outlives the process: the document, or the version that a deleted one
    /// had. `None` if nothing is known of it.
    pub fn note(&self, name: &Name) -> Option<String> {
        match self.find(name) {
            Some(document) => Some(document.to_note()),
            None => {
                let version = self.versions.get(name)?;
                let deleted = self.deleted.iter().rev().find(|(_, known, _)| known == name)?;
                Some(format!("{{\"deleted\":{},\"version\":{version}}}", deleted.0))
            }
        }
    }

    /// Takes what was noted in an earlier life. False for what is no note, and for one more shadow than there may be.
    /// Notes of deleted shadows are to come in any order before the first request.
    pub fn restore(&mut self, name: &Name, note: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Deleted {
            deleted: u64,
            version: u64,
        }
        if let Ok(Deleted { deleted, version }) = serde_json::from_slice(note) {
            self.versions.insert(name.clone(), version);
            let at = self.deleted.partition_point(|(known, ..)| *known <= deleted);
            self.deleted.insert(at, (deleted, name.clone(), version));
            return true;
        }
        let Some(document) = Document::from_note(note) else { return false };
        let bytes = self.bytes + weight(name, &document);
        if bytes > self.limits.max_bytes || self.count >= self.limits.max_shadows || self.find(name).is_some()
        {
            return false;
        }
        (self.bytes, self.count) = (bytes, self.count + 1);
        let shadows = self.things.entry(name.thing().into()).or_default();
        shadows.insert(name.shadow().map(Box::from), document);
        true
    }

    /// Up to `limit` names of a thing's named shadows, after `after`.
    pub fn list(&self, thing: &str, after: Option<&str>, limit: usize) -> Listed {
        let named = self.things.get(thing).into_iter().flat_map(|shadows| shadows.keys().flatten());
        let mut rest = named.filter(|name| after.is_none_or(|after| &***name > after));
        let names = rest.by_ref().take(limit).map(|name| name.to_string()).collect();
        Listed { names, more: rest.next().is_some() }
    }

    /// Forgets versions of shadows that were deleted long ago, or that are more than shadows may be; whose they were.
    /// Done by each update and delete as well.
    pub fn forget(&mut self, now: u64) -> Vec<Name> {
        let mut forgotten = Vec::new();
        while let Some((at, _, _)) = self.deleted.front()
            && (now.saturating_sub(*at) >= VERSION_SECS || self.deleted.len() > self.limits.max_shadows)
            && let Some((_, name, version)) = self.deleted.pop_front()
        {
            if self.versions.get(&name) == Some(&version) {
                self.versions.remove(&name);
                forgotten.push(name);
            }
        }
        forgotten
    }
}

fn missing(name: &Name) -> Rejection {
    Rejection::new(404, format!("No shadow exists with name: '{}'", name.shown()))
}

#[cfg(test)]
mod tests;
