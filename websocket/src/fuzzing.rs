//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};

use crate::deflate::{deflate, inflate, inflate_frames};
use crate::handshake::{Options, accept};
use crate::{
    CloseCode, Conversation, DeflateParams, End, Limits, OpCode, Patience, Pulse, Turn, decode, encode,
};

/// Small, so that a fuzzer comes to them.
const LIMITS: Limits = Limits { max_frame_bytes: 300, max_message_bytes: 500 };

/// What the peer sends, then in pieces, unmasked or as it is: the same is made of it, it is what a decoder written from
/// the standard makes of it, and no more is held than may be. The first byte chooses: whether compression was
/// negotiated, whether masks are put in by us (a fuzzer finds no text behind random masks), and the pieces.
pub fn frames(bytes: &[u8]) {
    let Some((&how, rest)) = bytes.split_first() else { return };
    opened(rest);
    compressed(rest);
    kept_alive(rest);
    let masked;
    let wire = if how & 2 == 0 {
        rest
    } else {
        masked = with_zero_masks(rest);
        &masked
    };
    let deflate = (how & 1 == 1).then_some(DeflateParams);
    let whole = turns(&mut Conversation::of_messages(LIMITS, deflate), wire, usize::MAX);
    let pieces = usize::from(how >> 2) + 1;
    assert_eq!(turns(&mut Conversation::of_messages(LIMITS, deflate), wire, pieces), whole);
    assert_eq!(read_by_the_book(wire, deflate.is_some()), whole.iter().map(Read::of).collect::<Vec<_>>());

    // A stream has the same bytes, in whatever parts.
    let text = |parts: Vec<Turn>| -> (Vec<u8>, Vec<Turn>) {
        let (binary, rest) = parts.into_iter().partition::<Vec<_>, _>(|turn| matches!(turn, Turn::Binary(_)));
        let bytes = binary.into_iter().flat_map(|turn| match turn {
            Turn::Binary(part) => part.to_vec(),
            _ => Vec::new(),
        });
        (bytes.collect(), rest)
    };
    let streamed = text(turns(&mut Conversation::of_bytes(LIMITS), wire, usize::MAX));
    assert_eq!(text(turns(&mut Conversation::of_bytes(LIMITS), wire, pieces)), streamed);
}

/// Gives each frame a mask of zeros.
fn with_zero_masks(mut rest: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    while let [first, second, tail @ ..] = rest {
        let length = usize::from(second & 0x7f).min(125).min(tail.len());
        wire.extend([*first, 0x80 | length as u8, 0, 0, 0, 0]);
        let (payload, tail) = tail.split_at(length);
        wire.extend_from_slice(payload);
        rest = tail;
    }
    wire
}

fn turns(conversation: &mut Conversation, wire: &[u8], pieces: usize) -> Vec<Turn> {
    let mut all = Vec::new();
    for piece in wire.chunks(pieces) {
        conversation.input().extend_from_slice(piece);
        while let Some(turn) = conversation.poll_turn() {
            // Nothing comes behind the last.
            assert!(!matches!(all.last(), Some(Turn::Last { .. })));
            if let Turn::Text(text) = &turn {
                assert!(std::str::from_utf8(text).is_ok() && text.len() <= LIMITS.max_message_bytes);
            }
            if !matches!(turn, Turn::Pong(_)) {
                all.push(turn);
            }
        }
        // A header, or a control frame, may wait besides, and with each byte of a compressed one the length of its frame.
        let held = conversation.unfinished_bytes().unwrap_or_default();
        assert!(held <= LIMITS.max_message_bytes * 5 + 14 + 125, "{held}");
    }
    all
}

/// What a turn is, so far as the standard says it.
#[derive(Debug, PartialEq)]
enum Read {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Fault(u16),
}

impl Read {
    fn of(turn: &Turn) -> Self {
        match turn {
            Turn::Text(text) => Read::Text(text.to_vec()),
            Turn::Binary(bytes) => Read::Binary(bytes.to_vec()),
            Turn::Answer(frame) => {
                assert_eq!(frame.first(), Some(&0x8a), "a pong");
                Read::Ping(frame.get(2..).expect("a short frame").to_vec())
            }
            Turn::Pong(_) => panic!("nobody looks at pongs here"),
            Turn::Last { end: End::Left { code, reason }, .. } => {
                Read::Close(code.map(u16::from), reason.clone().into_bytes())
            }
            Turn::Last { end: End::Fault(fault), .. } => Read::Fault(fault.close_code.into()),
        }
    }
}

const PROTOCOL: Read = Read::Fault(1002);
const INVALID: Read = Read::Fault(1007);
const TOO_BIG: Read = Read::Fault(1009);

/// RFC 6455 §5 and RFC 7692, of bytes that are all there.
fn read_by_the_book(mut wire: &[u8], compression: bool) -> Vec<Read> {
    let mut read = Vec::new();
    let mut open: Option<Begun> = None;
    loop {
        match next_by_the_book(&mut wire, &mut open, compression) {
            Some(Ok(None)) => {}
            Some(Ok(Some(one))) => {
                let last = matches!(one, Read::Close(..));
                read.push(one);
                if last {
                    return read;
                }
            }
            Some(Err(fault)) => {
                read.push(fault);
                return read;
            }
            None => return read,
        }
    }
}

/// First byte of the message, and what is there of its frames.
type Begun = (u8, Vec<Vec<u8>>);

fn next_by_the_book(
    wire: &mut &[u8],
    open: &mut Option<Begun>,
    compression: bool,
) -> Option<Result<Option<Read>, Read>> {
    let second = *wire.get(1)?;
    if second & 0x80 == 0 {
        return Some(Err(PROTOCOL));
    }
    let first = wire[0];
    let (length, at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(wire.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(wire.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask: [u8; 4] = wire.get(at..at + 4)?.try_into().ok()?;
    let (is_final, rsv1, rsv23, code) =
        (first & 0x80 != 0, first & 0x40 != 0, first & 0x30 != 0, first & 0x0f);
    let shortest = match at {
        4 => length >= 126,
        10 => length > 0xffff && length >> 63 == 0,
        _ => true,
    };
    if rsv23 || !shortest || !matches!(code, 0..=2 | 8..=10) {
        return Some(Err(PROTOCOL));
    }
    let is_control = code >= 8;
    if is_control && (!is_final || rsv1 || length > 125) {
        return Some(Err(PROTOCOL));
    }
    if !is_control {
        let begins = code != 0;
        if begins == open.is_some() || rsv1 && (!begins || !compression) {
            return Some(Err(PROTOCOL));
        }
        let before = open.as_ref().map_or(0, |(_, frames)| frames.iter().map(Vec::len).sum::<usize>() as u64);
        if length > LIMITS.max_frame_bytes as u64 || before + length > LIMITS.max_message_bytes as u64 {
            return Some(Err(TOO_BIG));
        }
    }
    let length = usize::try_from(length).ok()?;
    let masked = wire.get(at + 4..at + 4 + length)?;
    let payload: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    *wire = wire.get(at + 4 + length..)?;
    if is_control {
        return Some(match (code, &payload[..]) {
            (9, _) => Ok(Some(Read::Ping(payload))),
            (10, _) => Ok(None),
            (_, []) => Ok(Some(Read::Close(None, Vec::new()))),
            (_, [_]) => Err(PROTOCOL),
            (_, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                // §7.4: registered ones that may be sent, and the ranges of libraries and applications.
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    Err(PROTOCOL)
                } else if std::str::from_utf8(reason).is_err() {
                    Err(INVALID)
                } else {
                    Ok(Some(Read::Close(Some(code), reason.to_vec())))
                }
            }
        });
    }
    open.get_or_insert_with(|| (first, Vec::new())).1.push(payload);
    if !is_final {
        return Some(Ok(None));
    }
    let (begin, frames) = open.take()?;
    let Limits { max_frame_bytes, max_message_bytes } = LIMITS;
    let message = match begin & 0x40 {
        0 => frames.concat(),
        _ => {
            match inflate_frames(frames.iter().map(|frame| &frame[..]), max_frame_bytes, max_message_bytes) {
                Ok(message) => message,
                Err(fault) => return Some(Err(Read::Fault(fault.close_code.into()))),
            }
        }
    };
    Some(match begin & 0x0f {
        1 if std::str::from_utf8(&message).is_err() => Err(INVALID),
        1 => Ok(Some(Read::Text(message))),
        _ => Ok(Some(Read::Binary(message))),
    })
}

/// What is compressed comes out again, within the limit and not above; nonsense holds to it too.
fn compressed(payload: &[u8]) {
    let mut wire = Vec::new();
    assert!(deflate(payload, &mut wire));
    assert_eq!(inflate(&wire, payload.len()).as_deref(), Ok(payload));
    if !payload.is_empty() {
        assert_eq!(inflate(&wire, payload.len() - 1).map_err(|fault| fault.close_code), Err(CloseCode::Size));
    }
    for max in [0, 1, 100, 70_000] {
        match inflate(payload, max) {
            Ok(out) => assert!(out.len() <= max),
            Err(fault) => assert!(matches!(fault.close_code, CloseCode::Size | CloseCode::Invalid)),
        }
    }
    // A frame of ours is read as what was put in.
    if let Ok(text) = std::str::from_utf8(payload) {
        for frame in [encode::frame(OpCode::Data(crate::Data::Text), payload), encode::deflated(payload)] {
            assert_eq!(decode::text_of(&frame, payload.len()).as_deref(), Some(text.as_bytes()));
        }
    }
    let _ = decode::text_of(&Bytes::copy_from_slice(payload), 500);
}

/// Lines of header fields: what is accepted had what a browser sends, and gets what it asked for.
fn opened(bytes: &[u8]) {
    let mut request = Request::builder();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(at);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            request = request.header(name, value);
        }
    }
    let (parts, ()) = request.body(()).expect("it has legal fields").into_parts();
    let options = Options { protocols: &["mqtt", "mqttv3.1"], protocol_required: false, deflate: true };
    let Ok(accepted) = accept(&parts, &options) else { return };
    let has = |name: &str, wanted: &str| {
        parts
            .headers
            .get_all(name)
            .iter()
            .any(|value| value.to_str().unwrap_or_default().to_ascii_lowercase().contains(wanted))
    };
    assert!(
        has("upgrade", "websocket") && has("connection", "upgrade") && has("sec-websocket-version", "13")
    );
    assert_eq!(parts.headers.get("sec-websocket-key").map(HeaderValue::len), Some(24));
    if let Some(protocol) = &accepted.protocol {
        assert!(options.protocols.contains(&&**protocol) && has("sec-websocket-protocol", protocol));
    }
    assert!(accepted.deflate.is_none() || has("sec-websocket-extensions", "permessage-deflate"));
}

/// However it goes on, a silent client is asked, then given up, and there is always a moment to look again.
fn kept_alive(bytes: &[u8]) {
    let mut now = Instant::now();
    let patience = Patience::default();
    let mut pulse = Pulse::new(now);
    for byte in bytes.iter().take(50) {
        now += Duration::from_millis(u64::from(*byte) * 500);
        if byte % 3 == 0 {
            pulse.handle_read(now);
        }
        let _ = pulse.handle_timeout(now, &patience);
        if let Some(at) = pulse.poll_timeout(&patience) {
            assert!(at >= pulse.last_read());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_by_the_book(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::frames(&bytes);
        }
    }

    #[test]
    fn the_corpus_of_frames_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/websocket_frames");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            super::frames(&std::fs::read(&file).unwrap());
        }
    }
}
