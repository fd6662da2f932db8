//! Entry points for fuzzers: whatever the bytes are, nothing panics and the invariants hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::channel::{self, Grammar};
use crate::codec::message::{self, Bounds, parse_batch};
use crate::config::{Config, Extensions, Transport};
use crate::dispatch::session_options;
use crate::protocol::{ConnectRequest, ConnectStep, Delivered, End, Held, Push, Session, handshake};

/// The parser, and everything that reads a field of what it found.
pub fn messages(bytes: &[u8]) {
    let Ok(messages) = parse_batch(bytes, Bounds { max_depth: 64, max_messages: 1000 }) else { return };
    let transports = [Transport::WebSocket, Transport::LongPolling];
    for message in &messages {
        let _ = handshake::negotiate(message, &transports, &Extensions::default());
        let _ = (handshake::token(message), handshake::user(message));
        for raw in [message.channel, message.subscription, message.ext, message.advice].into_iter().flatten()
        {
            let _ = (message::integer(raw), message::boolean(raw), message::field(raw, "ack"));
            for name in message::strings(raw).unwrap_or_default() {
                let _ = channel::parse(&name, Grammar::Lenient);
                let _ = channel::parse_pattern(&name, Grammar::Strict);
            }
        }
    }
}

/// The state machine of an acknowledging session, with time as input: each byte is a step. Its client
/// must get every event once and in order, as long as the session lives.
pub fn session(steps: &[u8]) {
    let config = Config { max_queue_messages: 50, ..Config::default() };
    let mut now = Instant::now();
    let mut session = Session::new(now, Arc::new(session_options(&config)), Transport::LongPolling);
    session.enable_ack();
    let (mut got, mut sent, mut acked, mut held) = (0_u32, 0_u32, 0_u64, None);
    for step in steps {
        let arrives = step & 0x80 != 0;
        let answer = match step & 0x7f {
            0..40 => {
                let event = Bytes::copy_from_slice(&sent.to_be_bytes());
                let lazy = (step & 1 == 0).then_some(Duration::from_secs(1));
                match session.handle_delivery(now, event, lazy, None) {
                    Delivered::Queued | Delivered::Due => sent += 1,
                    Delivered::Full(_) | Delivered::Overflow | Delivered::Ignored => {}
                }
                None
            }
            40..70 => {
                let request = ConnectRequest {
                    id: None,
                    transport: if step & 1 == 0 { Transport::LongPolling } else { Transport::WebSocket },
                    timeout: (step & 2 == 0).then_some(Duration::ZERO),
                    interval: None,
                    has_advice: step & 4 == 0,
                    ack: Some(acked),
                    timesync: None,
                    alone: step & 8 == 0,
                };
                match session.handle_connect(now, request) {
                    ConnectStep::Answer(answer) => Some(answer),
                    ConnectStep::Hold { token, .. } => {
                        held = Some(token);
                        None
                    }
                }
            }
            70..90 => match held.map(|token| session.poll_connect(now, token)) {
                Some(Held::Answer(answer)) => Some(answer),
                _ => None,
            },
            90..95 => {
                if let Some(token) = held {
                    session.drop_connect(now, token);
                }
                None
            }
            95..100 => {
                session.drop_socket(now);
                session.set_push(if arrives { Push::On } else { Push::Off });
                None
            }
            100..110 => {
                session.begin_request(now);
                assert!(session.poll_events(now).is_empty(), "connects only");
                session.end_request();
                None
            }
            110..120 => {
                now += Duration::from_millis(100 * u64::from(step & 0x0f));
                session.handle_timeout(now);
                None
            }
            _ => {
                if *step == 0xff {
                    session.finish(now, End::Disconnected);
                }
                None
            }
        };
        if let Some(answer) = answer
            && arrives
        {
            acked = answer.ack.unwrap_or(acked);
            for event in answer.events {
                assert_eq!(event[..], got.to_be_bytes(), "once and in order");
                got += 1;
            }
        }
        assert!(got <= sent);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_fine(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::messages(&bytes);
            super::session(&bytes);
        }
    }
}
