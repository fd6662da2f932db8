//! HTTP/1.1 as a client needs it here: response heads, bodies by length or in chunks, and a publisher.

use super::{Event, Session, Violation, grip};

/// Headers read of one response.
const MAX_HEADERS: usize = 64;
/// Longest response head or chunk-size line.
const MAX_HEAD_BYTES: usize = 16 * 1_024;

/// How a response body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    framing: Framing,
    /// The server ends the connection after this response.
    close: bool,
}

impl Head {
    /// Reads the head `input` starts with and its length; none while it is incomplete.
    /// A cookie that it sets goes into `cookie` as `name=value`.
    fn read(input: &[u8], cookie: &mut Option<Box<str>>) -> Result<Option<(Self, usize)>, Violation> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let bytes = match response.parse(input) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if input.len() > MAX_HEAD_BYTES => {
                return Err(Violation("response head is too long".to_owned()));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(Violation(format!("response head: {error}"))),
        };
        let status = response.code.unwrap_or(0);
        let mut framing =
            if matches!(status, 100..=199 | 204 | 304) { Framing::Length(0) } else { Framing::UntilClose };
        let mut close = false;
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or("").trim();
            if header.name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
            {
                framing = Framing::Chunked;
            } else if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
                let length = value.parse().map_err(|_| Violation(format!("content-length `{value}`")))?;
                framing = Framing::Length(length);
            } else if header.name.eq_ignore_ascii_case("connection") {
                close = value.eq_ignore_ascii_case("close");
            } else if header.name.eq_ignore_ascii_case("set-cookie") {
                *cookie = value.split(';').next().map(Into::into);
            }
        }
        Ok(Some((Self { status, framing, close }, bytes)))
    }
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    /// The line end after a chunk's bytes.
    ChunkEnd,
    /// Trailer lines after the last chunk.
    Trailer,
}

/// What a [`ResponseReader`] found next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Head(Head),
    Body(&'a [u8]),
    /// Chunk sizes, line ends and trailers: nothing for the reader.
    Framing,
    /// The response is whole; the next byte starts another.
    End,
}

/// Splits a stream of responses into heads and body bytes.
#[derive(Debug)]
pub(super) struct ResponseReader {
    state: State,
    /// The last cookie that was set, for clients that send it back.
    pub(super) cookie: Option<Box<str>>,
}

impl ResponseReader {
    pub(super) fn new() -> Self {
        Self { state: State::Head, cookie: None }
    }

    /// The next part and how many bytes of `input` it took; none if more input is needed.
    ///
    /// # Errors
    /// When `input` is not HTTP/1.
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Part<'a>, usize)>, Violation> {
        match self.state {
            State::Head => {
                let Some((head, bytes)) = Head::read(input, &mut self.cookie)? else { return Ok(None) };
                self.state = match head.framing {
                    _ if matches!(head.status, 100..=199) => State::Head,
                    Framing::Length(length) => State::Length(length),
                    Framing::Chunked => State::ChunkSize,
                    Framing::UntilClose => State::UntilClose,
                };
                Ok(Some((Part::Head(head), bytes)))
            }
            State::Length(0) => {
                self.state = State::Head;
                Ok(Some((Part::End, 0)))
            }
            State::Length(ref mut left) | State::Chunk(ref mut left) => {
                if input.is_empty() {
                    return Ok(None);
                }
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                if let State::Chunk(0) = self.state {
                    self.state = State::ChunkEnd;
                }
                Ok(Some((Part::Body(&input[..take]), take)))
            }
            State::UntilClose => Ok((!input.is_empty()).then_some((Part::Body(input), input.len()))),
            State::ChunkEnd if input.len() < 2 => Ok(None),
            State::ChunkEnd if input.starts_with(b"\r\n") => {
                self.state = State::ChunkSize;
                Ok(Some((Part::Framing, 2)))
            }
            State::ChunkEnd => Err(Violation("chunk is longer than its size".to_owned())),
            State::ChunkSize => {
                let Some(line) = line(input)? else { return Ok(None) };
                let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
                let size = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
                    .ok_or_else(|| Violation("chunk size is not a number".to_owned()))?;
                self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                Ok(Some((Part::Framing, line.len() + 2)))
            }
            State::Trailer => {
                let Some(line) = line(input)? else { return Ok(None) };
                if !line.is_empty() {
                    return Ok(Some((Part::Framing, line.len() + 2)));
                }
                self.state = State::Head;
                Ok(Some((Part::End, 2)))
            }
        }
    }
}

/// The line `input` starts with, without its CRLF.
fn line(input: &[u8]) -> Result<Option<&[u8]>, Violation> {
    match memchr::memmem::find(input, b"\r\n") {
        Some(end) => Ok(Some(&input[..end])),
        None if input.len() > MAX_HEAD_BYTES => Err(Violation("line is too long".to_owned())),
        None => Ok(None),
    }
}

/// What a publish looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The channel follows this path; the body is the payload.
    Channel(&'static str),
    /// The channel is in the body, as GRIP wants it.
    Grip,
}

/// Publishes one request at a time on a kept-alive connection.
pub(super) struct Publisher {
    form: Form,
    reader: ResponseReader,
    status: u16,
    /// The response being read says that the connection ends with it.
    close: bool,
    closing: bool,
    /// A body that is not the payload itself.
    body: Vec<u8>,
}

impl Publisher {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            reader: ResponseReader::new(),
            status: 0,
            close: false,
            closing: false,
            body: Vec::new(),
        }
    }
}

impl Session for Publisher {
    fn start(&mut self, _out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        on(Event::Ready);
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
                Part::Head(head) => (self.status, self.close) = (head.status, head.close),
                Part::Body(_) | Part::Framing => {}
                Part::End => {
                    self.closing = self.close;
                    let taken = (200..300).contains(&self.status);
                    on(if taken { Event::Accepted } else { Event::Refused(self.status) });
                }
            }
        }
        Ok(taken)
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        let (path, channel, kind, body): (&str, &str, &str, &[u8]) = match self.form {
            Form::Channel(prefix) => (prefix, channel, "text/plain", payload),
            Form::Grip => {
                grip::publish_body(channel, payload, &mut self.body);
                (grip::PUBLISH_PATH, "", "application/json", &self.body)
            }
        };
        let mut length = [0u8; 20];
        for part in [
            b"POST ".as_slice(),
            path.as_bytes(),
            channel.as_bytes(),
            b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: ",
            kind.as_bytes(),
            b"\r\nContent-Length: ",
            decimal(body.len(), &mut length),
            b"\r\n\r\n",
            body,
        ] {
            out.extend_from_slice(part);
        }
    }

    fn take_closing(&mut self) -> bool {
        std::mem::take(&mut self.closing)
    }

    fn window(&self) -> usize {
        1
    }
}

/// `number` in decimal digits, written into the end of `buffer`.
pub(super) fn decimal(mut number: usize, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(stream: &[u8], step: usize) -> Vec<String> {
        let (mut reader, mut buffer, mut found) = (ResponseReader::new(), Vec::new(), Vec::new());
        for chunk in stream.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some((part, bytes)) = reader.next(&buffer).expect("valid HTTP") {
                match part {
                    Part::Head(head) => found.push(head.status.to_string()),
                    Part::Body(body) => match found.last_mut().filter(|last| last.starts_with('"')) {
                        Some(last) => last.push_str(&String::from_utf8_lossy(body)),
                        None => found.push(format!("\"{}", String::from_utf8_lossy(body))),
                    },
                    Part::Framing => {}
                    Part::End => found.push("end".to_owned()),
                }
                buffer.drain(..bytes);
            }
        }
        found
    }

    #[test]
    fn responses_split_alike_however_the_bytes_arrive() {
        let cases: [(&[u8], &[&str]); 5] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n", &["200", "\"abc", "end", "204", "end"]),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n",
                &["200", "\"abcde", "end"],
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nuntil close", &["200", "\"until close"]),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Busy\r\ncontent-length: 0\r\n\r\n", &["100", "429", "end"]),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", &["200", "end", "200"]),
        ];
        for (stream, expected) in cases {
            for step in [1, 2, 7, stream.len()] {
                assert_eq!(parts(stream, step), expected, "in steps of {step}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_a_violation() {
        for stream in
            [&b"garbage garbage\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
        {
            let mut reader = ResponseReader::new();
            let mut taken = 0;
            let outcome = loop {
                match reader.next(&stream[taken..]) {
                    Ok(Some((_, bytes))) => taken += bytes,
                    other => break other.map(|part| part.map(|(_, bytes)| bytes)),
                }
            };
            assert!(outcome.is_err(), "{outcome:?}");
        }
    }

    #[test]
    fn decimal_writes_the_digits() {
        for number in [0, 7, 10, 1_234, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
