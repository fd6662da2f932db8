//! How messages look on standard output.

use std::borrow::Cow;
use std::io::{self, BufWriter, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The form of a message on standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// The payload and a line feed; the default for one channel
    Raw,
    /// The envelope, one JSON object per line; the default for wildcards and several channels
    Json,
    /// Channel, tab, payload and a line feed
    Channel,
}

impl Format {
    /// What is printed where nobody asked for a form: with several channels, one has to see which it was.
    pub(crate) fn usual(filters: &[String]) -> Self {
        let is_one_channel = matches!(filters, [one]
            if broker_core::Filter::parse(one).is_ok_and(|filter| filter.as_literal().is_some()));
        if is_one_channel { Format::Raw } else { Format::Json }
    }
}

/// The members of an envelope that are looked at.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

/// Writes messages to standard output.
#[derive(Debug)]
pub(crate) struct Printer<W: Write = BufWriter<Stdout>> {
    format: Format,
    out: W,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Printer { format, out: BufWriter::new(io::stdout()) }
    }
}

impl<W: Write> Printer<W> {
    /// Prints one message; the error of an envelope that is none is [`io::ErrorKind::InvalidData`].
    pub(crate) fn print(&mut self, envelope: &[u8]) -> io::Result<()> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let message: Envelope<'_> =
            serde_json::from_slice(envelope).map_err(|error| invalid(error.to_string()))?;
        if self.format == Format::Json {
            // A payload's own line ends are white space here, as JSON has none within a string.
            let line: Vec<u8> =
                envelope.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
            self.out.write_all(&line)?;
            return self.out.write_all(b"\n");
        }
        let payload: Cow<'_, [u8]> = match &message {
            Envelope { data: Some(data), .. } => data.get().as_bytes().into(),
            Envelope { text: Some(text), .. } => text.as_bytes().into(),
            Envelope { base64: Some(text), .. } => {
                STANDARD.decode(text.as_bytes()).map_err(|error| invalid(error.to_string()))?.into()
            }
            // A `data` of `null` reads as none.
            _ => b"null".as_slice().into(),
        };
        if self.format == Format::Channel {
            self.out.write_all(message.channel.as_bytes())?;
            self.out.write_all(b"\t")?;
        }
        self.out.write_all(&payload)?;
        self.out.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, envelope: &str) -> io::Result<Vec<u8>> {
        let mut printer = Printer { format, out: Vec::new() };
        printer.print(envelope.as_bytes()).map(|()| printer.out)
    }

    #[test]
    fn the_payload_is_printed_as_it_was_published() {
        let cases: [(&str, &[u8]); 6] = [
            (
                r#"{"channel":"a/b","id":"k-1","data":{"n":12345678901234567890, "x":1e400}}"#,
                br#"{"n":12345678901234567890, "x":1e400}"#,
            ),
            (r#"{"channel":"a/b","text":"two\r\nlines \u0041"}"#, b"two\r\nlines A"),
            (r#"{"channel":"a/b","base64":"AP8="}"#, b"\x00\xff"),
            (r#"{"channel":"a/b","data":null}"#, b"null"),
            (r#"{"channel":"a/b","data":"text"}"#, br#""text""#),
            (r#"{"channel":"a/b","text":""}"#, b""),
        ];
        for (envelope, payload) in cases {
            assert_eq!(printed(Format::Raw, envelope).unwrap(), [payload, b"\n"].concat());
            assert_eq!(printed(Format::Channel, envelope).unwrap(), [b"a/b\t", payload, b"\n"].concat());
        }
    }

    #[test]
    fn json_is_the_envelope_on_one_line() {
        let envelope = "{\"channel\":\"a\",\"data\":{\n \"n\": 1\n}}";
        assert_eq!(printed(Format::Json, envelope).unwrap(), b"{\"channel\":\"a\",\"data\":{  \"n\": 1 }}\n");
    }

    #[test]
    fn what_is_no_envelope_is_invalid() {
        for wrong in ["", "{", "[]", "{\"data\":1}", "{\"channel\":\"a\",\"base64\":\"!\"}"] {
            assert_eq!(
                printed(Format::Raw, wrong).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{wrong}"
            );
        }
    }
}
