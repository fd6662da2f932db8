//! MQTT 3.1.1 and 5 as a client needs it here: one subscription, or publishing, at QoS 0 or 1.

use super::{Event, Session, Violation};

/// Longest packet taken.
const MAX_PACKET_BYTES: usize = 16 * 1_024 * 1_024;
/// QoS 1 publishes that may wait for their PUBACK.
const QOS1_WINDOW: usize = 64;
/// QoS 0 publishes are done when they are written.
const QOS0_WINDOW: usize = 1_024;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// Protocol level and delivery effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// 4 (3.1.1) or 5.
    pub(crate) level: u8,
    /// 0 or 1.
    pub(crate) qos: u8,
}

/// A client that subscribes to one topic, or publishes.
pub(super) struct Client {
    options: Options,
    /// The topic to subscribe to; none for a publisher.
    topic: Option<String>,
    client_id: String,
    next_packet_id: u16,
}

impl Client {
    /// `client_id` must differ between all clients of a server.
    pub(super) fn new(options: Options, client_id: String, topic: Option<String>) -> Self {
        Self { options, topic, client_id, next_packet_id: 0 }
    }

    fn packet_id(&mut self) -> u16 {
        self.next_packet_id = if self.next_packet_id == u16::MAX { 1 } else { self.next_packet_id + 1 };
        self.next_packet_id
    }

    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>) {
        let properties = usize::from(self.options.level == 5);
        out.push(0x82);
        push_length(2 + properties + 2 + topic.len() + 1, out);
        let id = self.packet_id();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend(std::iter::repeat_n(0, properties));
        push_text(topic, out);
        out.push(self.options.qos);
    }

    fn take(
        &mut self,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let broken = || Violation(format!("malformed packet of type {}", packet.kind));
        match packet.kind {
            CONNACK => match (packet.body.get(1), self.topic.take()) {
                (Some(0), Some(topic)) => self.subscribe(&topic, out),
                (Some(0), None) => on(Event::Ready),
                (code, _) => return Err(Violation(format!("connect refused: {code:?}"))),
            },
            // The reason code is the last byte in both versions: one filter was asked for.
            SUBACK => match packet.body.last() {
                Some(code) if *code <= 2 => on(Event::Ready),
                code => return Err(Violation(format!("subscribe refused: {code:?}"))),
            },
            PUBLISH => {
                let qos = packet.flags >> 1 & 3;
                let topic = usize::from(u16::from_be_bytes(*packet.body.first_chunk().ok_or_else(broken)?));
                let mut rest = packet.body.get(2 + topic..).ok_or_else(broken)?;
                if qos > 0 {
                    let (id, after) = rest.split_first_chunk::<2>().ok_or_else(broken)?;
                    out.extend_from_slice(&[0x40, 2, id[0], id[1]]);
                    rest = after;
                }
                if self.options.level == 5 {
                    let (length, bytes) = read_length(rest)?.ok_or_else(broken)?;
                    rest = rest.get(bytes + length..).ok_or_else(broken)?;
                }
                on(Event::Payload(rest));
            }
            PUBACK => match packet.body.get(2) {
                None | Some(0..=0x7f) => on(Event::Accepted),
                Some(code) => on(Event::Refused(u16::from(*code))),
            },
            kind => return Err(Violation(format!("unexpected packet of type {kind}"))),
        }
        Ok(())
    }
}

impl Session for Client {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        let properties = usize::from(self.options.level == 5);
        out.push(0x10);
        push_length(6 + 1 + 1 + 2 + properties + 2 + self.client_id.len(), out);
        push_text("MQTT", out);
        // Clean session or clean start; the longest keep alive, so that idle stays idle (some servers refuse none).
        out.extend_from_slice(&[self.options.level, 0x02, 0xff, 0xff]);
        out.extend(std::iter::repeat_n(0, properties));
        push_text(&std::mem::take(&mut self.client_id), out);
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some(packet) = Packet::read(&input[taken..])? {
            taken += packet.bytes;
            self.take(&packet, out, on)?;
        }
        Ok(taken)
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        let (qos, properties) = (self.options.qos, usize::from(self.options.level == 5));
        let id_bytes = if qos > 0 { 2 } else { 0 };
        out.push(0x30 | qos << 1);
        push_length(2 + channel.len() + id_bytes + properties + payload.len(), out);
        push_text(channel, out);
        if qos > 0 {
            let id = self.packet_id();
            out.extend_from_slice(&id.to_be_bytes());
        }
        out.extend(std::iter::repeat_n(0, properties));
        out.extend_from_slice(payload);
        if qos == 0 {
            on(Event::Accepted);
        }
    }

    fn window(&self) -> usize {
        if self.options.qos == 0 { QOS0_WINDOW } else { QOS1_WINDOW }
    }
}

struct Packet<'a> {
    kind: u8,
    flags: u8,
    body: &'a [u8],
    /// Length of the whole packet.
    bytes: usize,
}

impl<'a> Packet<'a> {
    fn read(input: &'a [u8]) -> Result<Option<Self>, Violation> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        let Some((length, digits)) = read_length(rest)? else { return Ok(None) };
        if length > MAX_PACKET_BYTES {
            return Err(Violation(format!("packet of {length} bytes")));
        }
        let body = rest.get(digits..digits + length);
        Ok(body.map(|body| Self { kind: first >> 4, flags: first & 0x0f, body, bytes: 1 + digits + length }))
    }
}

/// A variable byte integer and how many bytes it took (MQTT 5.0 §1.5.5).
fn read_length(input: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0;
    for (place, byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if input.len() >= 4 { Err(Violation("length of more than four bytes".to_owned())) } else { Ok(None) }
}

fn push_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return;
        }
    }
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(mut client: Client, stream: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
        let (mut buffer, mut out, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in stream.chunks(step) {
            buffer.extend_from_slice(chunk);
            let mut on = |event: Event<'_>| match event {
                Event::Payload(payload) => found.push(String::from_utf8_lossy(payload).into_owned()),
                other => found.push(format!("{other:?}")),
            };
            let taken = client.receive(&buffer, &mut out, &mut on).expect("valid packets");
            buffer.drain(..taken);
        }
        (found, out)
    }

    #[test]
    fn a_subscriber_connects_subscribes_and_acknowledges() {
        let old = Options { level: 4, qos: 1 };
        let stream = [
            &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 1][..],
            &[0x30, 5, 0, 1, b'a', b'h', b'i'],
            &[0x32, 7, 0, 1, b'a', 0, 9, b'y', b'o'],
        ]
        .concat();
        for step in [1, 3, stream.len()] {
            let client = Client::new(old, "c".to_owned(), Some("a".to_owned()));
            let (found, out) = exchange(client, &stream, step);
            assert_eq!(found, ["Ready", "hi", "yo"], "in steps of {step}");
            assert_eq!(out, [&[0x82, 6, 0, 1, 0, 1, b'a', 1][..], &[0x40, 2, 0, 9]].concat());
        }
    }

    #[test]
    fn version_5_packets_carry_properties() {
        let new = Options { level: 5, qos: 0 };
        let stream =
            [&[0x20, 3, 0, 0, 0, 0x90, 4, 0, 1, 0, 0][..], &[0x30, 9, 0, 1, b'a', 3, 0x23, 0, 1, b'h', b'i']]
                .concat();
        let (found, out) =
            exchange(Client::new(new, "c".to_owned(), Some("a".to_owned())), &stream, stream.len());
        assert_eq!(found, ["Ready", "hi"]);
        assert_eq!(out, [0x82, 7, 0, 1, 0, 0, 1, b'a', 0]);
        let mut connect = Vec::new();
        Client::new(new, "c".to_owned(), None).start(&mut connect, &mut |_| {});
        assert_eq!(connect, [&[0x10, 14, 0, 4][..], b"MQTT", &[5, 2, 0xff, 0xff, 0, 0, 1, b'c']].concat());
    }

    #[test]
    fn a_publisher_waits_for_puback_at_qos_1_only() {
        for (qos, level, packet) in [
            (0, 4, vec![0x30, 5, 0, 1, b'a', b'h', b'i']),
            (1, 4, vec![0x32, 7, 0, 1, b'a', 0, 1, b'h', b'i']),
            (1, 5, vec![0x32, 8, 0, 1, b'a', 0, 1, 0, b'h', b'i']),
        ] {
            let mut client = Client::new(Options { level, qos }, "c".to_owned(), None);
            let (mut out, mut accepted) = (Vec::new(), 0);
            client.publish("a", b"hi", &mut out, &mut |_| accepted += 1);
            assert_eq!((out, accepted), (packet, usize::from(qos == 0)));
        }
        let client = Client::new(Options { level: 4, qos: 1 }, "c".to_owned(), None);
        assert_eq!(exchange(client, &[0x20, 2, 0, 0, 0x40, 2, 0, 1], 8).0, ["Ready", "Accepted"]);
    }

    #[test]
    fn refusals_and_garbage_are_violations() {
        for stream in
            [&[0x20, 2, 0, 5][..], &[0x90, 3, 0, 1, 0x80], &[0x30, 0xff, 0xff, 0xff, 0xff], &[0xe0, 0]]
        {
            let mut client = Client::new(Options { level: 4, qos: 0 }, "c".to_owned(), Some("a".to_owned()));
            assert!(client.receive(stream, &mut Vec::new(), &mut |_| {}).is_err(), "{stream:?}");
        }
    }
}
