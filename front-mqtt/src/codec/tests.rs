//! Tables: one packet per line, in hex, with what becomes of it.

use broker_core::Qos;
use bytes::Bytes;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Decodes one packet that fills `bytes`; the reason code of what is wrong with it otherwise.
fn decode(bytes: &[u8], version: Option<Version>) -> Result<Packet<'_>, DecodeError> {
    let frame = split(bytes, version, 1 << 20)?.expect("a whole fixed header");
    let body = bytes.get(frame.header..frame.total()).expect("a whole packet");
    assert_eq!(frame.total(), bytes.len(), "the test's own length is wrong: {bytes:x?}");
    parse(&frame, body, version.unwrap_or(Version::V5))
}

fn reason(text: &str, version: Option<Version>) -> Option<u8> {
    decode(&hex(text), version).err().map(|error| error.reason as u8)
}

const V3: Option<Version> = Some(Version::V311);
const V5: Option<Version> = Some(Version::V5);

/// "MQTT" with its length.
const NAME: &str = "0004 4d515454";

#[test]
fn bad_connects_have_their_reason() {
    // After the fixed header; the length is put in front.
    let cases: &[(&str, u8)] = &[
        // Names and levels.
        ("0004 48545450 04 02 0000 0001 61", 0x84),
        ("0003 4d5154 04 02 0000 0001 61", 0x84),
        ("0006 4d5149736470 04 02 0000 0001 61", 0x84),
        ("0004 4d515454 03 02 0000 0001 61", 0x84),
        ("0004 4d515454 06 02 0000 00 0001 61", 0x84),
        ("0004 4d515454 86 02 0000 0001 61", 0x84),
        // Flags: reserved bit, will QoS 3, will QoS and retain without a will, password without a user (v3).
        ("0004 4d515454 04 03 0000 0001 61", 0x81),
        ("0004 4d515454 04 1e 0000 0001 61 0001 74 0000", 0x81),
        ("0004 4d515454 04 0a 0000 0001 61", 0x81),
        ("0004 4d515454 04 22 0000 0001 61", 0x81),
        ("0004 4d515454 04 42 0000 0001 61 0001 70", 0x81),
        ("0004 4d515454 05 03 0000 00 0001 61", 0x81),
        // Short, and with bytes left over.
        ("", 0x81),
        ("0004 4d51", 0x81),
        ("0004 4d515454 04", 0x81),
        ("0004 4d515454 04 02 00", 0x81),
        ("0004 4d515454 04 02 0000", 0x81),
        ("0004 4d515454 04 02 0000 0005 61", 0x81),
        ("0004 4d515454 04 02 0000 0001 61 00", 0x81),
        ("0004 4d515454 04 82 0000 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 0001 61", 0x81),
        // Client id: not UTF-8, a surrogate, U+0000.
        ("0004 4d515454 04 02 0000 0001 ff", 0x81),
        ("0004 4d515454 04 02 0000 0003 eda080", 0x81),
        ("0004 4d515454 04 02 0000 0003 610062", 0x81),
        // Will topic: empty, wildcards.
        ("0004 4d515454 04 06 0000 0001 61 0000 0000", 0x90),
        ("0004 4d515454 04 06 0000 0001 61 0003 612f23 0000", 0x90),
        ("0004 4d515454 04 06 0000 0001 61 0001 2b 0000", 0x90),
        // Properties: zero where it is not allowed, flags that are no flags, repeats.
        ("0004 4d515454 05 02 0000 03 21 0000 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 05 27 00000000 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 02 17 02 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 02 19 02 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 06 21 0001 21 0001 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 0a 11 00000001 11 00000001 0001 61", 0x82),
        // Authentication data without a method.
        ("0004 4d515454 05 02 0000 04 16 0001 61 0001 61", 0x82),
        // Known elsewhere, unknown, longer than the set, longer than the packet, not in the shortest form.
        ("0004 4d515454 05 02 0000 03 23 0001 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 02 01 01 0001 61", 0x82),
        ("0004 4d515454 05 02 0000 02 7e 01 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 02 00 01 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 04 11 000000 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 7f 11 00000001 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 8000 0001 61", 0x81),
        ("0004 4d515454 05 02 0000 ffffffff7f 0001 61", 0x81),
        // In the will: what only CONNECT may have, and a bad response topic.
        ("0004 4d515454 05 06 0000 00 0001 61 05 11 00000001 0001 74 0000", 0x82),
        ("0004 4d515454 05 06 0000 00 0001 61 04 08 0001 23 0001 74 0000", 0x82),
        ("0004 4d515454 05 06 0000 00 0001 61 02 01 02 0001 74 0000", 0x82),
    ];
    for (body, expected) in cases {
        let body = hex(body);
        let packet = [&[0x10, body.len() as u8][..], &body].concat();
        let got = decode(&packet, None).map_err(|error| error.reason as u8);
        assert_eq!(got.as_ref().err(), Some(expected), "{body:x?}: {got:?}");
    }
}

#[test]
fn good_connects_are_read_whole() {
    let all = hex(&format!(
        "10 60 {NAME} 05 ee 003c \
         1b 11 0000000a 21 0014 27 00000fff 22 0005 19 01 17 00 26 0001 61 0001 62 \
         0002 6964 \
         18 18 00000003 01 01 02 00000007 03 0001 63 08 0001 72 09 0001 07 \
         0001 77 0002 6869 0001 75 0002 00ff"
    ));
    let all = [&[0x10, all.len() as u8 - 2], &all[2..]].concat();
    let Ok(Packet::Connect(connect)) = decode(&all, None) else { panic!("{:?}", decode(&all, None)) };
    assert_eq!((connect.version, connect.clean_start, connect.keep_alive_secs), (Version::V5, true, 60));
    assert_eq!((connect.client_id, connect.user, connect.password), ("id", Some("u"), Some(&[0, 0xFF][..])));
    assert_eq!((connect.session_expiry_secs, connect.receive_maximum), (10, 20));
    assert_eq!((connect.maximum_packet_size, connect.topic_alias_maximum), (Some(4095), 5));
    assert_eq!((connect.request_response_info, connect.request_problem_info), (true, Some(false)));
    assert_eq!(connect.properties.user().collect::<Vec<_>>(), [("a", "b")]);
    let will = connect.will.as_ref().unwrap();
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("w", &b"hi"[..], Qos::AtLeastOnce, true));
    let properties = &will.properties;
    assert_eq!((properties.will_delay_secs, properties.message_expiry_secs), (3, Some(7)));
    assert_eq!((properties.content_type, properties.response_topic), (Some("c"), Some("r")));
    assert_eq!((properties.correlation_data, properties.payload_is_utf8), (Some(&[7][..]), Some(true)));

    for (text, version, clean) in [
        ("10 0f 0006 4d5149736470 03 02 0000 0001 61", Version::V31, true),
        ("10 0c 0004 4d515454 04 00 0000 0000", Version::V311, false),
        ("10 0d 0004 4d515454 05 02 0000 00 0000", Version::V5, true),
        // Version 5 takes a password without a user, and a byte order mark is an ordinary character.
        ("10 13 0004 4d515454 05 42 0000 00 0003 efbbbf 0001 70", Version::V5, true),
    ] {
        let bytes = hex(text);
        let Ok(Packet::Connect(connect)) = decode(&bytes, None) else { panic!("{:?}", decode(&bytes, None)) };
        assert_eq!((connect.version, connect.clean_start), (version, clean), "{text}");
    }
}

#[test]
fn fixed_headers_are_judged_before_their_body() {
    // Only these bytes are there; `None` asks for more.
    let cases: &[(&str, Option<Version>, Result<bool, u8>)] = &[
        ("", V5, Ok(false)),
        ("30", V5, Ok(false)),
        ("30 80", V5, Ok(false)),
        ("30 808080", V5, Ok(false)),
        ("30 80808080", V5, Err(0x81)),
        ("30 ffffffff", V5, Err(0x81)),
        ("30 ffffff7f", V5, Err(0x95)),
        ("30 8000", V5, Ok(true)),
        // Reserved types and flags.
        ("00", V5, Err(0x81)),
        ("00", None, Err(0x81)),
        ("f0", V3, Err(0x81)),
        ("f0 00", V5, Ok(true)),
        ("f1", V5, Err(0x81)),
        ("11", None, Err(0x81)),
        ("41", V5, Err(0x81)),
        ("51", V5, Err(0x81)),
        ("60", V5, Err(0x81)),
        ("63", V5, Err(0x81)),
        ("71", V5, Err(0x81)),
        ("80", V5, Err(0x81)),
        ("83", V5, Err(0x81)),
        ("a0", V5, Err(0x81)),
        ("c1", V5, Err(0x81)),
        ("e1", V5, Err(0x81)),
        ("8a", V3, Err(0x81)),
        ("8a", Some(Version::V31), Ok(false)),
        // Only servers send these.
        ("20", V5, Err(0x82)),
        ("90", V5, Err(0x82)),
        ("b0", V3, Err(0x82)),
        ("d0", V5, Err(0x82)),
        // Before CONNECT.
        ("30", None, Err(0x82)),
        ("c0", None, Err(0x82)),
        ("f0", None, Err(0x82)),
        ("10", None, Ok(false)),
        // Lengths that the type alone decides.
        ("c0 01", V5, Err(0x81)),
        ("e0 01", V3, Err(0x81)),
        ("e0 01", V5, Ok(true)),
        ("40 03", V3, Err(0x81)),
        ("40 01", V3, Err(0x81)),
        ("62 04", V3, Err(0x81)),
        ("40 03", V5, Ok(true)),
    ];
    for (text, version, expected) in cases {
        let got = split(&hex(text), *version, 1 << 20)
            .map(|frame| frame.is_some())
            .map_err(|error| error.reason as u8);
        assert_eq!(got, *expected, "{text} {version:?}");
    }
}

#[test]
fn bad_packets_have_their_reason() {
    let cases: &[(&str, Option<Version>, u8)] = &[
        // PUBLISH: QoS 3, DUP with QoS 0, wildcards, U+0000, identifier 0, no topic, short.
        ("36 05 0001 74 0001", V3, 0x81),
        ("38 03 0001 74", V3, 0x81),
        ("30 03 0001 23", V3, 0x90),
        ("30 05 0003 612f2b", V3, 0x90),
        ("30 03 0001 00", V3, 0x81),
        ("30 04 0002 c328", V3, 0x81),
        ("32 05 0001 74 0000", V3, 0x81),
        ("32 03 0001 74", V3, 0x81),
        ("30 02 0000", V3, 0x82),
        ("30 03 0000 00", V5, 0x82),
        ("30 01 00", V3, 0x81),
        ("30 00", V3, 0x81),
        ("30 03 0001 74", V5, 0x81),
        // PUBLISH properties.
        ("30 06 0001 74 02 0b 01", V5, 0x82),
        ("30 09 0001 74 05 11 00000001", V5, 0x82),
        ("30 06 0001 74 02 01 02", V5, 0x82),
        ("30 08 0001 74 04 01 00 01 00", V5, 0x82),
        ("30 0a 0001 74 06 23 0001 23 0002", V5, 0x82),
        ("30 08 0001 74 04 08 0001 2b", V5, 0x82),
        ("30 07 0001 74 03 08 0000", V5, 0x82),
        ("30 06 0001 74 02 55 00", V5, 0x81),
        ("30 08 0001 74 04 03 0001 ff", V5, 0x81),
        ("30 07 0001 74 03 02 0000", V5, 0x81),
        // Acknowledgements: identifier 0, an unknown code, a code of another packet, a bad property.
        ("40 02 0000", V3, 0x81),
        ("40 02 0000", V5, 0x81),
        ("40 01 00", V5, 0x81),
        ("40 03 0001 01", V5, 0x82),
        ("40 03 0001 92", V5, 0x82),
        ("62 03 0001 10", V5, 0x82),
        ("70 03 0001 80", V5, 0x82),
        ("40 06 0001 00 02 01 00", V5, 0x82),
        ("40 05 0001 00 00 00", V5, 0x81),
        ("40 0c 0001 00 08 1f 0001 61 1f 0001 61", V5, 0x82),
        // SUBSCRIBE: no filter, identifier 0, QoS 3, reserved bits, retain handling 3, subscription id 0.
        ("82 02 0001", V3, 0x82),
        ("82 06 0000 0001 61 00", V3, 0x81),
        ("82 06 0001 0001 61 03", V3, 0x81),
        ("82 06 0001 0001 61 04", V3, 0x81),
        ("82 06 0001 0001 61 80", V3, 0x81),
        ("82 05 0001 0001 61", V3, 0x81),
        ("82 03 0001 00", V5, 0x82),
        ("82 07 0001 00 0001 61 03", V5, 0x81),
        ("82 07 0001 00 0001 61 40", V5, 0x81),
        ("82 07 0001 00 0001 61 80", V5, 0x81),
        ("82 07 0001 00 0001 61 30", V5, 0x81),
        ("82 09 0001 02 0b 00 0001 61 00", V5, 0x82),
        ("82 0b 0001 04 0b 01 0b 02 0001 61 00", V5, 0x82),
        ("82 0c 0001 05 0b ffffffff 0001 61 00", V5, 0x81),
        ("82 09 0001 02 01 00 0001 61 00", V5, 0x82),
        ("82 07 0001 00 0001 00 00", V5, 0x81),
        // UNSUBSCRIBE.
        ("a2 02 0001", V3, 0x82),
        ("a2 03 0001 00", V5, 0x82),
        ("a2 05 0000 0001 61", V3, 0x81),
        ("a2 06 0001 0001 61 00", V3, 0x81),
        ("a2 08 0001 02 0b 01 0001 61", V5, 0x82),
        // DISCONNECT and AUTH.
        ("e0 01 05", V5, 0x82),
        ("e0 01 8d", V5, 0x82),
        ("e0 07 00 05 21 00000001", V5, 0x82),
        ("e0 04 00 02 55 00", V5, 0x81),
        ("e0 03 00 00 00", V5, 0x81),
        ("f0 00", V5, 0x82),
        ("f0 01 00", V5, 0x82),
        ("f0 01 1a", V5, 0x82),
    ];
    for (text, version, expected) in cases {
        assert_eq!(reason(text, *version), Some(*expected), "{text} {version:?}");
    }
}

#[test]
fn good_packets_are_taken() {
    let cases: &[(&str, Option<Version>)] = &[
        ("30 03 0001 74", V3),
        ("38 03 0001 74", Some(Version::V31)),
        ("3d 07 0003 612f62 0001", V3),
        ("30 04 0001 74 00", V5),
        ("30 06 0000 03 23 0001", V5),
        // Aliases of 0 are refused where the connection's maximum is known, with 0x94.
        ("30 07 0001 74 03 23 0000", V5),
        // A message expiry of 0, and user properties again and again.
        ("30 09 0001 74 05 02 00000000", V5),
        ("30 12 0001 74 0e 26 0001 61 0001 62 26 0001 61 0001 62", V5),
        ("40 02 0001", V3),
        ("40 02 0001", V5),
        ("40 03 0001 00", V5),
        ("40 03 0001 10", V5),
        ("40 04 0001 87 00", V5),
        ("50 08 0001 80 04 1f 0001 61", V5),
        ("62 03 0001 92", V5),
        ("70 02 ffff", V5),
        ("82 06 0001 0001 61 02", V3),
        ("82 0b 0001 0001 61 00 0002 6162 01", V3),
        ("82 07 0001 00 0001 61 2e", V5),
        ("82 0c 0001 05 0b ffffff7f 0001 61 00", V5),
        // An empty filter is answered in SUBACK.
        ("82 05 0001 0000 00", V3),
        ("a2 05 0001 0001 61", V3),
        ("a2 06 0001 00 0001 61", V5),
        ("c0 00", V3),
        ("e0 00", V3),
        ("e0 00", V5),
        ("e0 01 04", V5),
        ("e0 02 00 00", V5),
        ("e0 07 00 05 11 00000001", V5),
        ("f0 01 18", V5),
        ("f0 02 19 00", V5),
        ("f0 0a 18 08 15 0001 6d 16 0001 64", V5),
    ];
    for (text, version) in cases {
        let got = decode(&hex(text), *version).map(|_| ());
        assert_eq!(got, Ok(()), "{text} {version:?}");
    }
}

#[test]
fn a_subscribe_gives_its_filters_in_order() {
    let bytes = hex("82 10 0009 02 0b 07 0001 61 2d 0002 622f 10 00");
    let bytes = [&[0x82, bytes.len() as u8 - 3], &bytes[2..bytes.len() - 1]].concat();
    let Ok(Packet::Subscribe(subscribe)) = decode(&bytes, V5) else { panic!("{:?}", decode(&bytes, V5)) };
    assert_eq!((subscribe.packet_id, subscribe.subscription_id), (9, Some(7)));
    let filters: Vec<_> = subscribe.filters().collect();
    assert_eq!(filters[0].0, "a");
    let options = filters[0].1;
    assert!(options.no_local && options.retain_as_published);
    assert_eq!((options.qos, options.retain_handling), (Qos::AtLeastOnce, RetainHandling::DoNotSend));
    assert_eq!((filters[1].0, filters[1].1.retain_handling), ("b/", RetainHandling::SendIfNew));
    assert_eq!(filters.len(), 2);
}

#[test]
fn topic_filters_become_the_cores() {
    for (filter, text) in [
        ("a/b", Some("a/b")),
        ("/", Some("/")),
        ("+", Some("*")),
        ("a/+/#", Some("a/*/#")),
        ("#", Some("#")),
        ("+/+", Some("*/*")),
        ("", None),
        ("#/a", None),
        ("a/#/b", None),
        ("a#", None),
        ("a/b#", None),
        ("+a", None),
        ("a/+b/c", None),
        ("##", None),
    ] {
        assert_eq!(channel_filter(filter).ok().map(|filter| filter.to_string()).as_deref(), text, "{filter}");
    }
}

#[test]
fn shared_filters_need_a_group_and_a_filter() {
    for (filter, expected) in [
        ("a/b", Ok(None)),
        ("$shared/g/a", Ok(None)),
        ("$share/g/a/#", Ok(Some(Share { group: "g", filter: "a/#" }))),
        ("$share/g//", Ok(Some(Share { group: "g", filter: "/" }))),
        ("$share", Err(())),
        ("$share/", Err(())),
        ("$share/g", Err(())),
        ("$share/g/", Err(())),
        ("$share//a", Err(())),
        ("$share/+/a", Err(())),
        ("$share/g#/a", Err(())),
    ] {
        assert_eq!(split_share(filter).map_err(|_| ()), expected, "{filter}");
    }
}

const RAW3: Dialect = Dialect { version: Version::V311, framing: Framing::Raw };
const RAW5: Dialect = Dialect { version: Version::V5, framing: Framing::Raw };
const WS5: Dialect = Dialect { version: Version::V5, framing: Framing::WebSocket };

#[test]
fn packets_are_written_in_their_shortest_form() {
    let denied = Reason::NotAuthorized;
    let cases: Vec<(Bytes, &str)> = vec![
        (pingresp(Framing::Raw), "d0 00"),
        (pingresp(Framing::WebSocket), "82 02 d0 00"),
        (ack(RAW3, AckKind::PubAck, 7, denied, Some("x")), "40 02 0007"),
        (ack(RAW5, AckKind::PubAck, 7, Reason::Success, Some("x")), "40 02 0007"),
        (ack(RAW5, AckKind::PubRec, 7, denied, None), "50 03 0007 87"),
        (ack(RAW5, AckKind::PubRel, 7, denied, Some("x")), "62 08 0007 87 04 1f 0001 78"),
        (ack(WS5, AckKind::PubComp, 7, Reason::Success, None), "82 04 70 02 0007"),
        (suback(RAW3, 7, &[Reason::GrantedQos2, denied], Some("no")), "90 04 0007 02 80"),
        (suback(RAW5, 7, &[Reason::GrantedQos2, denied], None), "90 05 0007 00 02 87"),
        (suback(RAW5, 7, &[denied], Some("n\0")), "90 09 0007 05 1f 0002 6e20 87"),
        (unsuback(RAW3, 7, &[Reason::Success]), "b0 02 0007"),
        (unsuback(RAW5, 7, &[Reason::Success, Reason::NoSubscriptionExisted]), "b0 05 0007 00 00 11"),
        (disconnect(RAW3, denied, None), ""),
        (disconnect(RAW5, Reason::Success, None), "e0 00"),
        (disconnect(RAW5, denied, None), "e0 01 87"),
        (disconnect(RAW5, denied, Some("x")), "e0 06 87 04 1f 0001 78"),
        (auth(Framing::Raw, Reason::Success, "m", None), "f0 06 00 04 15 0001 6d"),
        (connack(RAW3, &ConnAck::only(denied)), "20 02 00 05"),
        (connack(RAW3, &ConnAck::only(Reason::ProtocolError)), ""),
        (connack(RAW5, &ConnAck::only(denied)), "20 03 00 87 00"),
        (
            connack(
                RAW5,
                &ConnAck {
                    receive_maximum: 100,
                    topic_alias_maximum: 10,
                    session_present: true,
                    ..ConnAck::only(Reason::Success)
                },
            ),
            "20 09 01 00 06 22 000a 21 0064",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(bytes, hex(expected), "{expected}");
    }
}

#[test]
fn a_publish_is_written_with_what_is_the_subscribers_own() {
    let payload = Bytes::from_static(b"hi");
    let header = PublishHeader {
        qos: Qos::AtLeastOnce,
        dup: true,
        retain: true,
        packet_id: 5,
        topic: "t",
        topic_alias: 3,
        subscription_ids: &[1, 128],
    };
    let text = |dialect, header, properties: &str| {
        publish(dialect, header, &hex(properties), &payload, Sharing::Allowed).unwrap()
    };
    let v5 = text(RAW5, &header, "01 01");
    assert_eq!(v5.head, hex("3b 12 0001 74 0005 0a 23 0003 0b 01 0b 8001 01 01 6869"));
    assert_eq!(v5.packet_bytes, v5.head.len());
    let bare = PublishHeader { topic_alias: 0, subscription_ids: &[], ..header };
    let v3 = text(RAW3, &bare, "");
    assert_eq!(v3.head, hex("3b 07 0001 74 0005 6869"));
    let nothing = PublishHeader::plain("t");
    let plain = text(WS5, &nothing, "");
    assert_eq!((&plain.head[..], plain.packet_bytes), (&hex("82 08 30 06 0001 74 00 6869")[..], 8));
}

#[test]
fn a_large_payload_is_a_slice_of_its_own_and_a_huge_packet_is_refused() {
    let payload = Bytes::from(vec![7; 3000]);
    let shared = publish(WS5, &PublishHeader::plain("t"), &[], &payload, Sharing::Allowed).unwrap();
    assert_eq!(shared.tail.as_ref().unwrap().as_ptr(), payload.as_ptr());
    let one = publish(WS5, &PublishHeader::plain("t"), &[], &payload, Sharing::OneBuffer).unwrap();
    assert_eq!(one.head, [&shared.head[..], &payload].concat());
    assert!(
        publish(RAW3, &PublishHeader::plain(&"t".repeat(65_536)), &[], &payload, Sharing::Allowed).is_none()
    );
}

/// What the encoder writes, the decoder reads: packets that go both ways.
#[test]
fn what_is_written_reads_back() {
    for bytes in [0, 1, 100, 127, 128, 16_383, 16_384, 300_000] {
        let payload = Bytes::from(vec![1; bytes]);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for dialect in [RAW3, RAW5] {
                let header = PublishHeader { qos, packet_id: 9, ..PublishHeader::plain("a/b") };
                let packet = publish(dialect, &header, &[], &payload, Sharing::OneBuffer).unwrap();
                let Ok(Packet::Publish(read)) = decode(&packet.head, Some(dialect.version)) else {
                    panic!("{bytes}")
                };
                assert_eq!((read.topic, read.payload, read.qos), ("a/b", &payload[..], qos));
                assert_eq!(read.packet_id, if qos == Qos::AtMostOnce { 0 } else { 9 });
            }
        }
    }
}

/// No input may do anything but decode or fail: mutations of good packets, and noise.
#[test]
fn noise_is_refused_without_a_panic() {
    let seeds = [
        "10 13 0004 4d515454 05 42 0000 00 0003 efbbbf 0001 70",
        "30 12 0001 74 0e 26 0001 61 0001 62 26 0001 61 0001 62",
        "82 0c 0001 05 0b ffffff7f 0001 61 00",
        "f0 0a 18 08 15 0001 6d 16 0001 64",
        "e0 07 00 05 11 00000001",
    ];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    for round in 0..200_000 {
        let mut bytes = hex(seeds[round % seeds.len()]);
        for _ in 0..next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(next() % 4 * 8 + bytes.len() % 8 + 1);
        for version in [None, V3, V5] {
            if let Ok(Some(frame)) = split(&bytes, version, 1 << 20) {
                let body = bytes.get(frame.header..).unwrap_or_default();
                let body = body.get(..frame.body).unwrap_or(body);
                if let Ok(Packet::Subscribe(subscribe)) = parse(&frame, body, version.unwrap_or(Version::V5))
                {
                    assert!(subscribe.filters().count() > 0);
                }
            }
        }
    }
}
