//! Header fields that are a text with parameters: `first; name=value; name="quoted value"`.

use crate::error::Problem;

/// A text and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) first: String,
    /// In their order, names in lower case.
    parameters: Vec<(String, String)>,
}

impl Element {
    /// The first parameter of this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A list with commas, without empty elements.
pub(crate) fn list(text: &str) -> Result<Vec<Element>, Problem> {
    elements(text, |scanner| scanner.word(b",;"))
}

/// As a list; each element begins with a link in angle brackets, whatever stands between them.
pub(crate) fn links(text: &str) -> Result<Vec<Element>, Problem> {
    elements(text, |scanner| scanner.link(b",;"))
}

/// One element; a comma is a part of its text.
pub(crate) fn single(text: &str) -> Result<Element, Problem> {
    let mut scanner = Scanner { rest: text };
    let first = scanner.word(b";")?;
    let parameters = scanner.parameters(b";")?;
    Ok(Element { first, parameters })
}

/// Nothing but parameters, with commas or semicolons between them.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut scanner = Scanner { rest: text };
    let mut pairs = Vec::new();
    loop {
        let name = scanner.word(b",;=")?;
        let value = if scanner.takes(b'=') { Some(scanner.word(b",;")?) } else { None };
        if value.is_some() || !name.is_empty() {
            pairs.push((name, value.unwrap_or_default()));
        }
        if !(scanner.takes(b',') || scanner.takes(b';')) {
            return Ok(pairs);
        }
    }
}

fn elements(
    text: &str,
    first: impl Fn(&mut Scanner<'_>) -> Result<String, Problem>,
) -> Result<Vec<Element>, Problem> {
    let mut scanner = Scanner { rest: text };
    let mut elements = Vec::new();
    loop {
        let first = first(&mut scanner)?;
        let parameters = scanner.parameters(b",;")?;
        if !(first.is_empty() && parameters.is_empty()) {
            elements.push(Element { first, parameters });
        }
        if !scanner.takes(b',') {
            return Ok(elements);
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    /// Text up to one of `stops` or the end, without the blanks around it; or a quoted text, after which one of them or
    /// the end comes.
    fn word(&mut self, stops: &[u8]) -> Result<String, Problem> {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let rest = self.rest;
        if let Some(quoted) = rest.strip_prefix('"') {
            return self.quoted(quoted, stops);
        }
        let end = self.rest.bytes().position(|byte| stops.contains(&byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.trim_end_matches([' ', '\t']).to_owned())
    }

    fn quoted(&mut self, quoted: &str, stops: &[u8]) -> Result<String, Problem> {
        let mut text = String::new();
        let mut chars = quoted.char_indices();
        while let Some((place, char)) = chars.next() {
            match char {
                '\\' => text.push(chars.next().ok_or(Problem::Quotes)?.1),
                '"' => {
                    let behind = quoted.len() - place - 1;
                    self.rest = &self.rest[self.rest.len() - behind..];
                    self.rest = self.rest.trim_start_matches([' ', '\t']);
                    let ends = self.rest.bytes().next().is_none_or(|next| stops.contains(&next));
                    return if ends { Ok(text) } else { Err(Problem::Quotes) };
                }
                char => text.push(char),
            }
        }
        Err(Problem::Quotes)
    }

    /// `<…>` with its brackets; or a word, which is no link.
    fn link(&mut self, stops: &[u8]) -> Result<String, Problem> {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let Some(end) = self.rest.find('>').filter(|_| self.rest.starts_with('<')) else {
            return self.word(stops);
        };
        let (link, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Ok(link.to_owned() + &self.word(stops)?)
    }

    fn parameters(&mut self, stops: &[u8]) -> Result<Vec<(String, String)>, Problem> {
        let mut parameters = Vec::new();
        let names: Vec<u8> = stops.iter().copied().chain([b'=']).collect();
        while self.takes(b';') {
            let mut name = self.word(&names)?;
            name.make_ascii_lowercase();
            let value = if self.takes(b'=') { self.word(stops)? } else { String::new() };
            if !name.is_empty() {
                parameters.push((name, value));
            }
        }
        Ok(parameters)
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let taken = self.rest.strip_prefix(char::from(wanted));
        if let Some(rest) = taken {
            self.rest = rest;
        }
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_what_separates() {
        let list = list(r#" "a;b\"c" ; x="1,2";Y=3 , d "#).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].first, "a;b\"c");
        assert_eq!(list[0].parameter("x"), Some("1,2"));
        assert_eq!(list[0].parameter("y"), Some("3"));
        assert_eq!(list[1], Element { first: "d".into(), parameters: Vec::new() });
    }

    #[test]
    fn empty_elements_are_none() {
        assert_eq!(list(",, ,").unwrap(), []);
        assert_eq!(pairs(",;a=1,, b").unwrap(), [("a".into(), "1".into()), ("b".into(), String::new())]);
    }

    #[test]
    fn a_quote_that_does_not_end_is_refused() {
        for text in ["\"", "\"a\\", "\"a\" b", "a; x=\"", "a; \"x"] {
            assert_eq!(list(text), Err(Problem::Quotes), "{text}");
        }
    }
}
