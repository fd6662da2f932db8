//! Any bytes as a stream of packets: what comes of them must not depend on how they are cut into reads and
//! WebSocket frames.

use bytes::Bytes;

use super::Choices;
use crate::codec::{self, Framing, Version};
use crate::transport::{Control, Input};

/// Bound on packets, small enough that a fuzzer meets it.
const MAX_PACKET_BYTES: usize = 5_000;

/// Byte 0: version and mode. Byte 1: how reads are cut. The rest: the stream.
pub fn decoder(data: &[u8]) {
    let mut choices = Choices(data);
    let mode = choices.byte();
    let cuts = choices.byte();
    // A frame of more than four packets is refused, which is not the subject here.
    let stream = choices.bytes(3 * MAX_PACKET_BYTES);
    let version = match mode & 3 {
        0 => None,
        1 => Some(Version::V31),
        2 => Some(Version::V311),
        _ => Some(Version::V5),
    };
    if mode & 4 != 0 {
        // Hostile frames: only what the frames carry is known, so there is nothing to compare with.
        _ = read(Framing::WebSocket, version, stream, cuts);
        return;
    }
    let whole = read(Framing::Raw, version, stream, 0);
    assert_eq!(whole, read(Framing::Raw, version, stream, cuts), "cut into reads");
    let framed = frames(stream, cuts);
    assert_eq!(whole, read(Framing::WebSocket, version, &framed, 0), "cut into frames");
    assert_eq!(whole, read(Framing::WebSocket, version, &framed, cuts), "cut into frames and reads");
}

/// Every packet up to the first that is none, in words, and why that one is none.
fn read(framing: Framing, version: Option<Version>, stream: &[u8], cuts: u8) -> Vec<String> {
    let mut input = Input::new(framing, MAX_PACKET_BYTES);
    let mut got = Vec::new();
    // CONNECT says which version follows.
    let mut version = version;
    for part in parts(stream, cuts) {
        input.buffer().extend_from_slice(part);
        while let Some(control) = input.unframe() {
            if let Control::Close(_) = control {
                return got;
            }
        }
        loop {
            let whole = match input.next(version, MAX_PACKET_BYTES) {
                Ok(None) => break,
                Ok(Some(whole)) => whole,
                Err(error) => {
                    got.push(format!("{error:?}"));
                    return got;
                }
            };
            match input.parse(&whole, version.unwrap_or(Version::V5)) {
                Ok(packet) => {
                    look_through(&packet);
                    if let codec::Packet::Connect(connect) = &packet {
                        version = version.or(Some(connect.version));
                    }
                    got.push(format!("{packet:?}"));
                }
                Err(error) => {
                    got.push(format!("{error:?}"));
                    return got;
                }
            }
            input.done(&whole);
        }
    }
    _ = input.announced_version();
    got
}

/// Walks what a packet only lends: none of it may end early, because parsing has checked it.
fn look_through(packet: &codec::Packet<'_>) {
    match packet {
        codec::Packet::Subscribe(subscribe) => {
            for (filter, _) in subscribe.filters() {
                judge(filter);
            }
        }
        codec::Packet::Unsubscribe(unsubscribe) => unsubscribe.filters().for_each(judge),
        codec::Packet::Publish(publish) => {
            assert_eq!(publish.properties.has_user, publish.properties.raw.user().next().is_some());
            assert!(publish.properties.raw.iter().count() >= publish.properties.raw.user().count());
        }
        codec::Packet::Connect(connect) => _ = connect.properties.iter().count(),
        _ => {}
    }
}

fn judge(filter: &str) {
    // Also as deep as a string can be.
    if filter.len() == 1 {
        let levels = vec![filter; usize::from(u16::MAX) / (filter.len() + 1)];
        read_filter(&levels.join("/"));
    }
    read_filter(filter);
}

fn read_filter(filter: &str) {
    if let Ok(share) = codec::split_share(filter) {
        _ = codec::channel_filter(share.map_or(filter, |share| share.filter));
    }
}

/// Pieces of sizes that follow from `cuts`; one piece if it is 0.
fn parts(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    if cuts == 0 {
        return vec![stream];
    }
    let (mut rest, mut size, mut parts) = (stream, 0usize, Vec::new());
    while !rest.is_empty() {
        size = (size * 5 + usize::from(cuts)) % 23 + usize::from(cuts.is_multiple_of(7)) * 400 + 1;
        let (head, tail) = rest.split_at(size.min(rest.len()));
        parts.push(head);
        rest = tail;
    }
    parts
}

/// The stream in masked binary frames, with a ping between some and some messages in fragments.
fn frames(stream: &[u8], cuts: u8) -> Bytes {
    const MASK: [u8; 4] = [7, 77, 177, 237];
    let mut out = Vec::new();
    let mut frame = |first: u8, payload: &[u8]| {
        out.push(first);
        match payload.len() {
            len @ ..=125 => out.push(0x80 | len as u8),
            len @ ..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    };
    let pieces = parts(stream, cuts.rotate_left(3));
    let mut fragmented = false;
    for (index, piece) in pieces.iter().enumerate() {
        let opens = (index + usize::from(cuts)) % 3 == 0 && index + 1 < pieces.len();
        let opcode = if fragmented { 0 } else { 2 };
        frame(if opens { opcode } else { 0x80 | opcode }, piece);
        fragmented = opens;
        if index % 4 == 1 {
            frame(0x89, b"ping");
        }
    }
    out.into()
}
