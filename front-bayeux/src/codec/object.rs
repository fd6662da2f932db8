//! A JSON object written field by field, with values that may be JSON text already.

/// Writes one object into a buffer; [`finish`](Self::finish) closes it.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// `name` is one of ours and needs no escaping.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        put_text(self.name(name), value);
        self
    }

    /// `value` is JSON text.
    pub(crate) fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name).extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub(crate) fn number(&mut self, name: &str, value: i64) -> &mut Self {
        use std::io::Write;
        let out = self.name(name);
        // Writing to a Vec does not fail.
        let _ = write!(out, "{value}");
        self
    }

    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let out = self.name(name);
        let mut inner = Object::new(out);
        fill(&mut inner);
        inner.finish();
        self
    }

    /// Fields that are JSON text already, without the braces.
    pub(crate) fn fields(&mut self, text: &str) -> &mut Self {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn finish(self) {
        self.out.push(b'}');
    }
}

/// Appends `value` as a JSON string.
pub(crate) fn put_text(out: &mut Vec<u8>, value: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        // Writing a str to a Vec does not fail.
        let _ = serde_json::to_writer(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.text("a", "x\"\n\u{1}é").raw("b", "1e400").flag("c", false).number("d", -7);
        object.object("e", |inner| {
            inner.text("f", "");
        });
        object.object("g", |_| {});
        object.finish();
        let expected = r#"{"a":"x\"\n\u0001é","b":1e400,"c":false,"d":-7,"e":{"f":""},"g":{}}"#;
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }
}
