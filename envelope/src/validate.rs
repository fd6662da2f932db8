//! Whether bytes are one JSON text, without building anything and without recursion.

/// Whether `text` is exactly one JSON value (RFC 8259), surrounded by nothing but white space, with at most `max_depth`
/// arrays and objects inside one another.
///
/// Only the grammar counts: numbers of any size are valid, and so are escapes of lone surrogates. The memory
/// used is one bit per level, whatever the text holds.
pub fn is_valid_json(text: &[u8], max_depth: usize) -> bool {
    std::str::from_utf8(text).is_ok()
        && Scanner { text, at: 0, nesting: Nesting::new(max_depth) }.scan().is_some()
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Array,
    Object,
}

/// The open arrays and objects, a bit each.
struct Nesting {
    bits: Vec<u64>,
    depth: usize,
    max_depth: usize,
}

impl Nesting {
    fn new(max_depth: usize) -> Self {
        Nesting { bits: Vec::new(), depth: 0, max_depth }
    }

    fn open(&mut self, kind: Kind) -> Option<()> {
        if self.depth == self.max_depth {
            return None;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        let word = self.bits.get_mut(word)?;
        *word = *word & !(1 << bit) | u64::from(kind == Kind::Object) << bit;
        self.depth += 1;
        Some(())
    }

    fn current(&self) -> Option<Kind> {
        let at = self.depth.checked_sub(1)?;
        let is_object = self.bits.get(at / 64)? >> (at % 64) & 1 == 1;
        Some(if is_object { Kind::Object } else { Kind::Array })
    }

    fn close(&mut self, kind: Kind) -> Option<()> {
        if self.current()? != kind {
            return None;
        }
        self.depth -= 1;
        Some(())
    }
}

/// Every method answers `None` where the text is not JSON.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    nesting: Nesting,
}

impl Scanner<'_> {
    fn scan(mut self) -> Option<()> {
        loop {
            // A value is due.
            match self.peek_solid()? {
                b'[' => {
                    self.at += 1;
                    self.nesting.open(Kind::Array)?;
                    if self.peek_solid()? != b']' {
                        continue;
                    }
                }
                b'{' => {
                    self.at += 1;
                    self.nesting.open(Kind::Object)?;
                    if self.peek_solid()? != b'}' {
                        self.key()?;
                        continue;
                    }
                }
                b'"' => self.string()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            // A value is complete: close what ends here, up to the next one.
            loop {
                let Some(kind) = self.nesting.current() else {
                    return self.peek_solid().is_none().then_some(());
                };
                match (self.peek_solid()?, kind) {
                    (b',', Kind::Array) => {
                        self.at += 1;
                        break;
                    }
                    (b',', Kind::Object) => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    (b']', _) => {
                        self.at += 1;
                        self.nesting.close(Kind::Array)?;
                    }
                    (b'}', _) => {
                        self.at += 1;
                        self.nesting.close(Kind::Object)?;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is not white space, not taken.
    fn peek_solid(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.strip_prefix(word)?;
        self.at += word.len();
        Some(())
    }

    /// A member's name and the colon behind it.
    fn key(&mut self) -> Option<()> {
        if self.peek_solid()? != b'"' {
            return None;
        }
        self.string()?;
        if self.peek_solid()? != b':' {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let hex = self.text.get(self.at..self.at + 4)?;
                            if !hex.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        // A leading zero stands alone.
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_grammar_of_rfc_8259_passes() {
        let valid = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1e400",
            "-1.5E+10",
            "12345678901234567890",
            r#""""#,
            r#""\ud800""#,
            r#""\"\\\/\b\f\n\r\t\u00e9é""#,
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "\t\r\n{\"a\":[{\"b\":{}}],\"a\":1}\n",
            "[[],[[]]]",
            "\"\u{7f}\u{2028}\"",
            r#"{"":null}"#,
        ];
        for text in valid {
            assert!(is_valid_json(text.as_bytes(), 512), "{text}");
        }
        let invalid = [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "'a'",
            "\"",
            "\"\\\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u123"#,
            "\"\n\"",
            "\"\0\"",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1]",
            "{\"a\" 1}",
            "{,}",
            "1 2",
            "[] []",
            "{}x",
            "//",
            "\u{feff}1",
            "[1]]",
            "nul\u{0}",
        ];
        for text in invalid {
            assert!(!is_valid_json(text.as_bytes(), 512), "{text}");
        }
        assert!(!is_valid_json(b"\"\xff\"", 512), "not UTF-8");
        assert!(!is_valid_json(b"\"\xed\xa0\x80\"", 512), "a surrogate in UTF-8");
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        let objects = |depth: usize| [b"{\"a\":".repeat(depth), b"1".to_vec(), vec![b'}'; depth]].concat();
        for (depth, expected) in
            [(0, false), (1, true), (64, true), (65, true), (511, true), (512, true), (513, false)]
        {
            assert_eq!(is_valid_json(&nested(depth), 512), expected, "{depth} arrays");
            assert_eq!(is_valid_json(&objects(depth), 512), depth <= 512, "{depth} objects");
        }
        assert!(!is_valid_json(&nested(200_000), 512));
        assert!(is_valid_json(&nested(200_000), 200_000));
        assert!(is_valid_json(b"1", 0));
        assert!(!is_valid_json(b"[]", 0));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{},:"\\au0-9eE.+\- \ntrfalsn]{0,12}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_valid_json(text.as_bytes(), 100), theirs, "{}", text);
        }
    }
}
