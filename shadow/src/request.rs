//! What a topic asks for.

/// Names a shadow: of a thing, and which of its shadows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    thing: Box<str>,
    shadow: Option<Box<str>>,
}

impl Name {
    /// The shadow of this name, or the thing's own without one. `None` if either cannot be a name:
    /// `[A-Za-z0-9:_-]{1,128}` for the thing, `[$A-Za-z0-9:_-]{1,64}` for the shadow.
    pub fn new(thing: &str, shadow: Option<&str>) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
        let is_thing = (1..=128).contains(&thing.len()) && thing.bytes().all(is_plain);
        let is_shadow = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte == b'$' || is_plain(byte))
        };
        (is_thing && shadow.is_none_or(is_shadow))
            .then(|| Self { thing: thing.into(), shadow: shadow.map(Box::from) })
    }

    /// Whose it is.
    pub fn thing(&self) -> &str {
        &self.thing
    }

    /// Which of the thing's; `None` for its own.
    pub fn shadow(&self) -> Option<&str> {
        self.shadow.as_deref()
    }

    /// As one word: `THING`, or `THING/SHADOW`.
    pub fn word(&self) -> String {
        match &self.shadow {
            None => self.thing.to_string(),
            Some(shadow) => format!("{}/{shadow}", self.thing),
        }
    }

    /// What such a word names.
    pub fn of_word(word: &str) -> Option<Self> {
        match word.split_once('/') {
            None => Self::new(word, None),
            Some((thing, shadow)) => Self::new(thing, Some(shadow)),
        }
    }

    /// What errors call it.
    pub(crate) fn shown(&self) -> &str {
        self.shadow().unwrap_or(&self.thing)
    }

    /// The topic before `/get`, `/update` and `/delete`.
    pub fn topic(&self) -> String {
        match &self.shadow {
            None => format!("$aws/things/{}/shadow", self.thing),
            Some(shadow) => format!("$aws/things/{}/shadow/name/{shadow}", self.thing),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The document.
    Get,
    /// To change it.
    Update,
    /// To forget it.
    Delete,
}

impl Action {
    /// Its name in topics.
    pub fn name(self) -> &'static str {
        match self {
            Action::Get => "get",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

/// A request, by its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Of which shadow.
    pub name: Name,
    /// What.
    pub action: Action,
}

impl Request {
    /// What a message on this topic asks for: `$aws/things/THING/shadow/ACTION` or
    /// `$aws/things/THING/shadow/name/SHADOW/ACTION`. `None` if it is another topic.
    pub fn of(topic: &str) -> Option<Self> {
        let (thing, rest) = topic.strip_prefix("$aws/things/")?.split_once("/shadow/")?;
        let (shadow, action) = match rest.strip_prefix("name/") {
            Some(rest) => {
                let (shadow, action) = rest.split_once('/')?;
                (Some(shadow), action)
            }
            None => (None, rest),
        };
        let action =
            [Action::Get, Action::Update, Action::Delete].into_iter().find(|known| known.name() == action)?;
        Some(Self { name: Name::new(thing, shadow)?, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_as_they_are_written() {
        for (thing, shadow) in [("a", None), ("a:b_c-D9", Some("s")), ("a", Some("$s:1"))] {
            let name = Name::new(thing, shadow).unwrap();
            assert_eq!(Name::of_word(&name.word()), Some(name.clone()));
            for action in [Action::Get, Action::Update, Action::Delete] {
                let topic = format!("{}/{}", name.topic(), action.name());
                assert_eq!(Request::of(&topic), Some(Request { name: name.clone(), action }), "{topic}");
                // Answers are no requests.
                for end in ["accepted", "rejected", "delta", "documents"] {
                    assert_eq!(Request::of(&format!("{topic}/{end}")), None);
                }
            }
        }
        for topic in [
            "$aws/things//shadow/get",
            "$aws/things/a b/shadow/get",
            "$aws/things/a/b/shadow/get",
            "$aws/things/a/shadow/name//get",
            "$aws/things/a/shadow/name/get",
            "$aws/things/a/shadow/else",
            "aws/things/a/shadow/get",
        ] {
            assert_eq!(Request::of(topic), None, "{topic}");
        }
        assert_eq!(Name::new(&"x".repeat(129), None), None);
        assert_eq!(Name::new("a", Some(&"x".repeat(65))), None);
    }
}
