//! NATS as a client needs it here: one subscription, or publishing without answers.

use super::http::decimal;
use super::{Event, Session, Violation};

/// Longest line taken.
const MAX_LINE_BYTES: usize = 64 * 1_024;
/// Publishes are done when they are written.
const WINDOW: usize = 1_024;

/// A client that subscribes to one subject, or publishes. Slashes of channels become dots.
pub(super) struct Client {
    subject: Option<String>,
    /// Payload bytes still to come, without the line end after them.
    message: Option<usize>,
}

impl Client {
    /// None for a publisher.
    pub(super) fn new(channel: Option<&str>) -> Self {
        Self { subject: channel.map(|channel| channel.replace('/', ".")), message: None }
    }
}

impl Session for Client {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n");
        if let Some(subject) = self.subject.take() {
            out.extend_from_slice(format!("SUB {subject} 1\r\n").as_bytes());
        }
        // Answered when all before it is done.
        out.extend_from_slice(b"PING\r\n");
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            if let Some(bytes) = self.message {
                if rest.len() < bytes + 2 {
                    return Ok(taken);
                }
                on(Event::Payload(&rest[..bytes]));
                self.message = None;
                taken += bytes + 2;
                continue;
            }
            let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
                return if rest.len() > MAX_LINE_BYTES {
                    Err(Violation("line does not end".to_owned()))
                } else {
                    Ok(taken)
                };
            };
            let line = &rest[..end];
            taken += end + 2;
            if line.starts_with(b"MSG ") {
                let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                self.message = Some(length.ok_or_else(|| Violation("MSG without a length".to_owned()))?);
            } else if line == b"PONG" {
                on(Event::Ready);
            } else if line == b"PING" {
                out.extend_from_slice(b"PONG\r\n");
            } else if !line.starts_with(b"INFO ") && line != b"+OK" {
                return Err(Violation(String::from_utf8_lossy(line).into_owned()));
            }
        }
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        out.extend_from_slice(b"PUB ");
        out.extend(channel.bytes().map(|byte| if byte == b'/' { b'.' } else { byte }));
        out.push(b' ');
        out.extend_from_slice(decimal(payload.len(), &mut [0; 20]));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        on(Event::Accepted);
    }

    fn window(&self) -> usize {
        WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_however_the_bytes_arrive() {
        let stream = b"INFO {}\r\nPONG\r\nMSG load.0 1 5\r\na\r\nbc\r\nPING\r\nMSG load.0 1 2\r\nhi\r\n";
        for step in [1, 4, stream.len()] {
            let mut client = Client::new(Some("load/0"));
            let (mut buffer, mut out, mut found) = (Vec::new(), Vec::new(), Vec::new());
            client.start(&mut out, &mut |_| {});
            assert!(out.ends_with(b"SUB load.0 1\r\nPING\r\n"));
            out.clear();
            for chunk in stream.chunks(step) {
                buffer.extend_from_slice(chunk);
                let mut on = |event: Event<'_>| match event {
                    Event::Payload(payload) => found.push(String::from_utf8_lossy(payload).into_owned()),
                    other => found.push(format!("{other:?}")),
                };
                let taken = client.receive(&buffer, &mut out, &mut on).expect("valid lines");
                buffer.drain(..taken);
            }
            assert_eq!(found, ["Ready", "a\r\nbc", "hi"], "in steps of {step}");
            assert_eq!(out, b"PONG\r\n");
        }
    }

    #[test]
    fn an_error_is_a_violation_and_a_publish_is_one_line_and_its_payload() {
        let mut client = Client::new(None);
        assert!(client.receive(b"-ERR 'Slow Consumer'\r\n", &mut Vec::new(), &mut |_| {}).is_err());
        let mut out = Vec::new();
        client.publish("load/0", b"hi", &mut out, &mut |_| {});
        assert_eq!(out, b"PUB load.0 2\r\nhi\r\n");
    }
}
