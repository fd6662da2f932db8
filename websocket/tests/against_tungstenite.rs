//! The same bytes through tungstenite's client: what it sends is understood, what is sent to it is.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use proptest::prelude::*;
use tungstenite::protocol::{CloseFrame, Message, Role, WebSocket};
use websocket::{Assembler, CloseCode, Incoming, Limits, encode};

/// A stream that is two buffers.
#[derive(Default)]
struct Pipe {
    from_server: Vec<u8>,
    to_server: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.from_server.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.from_server.len());
        buffer[..count].copy_from_slice(&self.from_server[..count]);
        self.from_server.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_server.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client() -> WebSocket<Pipe> {
    WebSocket::from_raw_socket(Pipe::default(), Role::Client, None)
}

/// What the server makes of everything that the client has sent.
fn received(client: &mut WebSocket<Pipe>) -> Vec<Incoming> {
    client.flush().unwrap();
    let mut input = BytesMut::from(&std::mem::take(&mut client.get_mut().to_server)[..]);
    let mut assembler = Assembler::new(Limits::default(), None);
    let mut out = Vec::new();
    while let Some(incoming) = assembler.feed(&mut input).unwrap() {
        out.push(incoming);
    }
    out
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        ".{0,200}".prop_map(Message::text),
        proptest::collection::vec(any::<u8>(), 0..70_000).prop_map(Message::binary),
        proptest::collection::vec(any::<u8>(), 0..125).prop_map(|payload| Message::Ping(payload.into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_clients_messages_are_understood(messages in proptest::collection::vec(message(), 0..8)) {
        let mut client = client();
        for message in &messages {
            client.write(message.clone()).unwrap();
        }
        let expected: Vec<Incoming> = messages
            .into_iter()
            .map(|message| match message {
                Message::Text(text) => Incoming::Text(text.into()),
                Message::Binary(bytes) => Incoming::Binary(bytes),
                Message::Ping(payload) => Incoming::Ping(payload),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(received(&mut client), expected);
    }

    #[test]
    fn a_client_understands_our_frames(messages in proptest::collection::vec(message(), 0..8)) {
        let mut client = client();
        for message in &messages {
            let frame = match message {
                Message::Text(text) => encode::frame(encode::TEXT, text.as_bytes()),
                Message::Binary(bytes) => encode::frame(encode::BINARY, bytes),
                Message::Ping(payload) => encode::frame(encode::PING, payload),
                other => panic!("{other:?}"),
            };
            client.get_mut().from_server.extend_from_slice(&frame);
        }
        for message in messages {
            prop_assert_eq!(client.read().unwrap(), message);
        }
    }
}

#[test]
fn closes_are_understood_both_ways() {
    let mut client = client();
    client.close(Some(CloseFrame { code: CloseCode::Away, reason: "bye".into() })).unwrap();
    let expected = Incoming::Close { code: Some(CloseCode::Away), reason: "bye".into() };
    assert_eq!(received(&mut client), [expected]);
    let frame = encode::close(CloseCode::Away, "bye");
    client.get_mut().from_server.extend_from_slice(&frame);
    let read = client.read().unwrap();
    assert_eq!(read, Message::Close(Some(CloseFrame { code: CloseCode::Away, reason: "bye".into() })));
}
