//! What is public can grow: an enum or a struct with public fields is `#[non_exhaustive]`, or stands here with the reason
//! why nothing will be added to it.

use std::collections::BTreeSet;
use std::path::Path;

/// Crate, reason, names.
const CLOSED: &[(&str, &str, &[&str])] = &[
    ("broker-core", "yes or no, or one of two ends", &["Class", "Echo", "Order", "Start"]),
    ("broker-core", "to come back, to begin anew, or for once", &["Claim"]),
    ("broker-core", "whose, by which claim, and which: no more names one publish", &["Taken"]),
    ("broker-core", "the three of the protocol that has most", &["Qos"]),
    ("broker-core", "a front has to have a word for each, or to refuse it", &["Segment"]),
    ("broker-core", "a front that did not know one would show its client something else", &["Kind"]),
    ("broker-core", "users are told apart by it, so none may be taken for another", &["SourceKind"]),
    ("broker-core", "who waits for it would wait in vain for what it does not know", &["Signal", "Telling"]),
    ("link", "who waits for it would wait in vain for what it does not know", &["LinkEvent"]),
    ("http-edge", "who waits for it would wait in vain for what it does not know", &["Heard", "Ending"]),
    ("http-edge", "yes or no", &["Cookies"]),
    ("websocket", "all that RFC 6455 has", &["End", "Incoming", "Rsv1", "Silence", "Turn"]),
    ("envelope", "the three shapes that a protocol with JSON has to have a place for", &["JsonValue"]),
    ("intake", "one or several", &["Channels", "Outcome"]),
    (
        "grip",
        "all that GRIP has, and a client that got less would miss something",
        &[
            "Body",
            "End",
            "Event",
            "Hold",
            "HttpResponse",
            "HttpStream",
            "KeepAliveMode",
            "Sorted",
            "Step",
            "Taken",
            "WsKind",
            "WsMessage",
        ],
    ),
    (
        "front-mqtt",
        "all that MQTT 3.1, 3.1.1 and 5.0 have",
        &[
            "Ack",
            "AckKind",
            "Auth",
            "ConnAck",
            "Connect",
            "DecodeError",
            "Dialect",
            "Disconnect",
            "EncodedPublish",
            "FilterOptions",
            "Frame",
            "Framing",
            "LastWill",
            "Packet",
            "PacketType",
            "Property",
            "Publish",
            "PublishHeader",
            "PublishProperties",
            "Reason",
            "RetainHandling",
            "Share",
            "Sharing",
            "Version",
        ],
    ),
];

/// Public enums, and public structs all of whose fields are public, that are complete to whoever uses the crate.
fn complete(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut attributes = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if let Some(rest) = code.strip_prefix("pub enum ").or_else(|| code.strip_prefix("pub struct ")) {
            let name = rest.split(|one: char| !one.is_alphanumeric()).next().unwrap_or_default();
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let is_open = if line.ends_with('{') {
                let body: Vec<_> =
                    lines.by_ref().take_while(|line| *line != end).map(str::trim_start).collect();
                code.starts_with("pub enum ") || has_public_fields_only(&body)
            } else {
                false
            };
            if is_open && !attributes.contains("#[non_exhaustive]") {
                found.push(name);
            }
        }
        if code.is_empty() || !code.starts_with(['#', '/', ')', '"']) {
            attributes.clear();
        } else {
            attributes.push_str(code);
        }
    }
    found
}

fn has_public_fields_only(body: &[&str]) -> bool {
    let mut fields = body.iter().filter(|line| {
        let name = line
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let end = name.find(|one: char| !one.is_ascii_alphanumeric() && one != '_');
        end.is_some_and(|end| end > 0 && name[end..].starts_with(": "))
    });
    let mut some = false;
    fields.all(|line| {
        some = true;
        line.starts_with("pub ")
    }) && some
}

#[test]
fn what_is_public_can_grow_or_says_why_it_will_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for manifest in super::house::files(root, "Cargo.toml") {
        if std::fs::read_to_string(&manifest).expect("a manifest").contains("\npublish = false\n") {
            continue;
        }
        let folder = manifest.parent().expect("a folder");
        let name = folder.strip_prefix(root).expect("below").to_str().expect("plain").to_owned();
        for file in super::house::files(&folder.join("src"), ".rs") {
            let text = std::fs::read_to_string(&file).expect("a source");
            found.extend(
                complete(super::house::without_tests(&text))
                    .iter()
                    .map(|one| (name.clone(), (*one).to_owned())),
            );
        }
    }
    let listed: BTreeSet<_> = CLOSED
        .iter()
        .flat_map(|(name, _, types)| types.iter().map(|one| ((*name).to_owned(), (*one).to_owned())))
        .collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(new.is_empty(), "make these `#[non_exhaustive]`, or say above why they are complete: {new:?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "not there any more, or not complete: {gone:?}");
}

#[test]
fn what_cannot_grow_is_found_in_a_source() {
    let text = "/// A.\npub enum A {\n    One,\n}\n\n#[non_exhaustive]\npub enum B {\n    One,\n}\n\n\
                pub struct C {\n    /// It.\n    pub one: u8,\n}\n\npub struct D {\n    pub one: u8,\n    two: u8,\n}\n\n\
                #[derive(Debug)]\n#[non_exhaustive]\npub struct E {\n    pub one: u8,\n}\n\npub(crate) enum F {\n    One,\n}\n";
    assert_eq!(complete(text), ["A", "C"]);
}
