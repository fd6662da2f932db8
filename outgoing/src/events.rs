//! An event stream as others send it, piece by piece (HTML Standard, "Parsing an event stream").

use std::time::Duration;

/// What a stream says, as far as it counts by itself.
#[derive(Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Piece {
    /// The stream's first line is an id: where it begins, which counts before any event has come.
    Begins(String),
    /// When to come back. It counts at the end of its line.
    Retry(Duration),
    /// What stood before one blank line.
    Block(Block),
}

/// What stood before one blank line.
#[derive(Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// `data:` lines joined by LF; `None` where there were none, and then it is no event.
    pub data: Option<Vec<u8>>,
    /// The value of `event:`; empty where there was none.
    pub name: Vec<u8>,
    /// The value of `id:`.
    pub id: Option<String>,
}

/// Longest time that a server may ask a client to stay away.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Reads blocks out of bytes that come in any pieces.
#[derive(Debug)]
pub struct Parser {
    max_event_bytes: usize,
    line: Vec<u8>,
    /// The last byte ended a line with CR; an LF right behind it belongs to it.
    after_cr: bool,
    block: Block,
    /// A whole line has come.
    has_begun: bool,
}

/// An event that does not end.
#[derive(Debug, thiserror::Error)]
#[error("an event is larger than {max_event_bytes} bytes")]
#[non_exhaustive]
pub struct TooLarge {
    /// How large one may be.
    pub max_event_bytes: usize,
}

impl Parser {
    /// For a stream from its beginning, whose events are put together up to this size.
    pub fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes, line: Vec::new(), after_cr: false, block: Block::default(), has_begun: false }
    }

    /// Takes bytes up to the end of a piece, and returns it and how many bytes that took. `None` took them all.
    ///
    /// # Errors
    /// An event does not end within its size. The stream is to be left.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Piece, usize)>, TooLarge> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if std::mem::take(&mut self.after_cr) && rest.starts_with(b"\n") {
                taken += 1;
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.append(rest)?;
                return Ok(None);
            };
            let (piece, tail) = rest.split_at(end);
            self.append(piece)?;
            self.after_cr = tail.starts_with(b"\r");
            taken += end + 1;
            let line = std::mem::take(&mut self.line);
            if line.is_empty() {
                return Ok(Some((Piece::Block(std::mem::take(&mut self.block)), taken)));
            }
            if let Some(piece) = self.field(&line) {
                return Ok(Some((piece, taken)));
            }
        }
        Ok(None)
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let held = self.line.len() + self.block.data.as_ref().map_or(0, Vec::len);
        if held + piece.len() > self.max_event_bytes {
            return Err(TooLarge { max_event_bytes: self.max_event_bytes });
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Option<Piece> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.block.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.block.data = Some(value.to_vec()),
            },
            b"event" => self.block.name = value.to_vec(),
            b"id" if !value.contains(&0) => {
                let id = String::from_utf8_lossy(value).into_owned();
                self.block.id = Some(id.clone());
                return is_first.then_some(Piece::Begins(id));
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                return millis.map(|millis| Piece::Retry(Duration::from_millis(millis).min(MAX_RETRY)));
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Vec<Piece> {
        let mut parser = Parser::new(64 << 20);
        let mut read = Vec::new();
        for piece in pieces {
            let mut rest = piece.as_bytes();
            while let Some((piece, taken)) = parser.feed(rest).unwrap() {
                read.push(piece);
                rest = &rest[taken..];
            }
        }
        read
    }

    fn event(data: &str, name: &str, id: Option<&str>) -> Piece {
        let (data, name, id) = (Some(data.into()), name.into(), id.map(Into::into));
        Piece::Block(Block { data, name, id })
    }

    #[test]
    fn every_line_end_is_one_and_blocks_end_at_blank_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = "event: e\nid: 1\ndata: a\ndata:  b\ndata\n\ndata:x\n\n".replace('\n', end);
            let expected = [event("a\n b\n", "e", Some("1")), event("x", "", None)];
            assert_eq!(read(&[&stream]), expected, "{end:?}");
            let bytes: Vec<String> = stream.chars().map(String::from).collect();
            assert_eq!(
                read(&bytes.iter().map(String::as_str).collect::<Vec<_>>()),
                expected,
                "{end:?} byte by byte"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_none() {
        let nothing = || Piece::Block(Block::default());
        assert_eq!(read(&[":\n\n"]), [nothing()]);
        let bare = Piece::Block(Block { id: Some("k3-18".into()), ..Block::default() });
        assert_eq!(read(&[":\nid: k3-18\n\n"]), [bare]);
        assert_eq!(read(&["retry: 7x\nretry: -1\nid: a\0b\nunknown: 1\n\n"]), [nothing()]);
        assert_eq!(read(&["data: cut"]), []);
    }

    #[test]
    fn a_first_id_and_a_time_to_come_back_count_without_a_blank_line() {
        let begins = || Piece::Begins("k3-18".into());
        assert_eq!(read(&["id: k3-18\n"]), [begins()]);
        assert_eq!(
            read(&["id: k3-18\n:\nid: k3-19\ndata: x\n\n"]),
            [begins(), event("x", "", Some("k3-19"))]
        );
        assert_eq!(read(&["id: k3-18\ndata: x\n\n"]), [begins(), event("x", "", Some("k3-18"))]);
        assert_eq!(read(&[":\nid: k3-19\ndata: cut"]), [], "an event's own id does not count before its end");
        assert_eq!(read(&[": bye\nretry: 700\n"]), [Piece::Retry(Duration::from_millis(700))]);
    }

    #[test]
    fn a_server_cannot_send_a_client_away_for_ever() {
        assert_eq!(read(&["retry: 99999999\n"]), [Piece::Retry(MAX_RETRY)]);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut parser = Parser::new(64 << 20);
        let line = format!("data: {}\n", "x".repeat(1 << 20));
        let fed = (0..65).try_for_each(|_| parser.feed(line.as_bytes()).map(|_| ()));
        assert!(fed.is_err());
    }
}
