//! Metadata: names with texts.

use std::collections::BTreeMap;

/// What is known of a connection or of an item, by names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta(BTreeMap<String, String>);

impl Meta {
    /// A value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets one; an empty value takes the name away.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value);
        }
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes names and values have.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// As an object of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl FromIterator<(String, String)> for Meta {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_takes_a_name_away() {
        let mut meta = Meta::default();
        meta.set("b", "2");
        meta.set("a", "\"1");
        assert_eq!((meta.get("a"), meta.len(), meta.bytes()), (Some("\"1"), 2, 5));
        assert_eq!(meta.to_json(), r#"{"a":"\"1","b":"2"}"#);
        meta.set("a", "");
        assert_eq!((meta.get("a"), meta.is_empty()), (None, false));
    }
}
