//! An event stream, piece by piece (HTML Standard, "Parsing an event stream").

use std::time::Duration;

/// What stood before one blank line.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Block {
    /// `data:` lines joined by LF; `None` where there were none, and then it is no event.
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) name: Vec<u8>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<Duration>,
}

/// Largest event that is put together: above what a server with default limits can send, base64 and all.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// Longest time that a server may ask a client to stay away.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Reads blocks out of bytes that come in any pieces.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last byte ended a line with CR; an LF right behind it belongs to it.
    after_cr: bool,
    block: Block,
}

/// An event that does not end.
#[derive(Debug, thiserror::Error)]
#[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
pub(crate) struct TooLarge;

impl Parser {
    /// Takes bytes up to the end of a block, and returns it and how many bytes that took. `None` took them all.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Block, usize)>, TooLarge> {
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
                return Ok(Some((std::mem::take(&mut self.block), taken)));
            }
            self.field(&line);
        }
        Ok(None)
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let held = self.line.len() + self.block.data.as_ref().map_or(0, Vec::len);
        if held + piece.len() > MAX_EVENT_BYTES {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn field(&mut self, line: &[u8]) {
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
                self.block.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.block.retry = millis.map(|millis| Duration::from_millis(millis).min(MAX_RETRY));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Vec<Block> {
        let mut parser = Parser::default();
        let mut blocks = Vec::new();
        for piece in pieces {
            let mut rest = piece.as_bytes();
            while let Some((block, taken)) = parser.feed(rest).unwrap() {
                blocks.push(block);
                rest = &rest[taken..];
            }
        }
        blocks
    }

    fn event(data: &str, name: &str, id: Option<&str>) -> Block {
        let (data, name, id) = (Some(data.into()), name.into(), id.map(Into::into));
        Block { data, name, id, retry: None }
    }

    #[test]
    fn every_line_end_is_one_and_blocks_end_at_blank_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = "id: 1\nevent: e\ndata: a\ndata:  b\ndata\n\ndata:x\n\n".replace('\n', end);
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
        assert_eq!(read(&[":\n\n"]), [Block::default()]);
        assert_eq!(read(&["id: k3-18\n\n"]), [Block { id: Some("k3-18".into()), ..Block::default() }]);
        let goodbye = Block { retry: Some(Duration::from_millis(700)), ..Block::default() };
        assert_eq!(read(&[": bye\nretry: 700\n\n"]), [goodbye]);
        assert_eq!(read(&["retry: 7x\nretry: -1\nid: a\0b\nunknown: 1\n\n"]), [Block::default()]);
        assert_eq!(read(&["data: cut"]), []);
    }

    #[test]
    fn a_server_cannot_send_a_client_away_for_ever() {
        assert_eq!(read(&["retry: 99999999\n\n"])[0].retry, Some(MAX_RETRY));
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1 << 20));
        let fed = (0..65).try_for_each(|_| parser.feed(line.as_bytes()).map(|_| ()));
        assert!(fed.is_err());
    }
}
