//! A cursor over one packet body. Nothing here can read past the end.

use super::DecodeError;

/// What is left of a packet body.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: DecodeError =
    DecodeError { reason: super::Reason::MalformedPacket, detail: "packet ends in the middle of a field" };

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<2>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<4>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*head))
    }

    /// A variable byte integer (MQTT 5.0 §1.5.5), which must be in its shortest form inside a body.
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0u32, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::malformed("variable byte integer is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("variable byte integer is longer than four bytes"))
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(bytes).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    /// Binary data with a two-byte length (MQTT 5.0 §1.5.6).
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let bytes = self.u16()?;
        self.take(usize::from(bytes))
    }

    /// A UTF-8 string (MQTT 5.0 §1.5.4). `std` refuses surrogates; U+0000 is refused here. Control and
    /// non-characters may be refused by the standard and are not.
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("string is not valid UTF-8"))?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::malformed("string contains U+0000"));
        }
        Ok(text)
    }

    /// A packet identifier, which is never 0 (MQTT 5.0 §2.2.1).
    pub(crate) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::malformed("packet identifier is 0")),
            id => Ok(id),
        }
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes are left over after the last field"))
        }
    }
}
