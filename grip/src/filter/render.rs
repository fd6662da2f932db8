//! Contents with places to fill: `%(name)s`, `%I`, `%%`.

use bytes::Bytes;

/// How much longer than it was a content may become, in bytes.
pub const MAX_GROWTH: usize = 1 << 20;
/// Longest text between brackets, in bytes.
const MAX_ARGUMENT_BYTES: usize = 4_096;

/// What stands in a place that is to be filled.
pub(super) struct Place<'a> {
    /// The letter at its end.
    pub(super) kind: u8,
    /// What stands in brackets.
    pub(super) argument: Option<&'a str>,
}

/// What a content looks like at its beginning.
enum Found<'a> {
    /// This many bytes without a place in them.
    Plain(usize),
    /// A place, this long.
    Place(Place<'a>, usize),
    /// A place whose end is not there yet.
    Part,
}

fn find(content: &[u8]) -> Result<Found<'_>, String> {
    match content.iter().position(|byte| *byte == b'%') {
        None => return Ok(Found::Plain(content.len())),
        Some(0) => {}
        Some(at) => return Ok(Found::Plain(at)),
    }
    match content.get(1) {
        None => Ok(Found::Part),
        Some(b'(') => {
            let rest = content.get(2..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b')') else {
                let is_long = rest.len() > MAX_ARGUMENT_BYTES;
                return if is_long { Err("a bracket does not end".to_owned()) } else { Ok(Found::Part) };
            };
            let argument = rest.get(..end).and_then(|text| std::str::from_utf8(text).ok());
            let argument = argument.filter(|text| text.len() <= MAX_ARGUMENT_BYTES);
            let argument = argument.ok_or("what stands in brackets is too long, or no text")?;
            match rest.get(end + 1) {
                None => Ok(Found::Part),
                Some(kind) => Ok(Found::Place(Place { kind: *kind, argument: Some(argument) }, end + 4)),
            }
        }
        Some(kind) => Ok(Found::Place(Place { kind: *kind, argument: None }, 2)),
    }
}

/// Fills places as far as they are whole; what was written and how much of the content was used.
fn fill(
    content: &[u8],
    max_bytes: usize,
    with: &dyn Fn(&Place<'_>) -> Result<Vec<u8>, String>,
) -> Result<(Vec<u8>, usize), String> {
    let (mut filled, mut used) = (Vec::with_capacity(content.len()), 0);
    while let Some(rest) = content.get(used..).filter(|rest| !rest.is_empty()) {
        match find(rest)? {
            Found::Plain(bytes) => {
                filled.extend_from_slice(rest.get(..bytes).unwrap_or_default());
                used += bytes;
            }
            Found::Place(Place { kind: b'%', argument: None }, bytes) => {
                filled.push(b'%');
                used += bytes;
            }
            Found::Place(place, bytes) => {
                filled.extend_from_slice(&with(&place)?);
                used += bytes;
            }
            Found::Part => break,
        }
        if filled.len() > max_bytes {
            return Err("the content becomes too long".to_owned());
        }
    }
    Ok((filled, used))
}

/// A whole content with its places filled.
pub(super) fn filled(
    content: &Bytes,
    with: &dyn Fn(&Place<'_>) -> Result<Vec<u8>, String>,
) -> Result<Bytes, String> {
    if !content.contains(&b'%') {
        return Ok(content.clone());
    }
    let (filled, used) = fill(content, content.len() + MAX_GROWTH, with)?;
    if used < content.len() { Err("a place to fill does not end".to_owned()) } else { Ok(filled.into()) }
}

/// A name's value, where `%(name)s` stands.
pub(super) fn named(place: &Place<'_>, value: impl Fn(&str) -> Option<String>) -> Result<Vec<u8>, String> {
    match (place.kind, place.argument) {
        (b's', Some(name)) => {
            value(name).map(String::into_bytes).ok_or_else(|| format!("{name:?} has no value"))
        }
        (b's', None) => Err("`%s` needs a name in brackets".to_owned()),
        (kind, _) => Err(format!("`%{}` is not known", char::from(kind).escape_default())),
    }
}

/// Puts ids into a content that comes in parts: `%I` is the id of the place in all channels, `%(text)I` a text that is
/// written as ids are.
#[derive(Clone, Debug)]
pub struct BuildId {
    id: Option<String>,
    is_hex: bool,
    /// What may be the beginning of a place.
    rest: Vec<u8>,
    written: usize,
    read: usize,
}

impl BuildId {
    /// By the metadata of a client, `id_format` and `id_encoding`, and the last ids that it knows of its channels.
    ///
    /// # Errors
    /// Why no id can be built.
    pub fn new<'a>(
        meta: &crate::Meta,
        last_ids: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<Self, String> {
        let format = meta.get("id_format").ok_or("there is no `id_format`")?;
        let is_hex = match meta.get("id_encoding") {
            None => false,
            Some("hex") => true,
            Some(other) => return Err(format!("the encoding {other:?} is not known")),
        };
        let value = |wanted: &str| {
            last_ids.clone().into_iter().find(|(name, _)| *name == wanted).map(|(_, id)| id.to_owned())
        };
        // Without any id, contents may still have texts that are to be written as ids.
        let id = match last_ids.clone().into_iter().next() {
            None => None,
            Some(_) => {
                let format = Bytes::copy_from_slice(format.as_bytes());
                let id = filled(&format, &|place| named(place, value))?;
                Some(String::from_utf8_lossy(&id).into_owned())
            }
        };
        Ok(Self { id, is_hex, rest: Vec::new(), written: 0, read: 0 })
    }

    fn place(&self, place: &Place<'_>) -> Result<Vec<u8>, String> {
        if place.kind != b'I' {
            return Err(format!("`%{}` is not known", char::from(place.kind).escape_default()));
        }
        let id = place.argument.or(self.id.as_deref()).ok_or("no id is known")?;
        Ok(if self.is_hex { hex(id).into_bytes() } else { id.as_bytes().to_vec() })
    }

    /// Of a whole content.
    ///
    /// # Errors
    /// What in it cannot be filled.
    pub fn whole(&self, content: &Bytes) -> Result<Bytes, String> {
        filled(content, &|place| self.place(place))
    }

    /// The next part of a content; what may be the beginning of a place is kept for the part after it.
    ///
    /// # Errors
    /// What in it cannot be filled.
    pub fn feed(&mut self, part: &[u8]) -> Result<Bytes, String> {
        self.rest.extend_from_slice(part);
        self.read += part.len();
        let room = (self.read + MAX_GROWTH).saturating_sub(self.written);
        let (filled, used) = fill(&self.rest, room, &|place| self.place(place))?;
        self.rest.drain(..used);
        self.written += filled.len();
        Ok(filled.into())
    }

    /// The content is over.
    ///
    /// # Errors
    /// It ends in the middle of a place.
    pub fn finish(self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err("a place to fill does not end".to_owned()) }
    }
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Meta;

    fn meta(pairs: &[(&str, &str)]) -> Meta {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn built(pairs: &[(&str, &str)], content: &'static str) -> Result<String, String> {
        let ids = [("a", "1"), ("b", "2")];
        let whole = BuildId::new(&meta(pairs), ids)?.whole(&content.into())?;
        Ok(String::from_utf8(whole.to_vec()).unwrap())
    }

    #[test]
    fn an_id_of_all_channels_is_put_in() {
        let format = [("id_format", "a:%(a)s,b:%(b)s%%")];
        assert_eq!(built(&format, "id: %I\n").unwrap(), "id: a:1,b:2%\n");
        assert_eq!(built(&format, "%(x y)I 100%%").unwrap(), "x y 100%");
        assert_eq!(built(&format, "nothing").unwrap(), "nothing");
        let hex = [("id_format", "%(a)s:%(b)s"), ("id_encoding", "hex")];
        assert_eq!(built(&hex, "%I %(é)I").unwrap(), "313a32 c3a9");
    }

    #[test]
    fn what_cannot_be_built_is_said() {
        let format = [("id_format", "%(a)s")];
        for (pairs, content, why) in [
            (&[][..], "", "there is no `id_format`"),
            (&[("id_format", "%(c)s")], "", "\"c\" has no value"),
            (&[("id_format", "%s")], "", "`%s` needs a name in brackets"),
            (&[("id_format", "%(a)x")], "", "`%x` is not known"),
            (&[("id_format", "x"), ("id_encoding", "rot13")], "", "the encoding \"rot13\" is not known"),
            (&format, "%(a)s", "`%s` is not known"),
            (&format, "100%", "a place to fill does not end"),
            (&format, "%(a", "a place to fill does not end"),
        ] {
            assert_eq!(built(pairs, content), Err(why.to_owned()), "{content}");
        }
        let none: [(&str, &str); 0] = [];
        let building = BuildId::new(&meta(&format), none).unwrap();
        assert_eq!(building.whole(&"%I".into()), Err("no id is known".into()));
        assert_eq!(building.whole(&"%(x)I".into()), Ok("x".into()));
    }

    #[test]
    fn a_content_in_parts_is_the_same_as_whole() {
        let content = "a%Ib%(xyz)Ic%%d%I";
        let building = BuildId::new(&meta(&[("id_format", "<%(a)s>")]), [("a", "1")]).unwrap();
        let whole = building.whole(&content.into()).unwrap();
        for size in 1..content.len() {
            let mut parts = building.clone();
            let mut joined = Vec::new();
            for part in content.as_bytes().chunks(size) {
                joined.extend_from_slice(&parts.feed(part).unwrap());
            }
            assert_eq!(joined, whole, "{size}");
            parts.finish().unwrap();
        }
        let mut parts = building.clone();
        assert_eq!(parts.feed(b"x%(").unwrap(), "x");
        assert!(parts.clone().finish().is_err());
        assert!(parts.feed(&[b'a'; 5_000]).is_err(), "it is not kept for ever");
    }

    #[test]
    fn a_content_does_not_grow_without_end() {
        let long = "x".repeat(10_000);
        let building = BuildId::new(&meta(&[("id_format", &long)]), [("a", "1")]).unwrap();
        let content = Bytes::from("%I".repeat(200));
        assert_eq!(building.whole(&content), Err("the content becomes too long".into()));
        let mut parts = building;
        assert!((0..200).any(|_| parts.feed(b"%I").is_err()));
    }
}
