//! A subscriber that reads `text/event-stream`.

use super::http::{Part, ResponseReader};
use super::{Event, Session, Violation};

/// Longest event held while its end has not arrived.
const MAX_EVENT_BYTES: usize = 8 * 1_024 * 1_024;

pub(super) struct Subscriber {
    path: String,
    reader: ResponseReader,
    subscribed: bool,
    /// Decoded bytes of an event whose end has not arrived.
    partial: Vec<u8>,
}

impl Subscriber {
    pub(super) fn new(path: String) -> Self {
        Self { path, reader: ResponseReader::new(), subscribed: false, partial: Vec::new() }
    }

    fn take_body(&mut self, body: &[u8], on: &mut dyn FnMut(Event<'_>)) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let taken = read_events(body, on);
            self.partial.extend_from_slice(&body[taken..]);
        } else {
            self.partial.extend_from_slice(body);
            let taken = read_events(&self.partial, on);
            if taken == self.partial.len() {
                // Given back at once: ten thousand idle subscribers should not keep a buffer each.
                self.partial = Vec::new();
            } else {
                self.partial.drain(..taken);
            }
        }
        if self.partial.len() > MAX_EVENT_BYTES {
            return Err(Violation("event does not end".to_owned()));
        }
        Ok(())
    }
}

impl Session for Subscriber {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.path.as_bytes());
        out.extend_from_slice(
            b" HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n",
        );
        self.path = String::new();
    }

    fn receive(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some((part, bytes)) = self.reader.next(&input[taken..])? {
            taken += bytes;
            match part {
                Part::Head(head) if head.status == 200 && !self.subscribed => {
                    self.subscribed = true;
                    on(Event::Ready);
                }
                Part::Head(head) => return Err(Violation(format!("subscribe answered {}", head.status))),
                Part::Body(body) => self.take_body(body, on)?,
                Part::Framing => {}
                Part::End => return Err(Violation("stream ended".to_owned())),
            }
        }
        Ok(taken)
    }
}

/// Reports the payload of every whole event in `input`; returns the bytes they took.
///
/// An event whose data has one line is a slice of the input; joined lines are copied, as the format demands.
fn read_events(input: &[u8], on: &mut dyn FnMut(Event<'_>)) -> usize {
    let mut taken = 0;
    while let Some((end, gap)) = event_end(&input[taken..]) {
        let event = &input[taken..taken + end];
        taken += end + gap;
        let mut lines = event
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter_map(|line| line.strip_prefix(b"data:"))
            .map(|data| data.strip_prefix(b" ").unwrap_or(data));
        let Some(first) = lines.next() else { continue };
        match lines.next() {
            None => on(Event::Payload(first)),
            Some(second) => {
                let mut joined = [first, b"\n", second].concat();
                for line in lines {
                    joined.push(b'\n');
                    joined.extend_from_slice(line);
                }
                on(Event::Payload(&joined));
            }
        }
    }
    taken
}

/// Where the first event ends and how long the blank line after it is.
fn event_end(input: &[u8]) -> Option<(usize, usize)> {
    for end in memchr::memchr_iter(b'\n', input) {
        match input.get(end + 1..) {
            Some([b'\n', ..]) => return Some((end, 2)),
            Some([b'\r', b'\n', ..]) => return Some((end, 3)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(stream: &[u8], step: usize) -> Vec<String> {
        let mut subscriber = Subscriber::new("/sse/a".to_owned());
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for chunk in stream.chunks(step) {
            buffer.extend_from_slice(chunk);
            let mut on = |event: Event<'_>| match event {
                Event::Ready => found.push("ready".to_owned()),
                Event::Payload(payload) => found.push(String::from_utf8_lossy(payload).into_owned()),
                other => found.push(format!("{other:?}")),
            };
            let taken = subscriber.receive(&buffer, &mut Vec::new(), &mut on).expect("a valid stream");
            buffer.drain(..taken);
        }
        found
    }

    #[test]
    fn events_are_read_however_the_bytes_arrive() {
        let cases: [(&[u8], &[&str]); 4] = [
            (b"HTTP/1.1 200 OK\r\n\r\n: hi\n\nid: 1\ndata: one\n\ndata:two\n\n", &["ready", "one", "two"]),
            (b"HTTP/1.1 200 OK\r\n\r\nevent: gap\ndata: a\ndata: b\ndata: c\n\n", &["ready", "a\nb\nc"]),
            (
                b"HTTP/1.1 200 OK\r\n\r\ndata: crlf\r\n\r\nid: 2\r\ndata: next\r\n\r\n",
                &["ready", "crlf", "next"],
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: ab\r\n4\r\ncd\n\n\r\n",
                &["ready", "abcd"],
            ),
        ];
        for (stream, expected) in cases {
            for step in [1, 3, stream.len()] {
                assert_eq!(payloads(stream, step), expected, "in steps of {step}");
            }
        }
    }

    #[test]
    fn a_refused_subscription_is_a_violation() {
        let mut subscriber = Subscriber::new("/sse/a".to_owned());
        let refused = subscriber.receive(b"HTTP/1.1 404 No\r\n\r\n", &mut Vec::new(), &mut |_| {});
        assert!(refused.is_err_and(|violation| violation.0.contains("404")));
    }
}
