use bytes::BytesMut;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::encode;

/// A client's frame, written by hand.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xa1, 0x5e, 0x00, 0x7f];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn read_all(assembler: &mut Assembler, wire: &[u8]) -> Result<Vec<Incoming>, Violation> {
    let mut input = BytesMut::from(wire);
    let mut out = Vec::new();
    while let Some(incoming) = assembler.feed(&mut input)? {
        out.push(incoming);
    }
    Ok(out)
}

fn text(payload: &str) -> Incoming {
    Incoming::Text(Bytes::copy_from_slice(payload.as_bytes()))
}

#[test]
fn violations_have_their_close_codes() {
    use CloseCode::{Invalid, Protocol, Size};
    let limits = Limits { max_frame_bytes: 200, max_message_bytes: 300 };
    let fragment = |first: u8, length: usize| client_frame(first, &vec![b'x'; length]);
    let cases: Vec<(&str, Vec<u8>, CloseCode)> = vec![
        ("unmasked", vec![0x81, 0x02, b'h', b'i'], Protocol),
        ("unmasked, length not there yet", vec![0x81, 126], Protocol),
        ("plain http", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Protocol),
        ("rsv1 without deflate", client_frame(0xc1, b"hi"), Protocol),
        ("rsv2", client_frame(0xa1, b"hi"), Protocol),
        ("rsv3", client_frame(0x91, b"hi"), Protocol),
        ("reserved data opcode 3", client_frame(0x83, b""), Protocol),
        ("reserved data opcode 7", client_frame(0x87, b""), Protocol),
        ("reserved control opcode 11", client_frame(0x8b, b""), Protocol),
        ("reserved control opcode 15", client_frame(0x8f, b""), Protocol),
        ("fragmented ping", client_frame(0x09, b""), Protocol),
        ("long ping", client_frame(0x89, &[0; 126]), Protocol),
        ("ping with rsv1", client_frame(0xc9, b""), Protocol),
        ("continuation of nothing", client_frame(0x80, b"hi"), Protocol),
        (
            "continuation after the end",
            [client_frame(0x81, b"a"), client_frame(0x80, b"b")].concat(),
            Protocol,
        ),
        ("text inside text", [client_frame(0x01, b"a"), client_frame(0x81, b"b")].concat(), Protocol),
        ("length not shortest, 16 bit", vec![0x81, 0xfe, 0, 5, 1, 2, 3, 4, 0, 0, 0, 0, 0], Protocol),
        ("length not shortest, 64 bit", vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4], Protocol),
        ("length with top bit", vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], Protocol),
        ("half a close code", client_frame(0x88, &[3]), Protocol),
        ("close 999", client_frame(0x88, &999u16.to_be_bytes()), Protocol),
        ("close 1004", client_frame(0x88, &1004u16.to_be_bytes()), Protocol),
        ("close 1005", client_frame(0x88, &1005u16.to_be_bytes()), Protocol),
        ("close 1006", client_frame(0x88, &1006u16.to_be_bytes()), Protocol),
        ("close 1015", client_frame(0x88, &1015u16.to_be_bytes()), Protocol),
        ("close 2999", client_frame(0x88, &2999u16.to_be_bytes()), Protocol),
        ("close 5000", client_frame(0x88, &5000u16.to_be_bytes()), Protocol),
        ("close reason not utf-8", client_frame(0x88, &[0x03, 0xe8, 0xff]), Invalid),
        ("text not utf-8", client_frame(0x81, &[0xc3, 0x28]), Invalid),
        ("text ends inside a character", client_frame(0x81, &[0xe2, 0x82]), Invalid),
        ("surrogate in text", client_frame(0x81, &[0xed, 0xa0, 0x80]), Invalid),
        ("frame too big", fragment(0x81, 201), Size),
        ("frame too big, header only", vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], Size),
        ("message too big", [fragment(0x02, 200), fragment(0x80, 101)].concat(), Size),
    ];
    for (name, wire, expected) in cases {
        let mut assembler = Assembler::new(limits, None);
        match read_all(&mut assembler, &wire) {
            Err(violation) => assert_eq!(violation.close_code, expected, "{name}: {violation}"),
            Ok(incoming) => panic!("{name}: {incoming:?}"),
        }
        assert!(assembler.is_finished(), "{name}");
        assert_eq!(read_all(&mut assembler, &client_frame(0x81, b"later")), Ok(vec![]), "{name}");
    }
}

#[test]
fn legal_input_is_taken() {
    let close = |code: u16, reason: &str| {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.bytes());
        client_frame(0x88, &payload)
    };
    let cases: Vec<(&str, Vec<u8>, Vec<Incoming>)> = vec![
        ("empty text", client_frame(0x81, b""), vec![text("")]),
        ("text", client_frame(0x81, "grüße".as_bytes()), vec![text("grüße")]),
        ("binary", client_frame(0x82, &[0, 255]), vec![Incoming::Binary(Bytes::from_static(&[0, 255]))]),
        (
            "fragments with a character cut and a ping between",
            [
                client_frame(0x01, &[b'a', 0xc3]),
                client_frame(0x89, b"p"),
                client_frame(0x00, b""),
                client_frame(0x80, &[0xbc]),
            ]
            .concat(),
            vec![Incoming::Ping("p".into()), text("aü")],
        ),
        ("pong", client_frame(0x8a, b"x"), vec![Incoming::Pong("x".into())]),
        ("bare close", client_frame(0x88, b""), vec![Incoming::Close { code: None, reason: String::new() }]),
        (
            "close with reason, then nothing counts",
            [close(1000, "bye"), client_frame(0x81, b"late")].concat(),
            vec![Incoming::Close { code: Some(CloseCode::Normal), reason: "bye".into() }],
        ),
        (
            "registered code",
            close(3000, ""),
            vec![Incoming::Close { code: Some(CloseCode::Iana(3000)), reason: String::new() }],
        ),
        (
            "private code",
            close(4999, ""),
            vec![Incoming::Close { code: Some(CloseCode::Library(4999)), reason: String::new() }],
        ),
        (
            "1014",
            close(1014, ""),
            vec![Incoming::Close { code: Some(CloseCode::Iana(1014)), reason: String::new() }],
        ),
    ];
    for (name, wire, expected) in cases {
        let mut whole = Assembler::new(Limits::default(), None);
        assert_eq!(read_all(&mut whole, &wire).as_ref(), Ok(&expected), "{name}");
        let mut single = Assembler::new(Limits::default(), None);
        let mut got = Vec::new();
        for byte in &wire {
            got.extend(read_all_keep(&mut single, std::slice::from_ref(byte)));
        }
        assert_eq!(got, expected, "{name}, byte by byte");
    }
}

thread_local!(static PENDING: std::cell::RefCell<BytesMut> = std::cell::RefCell::new(BytesMut::new()));

/// Like a connection: bytes not yet used stay in the read buffer.
fn read_all_keep(assembler: &mut Assembler, wire: &[u8]) -> Vec<Incoming> {
    PENDING.with_borrow_mut(|input| {
        input.extend_from_slice(wire);
        let mut out = Vec::new();
        while let Some(incoming) = assembler.feed(input).expect("legal input") {
            out.push(incoming);
        }
        out
    })
}

#[test]
fn an_idle_assembler_holds_nothing() {
    let mut assembler = Assembler::new(Limits::default(), None);
    let wire = [client_frame(0x01, &[b'a'; 5000]), client_frame(0x80, &[b'b'; 5000])].concat();
    let mut input = BytesMut::from(&wire[..]);
    assert!(matches!(assembler.feed(&mut input), Ok(Some(Incoming::Text(_)))));
    assert!(matches!(assembler.feed(&mut input), Ok(None)));
    assert_eq!((input.capacity(), assembler.message.capacity()), (0, 0));
    assert!(size_of::<Assembler>() <= 120, "{}", size_of::<Assembler>());
}

#[test]
fn a_header_alone_allocates_nothing() {
    let mut assembler = Assembler::new(Limits::default(), None);
    let mut input = BytesMut::from(&[0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4][..]);
    assert_eq!(assembler.feed(&mut input), Ok(None));
    assert_eq!((input.capacity(), assembler.message.capacity()), (0, 0));
}

#[test]
fn binary_streams_come_out_as_they_come_in() {
    let mut assembler = Assembler::binary_stream(Limits::default(), None);
    let wire = [client_frame(0x02, b"abcdef"), client_frame(0x89, b"p"), client_frame(0x80, b"ghi")].concat();
    let (head, tail) = wire.split_at(9);
    let part = |bytes: &'static [u8]| Incoming::BinaryPart(Bytes::from_static(bytes));
    assert_eq!(read_all(&mut assembler, head), Ok(vec![part(b"abc")]));
    assert_eq!(
        read_all(&mut assembler, tail),
        Ok(vec![part(b"def"), Incoming::Ping("p".into()), part(b"ghi")])
    );
    let text = read_all(&mut assembler, &client_frame(0x81, b"hi"));
    assert_eq!(text.unwrap_err().close_code, CloseCode::Unsupported);
}

#[test]
fn a_stream_message_is_bounded_over_its_fragments() {
    let limits = Limits { max_frame_bytes: 100, max_message_bytes: 150 };
    let mut assembler = Assembler::binary_stream(limits, None);
    let fragment = |first| client_frame(first, &[0; 100]);
    assert!(read_all(&mut assembler, &[fragment(0x02), client_frame(0x80, &[0; 50])].concat()).is_ok());
    let error = read_all(&mut assembler, &[fragment(0x02), fragment(0x80)].concat()).unwrap_err();
    assert_eq!(error.close_code, CloseCode::Size);
}

/// What a client that negotiated permessage-deflate sends: our own frame, masked.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(crate::deflate::deflate(payload, &mut out));
    out
}

#[test]
fn compressed_messages_inflate_over_fragments() {
    let mut assembler = Assembler::new(Limits::default(), Some(DeflateParams));
    let payload = "[{\"channel\":\"/a\"}]".repeat(100);
    let deflated = compressed(payload.as_bytes());
    let (head, tail) = deflated.split_at(deflated.len() / 2);
    let wire = [client_frame(0x41, head), client_frame(0x80, tail), client_frame(0x81, b"plain")].concat();
    assert_eq!(read_all(&mut assembler, &wire), Ok(vec![text(&payload), text("plain")]));
    let again = [client_frame(0x41, head), client_frame(0xc0, tail)].concat();
    assert_eq!(read_all(&mut assembler, &again).unwrap_err().close_code, CloseCode::Protocol);
}

#[test]
fn a_bomb_is_too_big() {
    let limits = Limits { max_frame_bytes: 100_000, max_message_bytes: 100_000 };
    let wire = client_frame(0xc1, &compressed(&vec![b' '; 10_000_000]));
    let error = read_all(&mut Assembler::new(limits, Some(DeflateParams)), &wire).unwrap_err();
    assert_eq!(error.close_code, CloseCode::Size);
}

#[test]
fn a_compressed_frame_is_bounded_by_what_it_inflates_to() {
    let limits = Limits { max_frame_bytes: 2_000, max_message_bytes: 5_000 };
    let read = |wire: &[u8]| {
        let mut assembler = Assembler::new(limits, Some(DeflateParams));
        // Byte by byte too: what a frame is does not depend on how it comes.
        let mut slowly = Assembler::new(limits, Some(DeflateParams));
        let all = read_all(&mut assembler, wire);
        let mut input = BytesMut::new();
        let mut pieces = Ok(Vec::new());
        for byte in wire {
            input.extend_from_slice(&[*byte]);
            match (slowly.feed(&mut input), &mut pieces) {
                (Ok(message), Ok(messages)) => messages.extend(message),
                (Err(violation), _) => pieces = Err(violation),
                _ => {}
            }
        }
        assert_eq!(pieces, all);
        all.map_err(|violation| violation.to_string())
    };
    let part = |length: usize| [&compressed(&vec![b' '; length])[..], &[0, 0, 0xff, 0xff]].concat();
    let whole = |length: usize| text(&" ".repeat(length));
    assert_eq!(read(&client_frame(0xc1, &part(2_000))), Ok(vec![whole(2_000)]));
    assert_eq!(read(&client_frame(0xc1, &part(2_001))), Err("frame too big once inflated (1009)".to_owned()));
    let frames = |lengths: [usize; 3]| {
        let [one, two, three] = lengths.map(part);
        [client_frame(0x41, &one), client_frame(0x00, &two), client_frame(0x80, &three)].concat()
    };
    assert_eq!(read(&frames([2_000, 1_000, 2_000])), Ok(vec![whole(5_000)]));
    assert_eq!(read(&frames([1_000, 2_001, 1_000])), Err("frame too big once inflated (1009)".to_owned()));
    assert_eq!(read(&frames([2_000, 2_000, 1_001])), Err("message too big once inflated (1009)".to_owned()));
}

#[test]
fn what_does_not_inflate_is_invalid() {
    let wire = client_frame(0xc1, &[0xff, 0xfe, 0xfd]);
    let error = read_all(&mut Assembler::new(Limits::default(), Some(DeflateParams)), &wire).unwrap_err();
    assert_eq!(error.close_code, CloseCode::Invalid);
}

#[test]
fn our_own_frames_come_back_once_masked() {
    let payload = vec![b'z'; 70_000];
    let frame = encode::frame(encode::TEXT, &payload);
    assert_eq!(frame.len(), 70_010);
    let deflated = encode::deflated(&payload);
    assert_eq!((deflated[0], deflated[1]), (0xc1, 126));
    let wire = client_frame(0xc1, &deflated[4..]);
    let read = read_all(&mut Assembler::new(Limits::default(), Some(DeflateParams)), &wire);
    assert_eq!(read, Ok(vec![Incoming::Text(payload.into())]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_messages(
        messages in proptest::collection::vec((".{0,300}", 1usize..4), 1..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let mut wire = Vec::new();
        for (message, fragments) in &messages {
            let chunk = message.len().div_ceil(*fragments).max(1);
            let pieces: Vec<&[u8]> =
                if message.is_empty() { vec![b""] } else { message.as_bytes().chunks(chunk).collect() };
            for (index, piece) in pieces.iter().enumerate() {
                let opcode = if index == 0 { 1 } else { 0 };
                let fin = if index + 1 == pieces.len() { 0x80 } else { 0 };
                wire.extend(client_frame(fin | opcode, piece));
                wire.extend(client_frame(0x8a, b""));
            }
        }
        let mut points: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        points.extend([0, wire.len()]);
        points.sort_unstable();
        let mut assembler = Assembler::new(Limits::default(), None);
        let mut input = BytesMut::new();
        let mut got = Vec::new();
        for pair in points.windows(2) {
            input.extend_from_slice(&wire[pair[0]..pair[1]]);
            while let Some(incoming) = assembler.feed(&mut input).unwrap() {
                if !matches!(incoming, Incoming::Pong(_)) {
                    got.push(incoming);
                }
            }
        }
        let expected: Vec<Incoming> = messages.iter().map(|(message, _)| text(message)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn garbage_never_panics(wire in proptest::collection::vec(any::<u8>(), 0..200), deflate: bool) {
        let limits = Limits { max_frame_bytes: 100, max_message_bytes: 100 };
        let _ = read_all(&mut Assembler::new(limits, deflate.then_some(DeflateParams)), &wire);
    }
}
