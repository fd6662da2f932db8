//! A batch's messages out of its text, in steps, so that a long text is not read in one go.

use std::ops::ControlFlow;

use super::message::{Bounds, Message, ParseError, parse_message};

/// Bytes looked at in one step.
const STEP_BYTES: usize = 64 << 10;

/// Reads a batch: [`step`](Self::step) until it breaks.
pub(crate) struct BatchParser<'a> {
    body: &'a [u8],
    bounds: Bounds,
    messages: Vec<Message<'a>>,
    /// The next byte to look at.
    at: usize,
    /// Brackets that are open.
    depth: usize,
    /// Those around each message: one in an array, none around a single message.
    outside: usize,
    string: InString,
    /// Where the message that is open began.
    start: usize,
    expects: Expects,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InString {
    No,
    Yes,
    /// After a backslash.
    Escaped,
}

/// What may come outside of messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// A message or an array of them.
    Batch,
    /// A message, or the end of an empty array.
    FirstMessage,
    /// A message after a comma.
    Message,
    /// A comma, or the end of the array.
    Comma,
    /// Nothing.
    End,
}

impl<'a> BatchParser<'a> {
    pub(crate) fn new(body: &'a [u8], bounds: Bounds) -> Self {
        Self {
            body,
            bounds,
            messages: Vec::new(),
            at: 0,
            depth: 0,
            outside: 0,
            string: InString::No,
            start: 0,
            expects: Expects::Batch,
        }
    }

    /// Reads on; breaks with the messages, or with what is wrong.
    pub(crate) fn step(&mut self) -> ControlFlow<Result<Vec<Message<'a>>, ParseError>> {
        let end = self.body.len().min(self.at + STEP_BYTES);
        while self.at < end {
            if self.string == InString::Yes {
                // Most of a message is inside of strings.
                let rest = self.body.get(self.at..end).unwrap_or_default();
                self.at += memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            }
            let Some(&byte) = self.body.get(self.at).filter(|_| self.at < end) else { break };
            let read = if self.depth > self.outside { self.inside(byte) } else { self.between(byte) };
            if let Err(error) = read {
                return ControlFlow::Break(Err(error));
            }
            self.at += 1;
        }
        if end < self.body.len() {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(match self.expects {
            Expects::Batch => Err(ParseError::Empty),
            Expects::End => Ok(std::mem::take(&mut self.messages)),
            _ => Err(ParseError::Json("it ends in the middle".to_owned())),
        })
    }

    /// A byte of a message.
    fn inside(&mut self, byte: u8) -> Result<(), ParseError> {
        match (self.string, byte) {
            (InString::Escaped, _) => self.string = InString::Yes,
            (InString::Yes, b'\\') => self.string = InString::Escaped,
            (InString::Yes, b'"') => self.string = InString::No,
            (InString::Yes, _) => {}
            (InString::No, b'"') => self.string = InString::Yes,
            (InString::No, b'{' | b'[') => self.open()?,
            (InString::No, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == self.outside {
                    self.finish_message()?;
                }
            }
            (InString::No, _) => {}
        }
        Ok(())
    }

    /// A byte outside of messages.
    fn between(&mut self, byte: u8) -> Result<(), ParseError> {
        let message_may_come =
            matches!(self.expects, Expects::Batch | Expects::FirstMessage | Expects::Message);
        match (self.expects, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Expects::Batch, b'[') => {
                self.open()?;
                self.outside = 1;
                self.expects = Expects::FirstMessage;
            }
            (_, b'{' | b'[') if message_may_come => {
                if self.messages.len() >= self.bounds.max_messages {
                    return Err(ParseError::TooMany { max: self.bounds.max_messages });
                }
                self.start = self.at;
                self.open()?;
            }
            (Expects::Comma, b',') => self.expects = Expects::Message,
            (Expects::FirstMessage | Expects::Comma, b']') => {
                self.depth = 0;
                self.outside = 0;
                self.expects = Expects::End;
            }
            _ if message_may_come && !matches!(byte, b',' | b']' | b'}' | b':') => {
                return Err(ParseError::NotMessages);
            }
            _ => return Err(ParseError::Json(format!("a stray character at byte {}", self.at))),
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        // Judged before the parser runs: that takes no more stack than a message needs.
        if self.depth > self.bounds.max_depth {
            return Err(ParseError::TooDeep { max: self.bounds.max_depth });
        }
        Ok(())
    }

    fn finish_message(&mut self) -> Result<(), ParseError> {
        let text = self.body.get(self.start..=self.at).unwrap_or_default();
        self.messages.push(parse_message(text)?);
        self.expects = if self.outside == 0 { Expects::End } else { Expects::Comma };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_batch_is_read_in_steps_and_one_that_is_too_long_no_further_than_its_bound() {
        let bounds = Bounds { max_depth: 512, max_messages: 10_000 };
        let message = format!("{{\"data\":\"{}\"}}", "x".repeat(1000));
        let body = format!("[{}]", vec![&*message; 5_000].join(","));
        let mut parser = BatchParser::new(body.as_bytes(), bounds);
        let mut steps = 1;
        let messages = loop {
            let before = parser.messages.len();
            match parser.step() {
                ControlFlow::Break(read) => break read.unwrap(),
                ControlFlow::Continue(()) => assert!(parser.messages.len() - before <= STEP_BYTES / 1000),
            }
            steps += 1;
        };
        assert_eq!((messages.len(), steps), (5_000, body.len().div_ceil(STEP_BYTES)));

        let tiny = format!("[{}{{}}]", "{},".repeat(5_000_000));
        let mut parser = BatchParser::new(tiny.as_bytes(), bounds);
        assert!(matches!(parser.step(), ControlFlow::Break(Err(ParseError::TooMany { max: 10_000 }))));
    }
}
