//! What a backend is told: the JSON of one event.

use bytes::Bytes;
use envelope::{timestamp, write_string};

/// What happened, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A client wants to connect.
    Connect,
    /// A client wants to subscribe.
    Subscribe,
    /// A client wants to publish.
    Publish,
    /// A client has left.
    Disconnect,
    /// A channel has its first subscriber.
    Occupied,
    /// A channel has lost its last.
    Vacated,
    /// A message was published.
    Message,
    /// The broker has started, with nobody connected.
    Started,
    /// A connection outward is in another state.
    Source,
}

impl Kind {
    /// All there are, in the order of their declaration.
    pub const ALL: [Kind; 9] = [
        Kind::Connect,
        Kind::Subscribe,
        Kind::Publish,
        Kind::Disconnect,
        Kind::Occupied,
        Kind::Vacated,
        Kind::Message,
        Kind::Started,
        Kind::Source,
    ];

    /// Its name in events and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Subscribe => "subscribe",
            Kind::Publish => "publish",
            Kind::Disconnect => "disconnect",
            Kind::Occupied => "occupied",
            Kind::Vacated => "vacated",
            Kind::Message => "message",
            Kind::Started => "broker.started",
            Kind::Source => "source",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a backend is asked, and the client waits for its answer.
    pub fn is_decision(self) -> bool {
        matches!(self, Kind::Connect | Kind::Subscribe | Kind::Publish)
    }

    /// Whether it is about a channel.
    pub fn is_of_channel(self) -> bool {
        !matches!(self, Kind::Connect | Kind::Disconnect | Kind::Started | Kind::Source)
    }
}

/// An event as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// `evt_…`, one of its own.
    pub id: String,
    /// JSON.
    pub body: Bytes,
}

/// An event of this kind at a time in milliseconds since 1970; `data` writes its members.
pub fn event(kind: Kind, time_ms: u64, data: impl FnOnce(&mut Members<'_>)) -> Told {
    let id = format!("evt_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    let mut members = Members::of(&mut out);
    members.text("type", kind.name()).text("id", &id).text("timestamp", &timestamp(time_ms));
    members.object("data", data);
    out.push(b'}');
    Told { id, body: out.into() }
}

/// The members of a JSON object, as they are written.
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    has_some: bool,
}

impl<'a> Members<'a> {
    fn of(out: &'a mut Vec<u8>) -> Self {
        Self { out, has_some: false }
    }

    fn name(&mut self, name: &str) {
        if self.has_some {
            self.out.push(b',');
        }
        self.has_some = true;
        write_string(name, self.out);
        self.out.push(b':');
    }

    /// A string.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        write_string(value, self.out);
        self
    }

    /// A string, or `null`.
    pub fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, b"null"),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// JSON text as it is.
    pub fn raw(&mut self, name: &str, json: &[u8]) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(json);
        self
    }

    /// A list of strings.
    pub fn list<T: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.name(name);
        self.out.push(b'[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            write_string(value.as_ref(), self.out);
        }
        self.out.push(b']');
        self
    }

    /// An object.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Members<'_>)) -> &mut Self {
        self.name(name);
        self.out.push(b'{');
        write(&mut Members::of(self.out));
        self.out.push(b'}');
        self
    }

    /// A payload as `data`, `text` or `base64`.
    pub fn payload(&mut self, payload: &Bytes, content_type: Option<&broker_core::ContentType>) -> &mut Self {
        let value = envelope::classify(payload, content_type);
        self.name(value.member());
        value.write_to(self.out);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_with_a_type_an_id_a_time_and_data() {
        let told = event(Kind::Subscribe, 1_795_205_760_042, |data| {
            data.optional("user", None).number("seq", 3).object("remote", |remote| {
                remote.text("ip", "::1");
            });
            data.raw("context", b"{}").list("channels", ["a", "b\""]);
            data.payload(&Bytes::from_static(b"\xff"), None);
        });
        let read: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"type": "subscribe", "id": told.id, "timestamp": "2026-11-20T20:16:00.042Z",
                "data": {"user": null, "seq": 3, "remote": {"ip": "::1"}, "context": {}, "channels": ["a", "b\""],
                    "base64": "/w=="}})
        );
        assert!(told.id.starts_with("evt_") && told.id.len() == 36);
    }

    #[test]
    fn kinds_have_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("started"), None);
    }
}
