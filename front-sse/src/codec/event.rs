//! Events as bytes (HTML Standard, "Parsing an event stream").

use std::time::Duration;

use broker_core::{Filter, Gap, Kind, Message, MessageId, Position};
use bytes::Bytes;

use envelope::{envelope, is_reserved_event, write_string};
use http_edge::{Chunk, event_chunk as event};

use crate::Format;

/// A comment, as a chunk; keeps proxies and balancers from closing an idle stream. No blank line follows it: some
/// readers take any blank line for the end of an event, and one that ends nothing is an event without data to them.
pub(crate) const COMMENT: &[u8] = b"2\r\n:\n\r\n";

/// One message as an event, or `None` if an event stream cannot express it: its event name has a line break, or its
/// channel a segment that means a wildcard here.
pub(crate) fn message(message: &Message, kind: Kind, format: Format) -> Option<Bytes> {
    // A retained message is older than where the stream begins. Its id would make a resume repeat what lies between.
    let id = if kind == Kind::Retained { None } else { message.id() };
    message_at(message, id.map(Position::from), format)
}

/// The same with an id that says more than where the message stands.
pub(crate) fn message_at(message: &Message, id: Option<Position>, format: Format) -> Option<Bytes> {
    let wildcard = |segment: &str| matches!(segment, "*" | "**" | "#");
    if message.channel().segments().any(wildcard) || !is_event_name(message.event().unwrap_or_default()) {
        return None;
    }
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

/// Tells that messages after the position asked for are, or may be, gone. `position` becomes the reader's own, so that
/// it is not told again of the same ones.
pub(crate) fn gap(filter: &Filter, requested: &str, gap: &Gap, position: Option<MessageId>) -> Bytes {
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
    event(position.map(Position::from), Some("gap"), &data)
}

/// What a stream begins with, at once, so that proxies pass the head on: where it begins, or a comment. There is no
/// blank line: the line belongs to the block of the first event, whose own id stands behind it and counts.
pub(crate) fn opening(position: Option<Position>) -> String {
    position.map_or_else(|| ":\n".to_owned(), |id| format!("id: {id}\n"))
}

/// What a backend says to a client that it lets in, as the first event; JSON text.
pub(crate) fn hook(reply: &[u8]) -> String {
    let lines: String =
        String::from_utf8_lossy(reply).split(['\r', '\n']).map(|line| format!("data: {line}\n")).collect();
    format!("event: hook\n{lines}\n")
}

/// Goodbye: a comment for people and the time after which the client may come back. Both count without a blank line.
pub(crate) fn goodbye(why: &str, retry: Duration) -> String {
    format!(": {why}\nretry: {}\n", retry.as_millis())
}

/// A goodbye and the end of the body.
pub(crate) fn last(why: &str, retry: Duration) -> Bytes {
    Chunk::last(goodbye(why, retry).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::{Broker, Channel, Publish};
    use proptest::prelude::*;

    const ID: MessageId = MessageId::new(723, 18);

    /// What a chunk holds.
    fn text(chunk: &Bytes) -> &str {
        let (size, rest) = std::str::from_utf8(chunk).unwrap().split_once("\r\n").unwrap();
        let (data, end) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
        assert_eq!(end, "\r\n", "one chunk, and all of it");
        data
    }

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
            assert_eq!(text(&event(None, None, data.as_bytes())), expected, "{data:?}");
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
            let sent = event(Some(ID.into()), name.as_deref(), data.as_bytes());
            let seen = read(text(&sent));
            // A reader knows one line end only.
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            let expected = (Some(ID.to_string()), name.unwrap_or_default(), data);
            prop_assert_eq!(seen, vec![expected]);
        }
    }

    #[test]
    fn id_and_name_come_before_the_data() {
        assert_eq!(text(&event(Some(ID.into()), Some("tick"), b"1")), "id: k3-18\nevent: tick\ndata: 1\n\n");
    }

    #[test]
    fn no_blank_line_stands_where_no_event_ends() {
        assert_eq!(opening(None), ":\n");
        assert_eq!(opening(Some(ID.into())), "id: k3-18\n");
        assert_eq!(text(&Bytes::from_static(COMMENT)), ":\n");
        assert_eq!(goodbye("bye", Duration::from_millis(1500)), ": bye\nretry: 1500\n");
    }

    #[test]
    fn the_opening_position_is_that_of_a_first_event_without_its_own() {
        let own = text(&event(Some(MessageId::new(723, 19).into()), None, b"1")).to_owned();
        let none = text(&event(None, None, b"1")).to_owned();
        for (first, id) in [(own, "k3-19"), (none, "k3-18")] {
            let seen = read(&format!("{}{first}", opening(Some(ID.into()))));
            assert_eq!(seen, [(Some(id.to_owned()), String::new(), "1".to_owned())]);
        }
    }

    #[tokio::test]
    async fn a_message_named_like_a_gap_is_none() {
        for reserved in ["gap", "binary"] {
            let named = Publish::new(Channel::parse("a").unwrap(), "x").event(reserved);
            let broker = Broker::new(broker_core::Config::default());
            broker.publish(named.retain(true)).unwrap();
            let kept = broker.retained(&Channel::parse("a").unwrap()).unwrap();
            let raw = message(&kept, Kind::Retained, Format::Raw).unwrap();
            assert_eq!(text(&raw), "data: x\n\n", "{reserved}");
            let json = message(&kept, Kind::Retained, Format::Json).unwrap();
            assert!(text(&json).starts_with("data: {\"channel\":\"a\","), "{json:?}");
        }
    }

    #[test]
    fn a_gap_names_what_was_asked_and_what_is_left() {
        let filter = Filter::parse("a/*").unwrap();
        let told = Gap::new(ID, MessageId::new(723, 30), None);
        assert_eq!(
            text(&gap(&filter, "k2-\"", &told, Some(told.first))),
            "id: k3-30\nevent: gap\ndata: {\"channel\":\"a/*\",\"requested\":\"k2-\\\"\",\"first\":\"k3-30\",\"next\":null}\n\n"
        );
    }
}
