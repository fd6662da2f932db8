//! Events as bytes (HTML Standard, "Parsing an event stream").

use std::time::Duration;

use broker_core::{Filter, Gap, Kind, Message, MessageId};
use bytes::Bytes;
use envelope::{envelope, is_reserved_event, write_string};

use crate::Format;

/// A comment; keeps proxies and balancers from closing an idle stream, and makes them pass the head on.
pub(crate) const COMMENT: &[u8] = b":\n\n";

/// One message as an event, or `None` if an event stream cannot express it: its event name has a line break, or its
/// channel a segment that means a wildcard here.
pub(crate) fn message(message: &Message, kind: Kind, format: Format) -> Option<Bytes> {
    let wildcard = |segment: &str| matches!(segment, "*" | "**" | "#");
    if message.channel().segments().any(wildcard) || !is_event_name(message.event().unwrap_or_default()) {
        return None;
    }
    // A retained message is older than where the stream begins. Its id would make a resume repeat what lies between.
    let id = if kind == Kind::Retained { None } else { message.id() };
    let payload = message.payload();
    // The HTTP API refuses such names; programs in the broker's process have others' to pass on.
    let name = message.event().filter(|name| !is_reserved_event(name));
    Some(match format {
        Format::Raw if std::str::from_utf8(payload).is_ok() => event(id, name, payload),
        Format::Raw => event(id, Some("binary"), &envelope(message)),
        Format::Json => event(id, name, &envelope(message)),
    })
}

/// Whether a name can stand in `event:`.
pub(crate) fn is_event_name(name: &str) -> bool {
    !name.contains(['\r', '\n'])
}

/// Tells that messages after the position asked for are, or may be, gone. It has no `id:`, so that the client keeps its
/// own until the next message.
pub(crate) fn gap(filter: &Filter, requested: &str, gap: &Gap) -> Bytes {
    let mut data = b"{\"channel\":".to_vec();
    write_string(&filter.to_string(), &mut data);
    data.extend_from_slice(b",\"requested\":");
    write_string(requested, &mut data);
    data.extend_from_slice(b",\"first\":");
    write_string(&gap.first.to_string(), &mut data);
    data.extend_from_slice(b",\"next\":");
    match gap.next {
        Some(id) => write_string(&id.to_string(), &mut data),
        None => data.extend_from_slice(b"null"),
    }
    data.push(b'}');
    event(None, Some("gap"), &data)
}

/// What a stream begins with: a comment, at once, and perhaps where it begins. An `id:` without data dispatches nothing
/// but is remembered. Both stand in one block, as readers that take blocks apart by hand skip one that begins with a colon.
pub(crate) fn opening(position: Option<MessageId>) -> Bytes {
    match position {
        Some(id) => format!(":\nid: {id}\n\n").into(),
        None => Bytes::from_static(COMMENT),
    }
}

/// Goodbye: a comment for people and the time after which the client may come back.
pub(crate) fn goodbye(why: &str, retry: Duration) -> Bytes {
    format!(": {why}\nretry: {}\n\n", retry.as_millis()).into()
}

/// `data` is split at CR, LF and CRLF alike, as a reader does: otherwise a bare CR in a payload could forge a field.
fn event(id: Option<MessageId>, name: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(64 + data.len() + name.map_or(0, str::len));
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.to_string().as_bytes());
        out.push(b'\n');
    }
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    if data.is_empty() {
        out.extend_from_slice(b"data:\n\n");
        return out.into();
    }
    let mut rest = data;
    loop {
        // One space always: the reader takes one away, and a payload's own leading space must survive.
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            break;
        };
        let (line, tail) = rest.split_at(end);
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::{Broker, Channel, Publish};
    use proptest::prelude::*;

    const ID: MessageId = MessageId { epoch: 723, offset: 18 };

    #[test]
    fn data_is_split_at_every_line_end_a_reader_knows() {
        let cases = [
            ("", "data:\n\n"),
            ("a", "data: a\n\n"),
            (" a", "data:  a\n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("\n", "data: \ndata: \n\n"),
            ("a\r", "data: a\ndata: \n\n"),
            ("x\rid: forged\r\rdata: y", "data: x\ndata: id: forged\ndata: \ndata: data: y\n\n"),
        ];
        for (data, expected) in cases {
            assert_eq!(event(None, None, data.as_bytes()), expected, "{data:?}");
        }
    }

    /// An event as a reader sees it (HTML Standard, "Interpreting an event stream").
    fn read(stream: &str) -> Vec<(Option<String>, String, String)> {
        let (mut id, mut name, mut data) = (None, String::new(), None::<String>);
        let mut events = Vec::new();
        let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in stream.split('\n') {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    events.push((id.clone(), std::mem::take(&mut name), data));
                }
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => id = Some(value.to_owned()),
                "event" => value.clone_into(&mut name),
                "data" => match &mut data {
                    Some(data) => *data = format!("{data}\n{value}"),
                    None => data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        events
    }

    proptest! {
        #[test]
        fn a_reader_sees_what_was_sent(
            data in "[a :\u{e9}\r\n]{0,20}|(\r?\n?(id|event|data|retry|):? ?x){0,4}",
            name in proptest::option::of("[a-z: ]{1,5}"),
        ) {
            let sent = event(Some(ID), name.as_deref(), data.as_bytes());
            let seen = read(std::str::from_utf8(&sent).unwrap());
            // A reader knows one line end only.
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            let expected = (Some(ID.to_string()), name.unwrap_or_default(), data);
            prop_assert_eq!(seen, vec![expected]);
        }
    }

    #[test]
    fn id_and_name_come_before_the_data() {
        assert_eq!(event(Some(ID), Some("tick"), b"1"), "id: k3-18\nevent: tick\ndata: 1\n\n");
    }

    #[test]
    fn a_stream_begins_with_a_comment_and_no_event() {
        assert_eq!(opening(None), ":\n\n");
        assert_eq!(opening(Some(ID)), ":\nid: k3-18\n\n");
        assert_eq!(read(":\nid: k3-18\n\n"), []);
    }

    #[tokio::test]
    async fn a_message_named_like_a_gap_is_none() {
        for reserved in ["gap", "binary"] {
            let named = Publish::new(Channel::parse("a").unwrap(), "x").event(reserved);
            let broker = Broker::new(broker_core::Config::default());
            broker.publish(named.retain(true)).unwrap();
            let kept = broker.retained(&Channel::parse("a").unwrap()).unwrap();
            let raw = message(&kept, Kind::Retained, Format::Raw).unwrap();
            assert_eq!(raw, "data: x\n\n", "{reserved}");
            let json = message(&kept, Kind::Retained, Format::Json).unwrap();
            assert!(json.starts_with(b"data: {\"channel\":\"a\","), "{json:?}");
        }
    }

    #[test]
    fn a_gap_names_what_was_asked_and_what_is_left() {
        let filter = Filter::parse("a/*").unwrap();
        let told = Gap { requested: ID, first: MessageId { epoch: 723, offset: 30 }, next: None };
        assert_eq!(
            gap(&filter, "k2-\"", &told),
            "event: gap\ndata: {\"channel\":\"a/*\",\"requested\":\"k2-\\\"\",\"first\":\"k3-30\",\"next\":null}\n\n"
        );
    }

    #[test]
    fn a_goodbye_has_digits_only_in_retry() {
        assert_eq!(goodbye("bye", Duration::from_millis(1500)), ": bye\nretry: 1500\n\n");
    }
}
