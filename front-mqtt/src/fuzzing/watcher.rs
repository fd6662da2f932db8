//! A client that checks everything a server sends against what MQTT promises it.

use std::collections::HashMap;

use crate::codec::Version;

/// Where an exchange of a message to the client stands, in the client's eyes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// QoS 1, to be answered with PUBACK.
    One,
    /// QoS 2, to be answered with PUBREC.
    Two,
    /// PUBREC was sent, PUBREL may come.
    Received,
}

/// On which connection an exchange was last heard of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Here,
    Before,
    /// Its PUBLISH was sent before, its PUBREL here: that takes no place of the receive maximum (MQTT 5.0 §4.9).
    Released,
    /// Before, and the server may have given up on it: the client does not take a packet of its size any more.
    Perhaps,
}

/// What the client has said about one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: u32,
    pub(crate) alias_maximum: u16,
}

/// The client of one session.
pub(crate) struct Watcher {
    terms: Terms,
    /// Unfinished exchanges.
    pub(crate) exchanges: HashMap<u16, (Stage, Heard)>,
    aliases: HashMap<u16, String>,
    connack_seen: bool,
    ended: bool,
}

impl Watcher {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, exchanges: HashMap::new(), aliases: HashMap::new(), connack_seen: false, ended: false }
    }

    /// The client connects again.
    pub(crate) fn reconnect(&mut self, terms: Terms, session_present: bool) {
        let mut exchanges = std::mem::take(&mut self.exchanges);
        if !session_present {
            exchanges.clear();
        }
        let small = terms.max_packet_bytes < 4_000;
        for exchange in exchanges.values_mut() {
            exchange.1 = if small || exchange.1 == Heard::Perhaps { Heard::Perhaps } else { Heard::Before };
        }
        *self = Self { exchanges, ..Self::new(terms) };
    }

    /// What the client says about an exchange, before the server hears it.
    pub(crate) fn acknowledge(&mut self, first: u8, packet_id: u16, failed: bool) {
        let stage = self.exchanges.get(&packet_id).map(|exchange| exchange.0);
        match (first, stage) {
            (0x40, Some(Stage::One)) | (0x70, Some(Stage::Received)) => _ = self.exchanges.remove(&packet_id),
            (0x50, Some(Stage::Two)) if failed => _ = self.exchanges.remove(&packet_id),
            (0x50, Some(Stage::Two)) => {
                if let Some(exchange) = self.exchanges.get_mut(&packet_id) {
                    exchange.0 = Stage::Received;
                }
            }
            _ => {}
        }
    }

    /// The server ends the connection with these bytes, which may be none.
    pub(crate) fn see_last(&mut self, frame: &[u8]) {
        if !frame.is_empty() {
            self.see(frame);
        }
        self.ended = true;
    }

    /// One packet from the server.
    pub(crate) fn see(&mut self, frame: &[u8]) {
        assert!(!self.ended, "a packet after the last: {frame:x?}");
        let mut body = Body(&frame[1..]);
        let remaining = body.varint();
        assert_eq!(remaining, body.0.len(), "one packet a frame: {frame:x?}");
        let v5 = self.terms.version.is_v5();
        if frame[0] == 0x20 {
            assert!(!self.connack_seen, "a second CONNACK");
            self.connack_seen = true;
            return;
        }
        assert!(self.connack_seen, "something before CONNACK");
        match frame[0] {
            first if first >> 4 == 3 => self.see_publish(first, body, frame.len()),
            0x40 | 0x50 | 0x70 => assert_ne!(body.u16(), 0),
            0x62 => self.see_pubrel(body),
            0x90 => assert_ne!(body.u16(), 0),
            0xB0 => assert_ne!(body.u16(), 0),
            0xD0 => assert_eq!(frame.len(), 2),
            0xE0 | 0xF0 => assert!(v5, "{frame:x?}"),
            _ => panic!("no packet of a server's: {frame:x?}"),
        }
    }

    fn see_pubrel(&mut self, mut body: Body<'_>) {
        let packet_id = body.u16();
        let unknown = body.0.first() == Some(&0x92);
        let Some(exchange) = self.exchanges.get_mut(&packet_id) else {
            // An answer to a PUBREC that belonged to nothing.
            assert!(unknown || !self.terms.version.is_v5() || body.0.is_empty());
            return;
        };
        if exchange.0 == Stage::Received {
            // PUBREL may also be the answer to a PUBREC for an exchange the server has given up on.
            if exchange.1 == Heard::Before {
                exchange.1 = Heard::Released;
            }
        }
    }

    fn see_publish(&mut self, first: u8, mut body: Body<'_>, bytes: usize) {
        assert!(bytes <= self.terms.max_packet_bytes as usize, "larger than the client takes");
        let (dup, qos, topic) = (first & 8 != 0, first >> 1 & 3, body.string());
        assert!(qos < 3 && !(dup && qos == 0), "{first:x}");
        let packet_id = if qos == 0 { 0 } else { body.u16() };
        let mut alias = 0;
        if self.terms.version.is_v5() {
            alias = body.properties();
        }
        assert!(alias <= self.terms.alias_maximum, "alias {alias}");
        if topic.is_empty() {
            assert!(self.aliases.contains_key(&alias), "alias {alias} stands for nothing");
        } else if alias > 0 {
            self.aliases.insert(alias, topic);
        }
        if qos > 0 {
            self.see_exchange(packet_id, qos, dup);
        }
    }

    fn see_exchange(&mut self, packet_id: u16, qos: u8, dup: bool) {
        assert_ne!(packet_id, 0);
        let stage = if qos == 1 { Stage::One } else { Stage::Two };
        let before = self.exchanges.insert(packet_id, (stage, Heard::Here));
        match before {
            None => assert!(!dup, "a repeat of nothing: {packet_id}"),
            Some((_, Heard::Perhaps)) if !dup => {}
            Some((was, heard)) => {
                assert!(dup, "identifier {packet_id} is in use");
                assert_ne!(heard, Heard::Here, "{packet_id} is repeated within a connection");
                assert_eq!(was, stage, "{packet_id} is repeated as something else");
            }
        }
        let here = self.exchanges.values().filter(|exchange| exchange.1 == Heard::Here).count();
        assert!(here <= usize::from(self.terms.receive_maximum), "{here} are unfinished");
        if !dup {
            let waiting = self.exchanges.iter().find(|(_, exchange)| exchange.1 == Heard::Before);
            assert_eq!(waiting, None, "a new message before a repeat");
        }
    }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(bytes);
        self.0 = rest;
        head
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn string(&mut self) -> String {
        let bytes = self.u16();
        String::from_utf8(self.take(usize::from(bytes)).to_vec()).expect("UTF-8")
    }

    fn varint(&mut self) -> usize {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.take(1)[0];
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a length of more than four bytes");
    }

    /// Walks the properties of a PUBLISH; the topic alias, or 0.
    fn properties(&mut self) -> u16 {
        let bytes = self.varint();
        let mut inner = Body(self.take(bytes));
        let mut alias = 0;
        while !inner.0.is_empty() {
            match inner.take(1)[0] {
                1 => _ = inner.take(1),
                2 => _ = inner.take(4),
                3 | 8 | 9 => _ = inner.string_bytes(),
                11 => assert_ne!(inner.varint(), 0),
                35 => {
                    assert_eq!(alias, 0, "two aliases");
                    alias = inner.u16();
                    assert_ne!(alias, 0);
                }
                38 => {
                    inner.string_bytes();
                    inner.string_bytes();
                }
                other => panic!("property {other} in a PUBLISH"),
            }
        }
        alias
    }

    fn string_bytes(&mut self) -> &'a [u8] {
        let bytes = self.u16();
        self.take(usize::from(bytes))
    }
}
