//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::payload::BASE64;
use crate::{Channels, CloudEvent, Item, Reading, parse_array};

const MAX_ITEMS: usize = 5;

/// A body that publishes: an item, an array of them, lines of them, a CloudEvent. What is taken is what a reader of
/// plain JSON finds there.
pub fn bodies(bytes: &[u8]) {
    item(bytes);
    event(bytes);
    match parse_array(bytes, MAX_ITEMS) {
        Ok(items) => {
            let all: Vec<&RawValue> = serde_json::from_slice(bytes).expect("an array");
            assert_eq!(all.len(), items.len());
            assert!(items.len() <= MAX_ITEMS);
            for one in items {
                item(one.get().as_bytes());
                event(one.get().as_bytes());
            }
        }
        Err(crate::Error::TooMany(max)) => {
            let all: Vec<&RawValue> = serde_json::from_slice(bytes).expect("JSON to its end");
            assert!(all.len() > max);
        }
        Err(_) => {}
    }
    for line in bytes.split(|byte| *byte == b'\n').take(20) {
        item(line);
    }
}

fn item(text: &[u8]) {
    let body = Bytes::copy_from_slice(text);
    let reading = Reading { max_channels: MAX_ITEMS, connection: |_| None };
    let Ok(item) = Item::read(text, &body, reading) else { return };
    // Deeper than the other reader goes.
    let Ok(Value::Object(plain)) = serde_json::from_slice::<Value>(text) else { return };
    let said = |name: &str| plain.get(name).and_then(Value::as_str);
    match (plain.get("data"), said("text"), said("base64")) {
        (Some(data), None, None) => {
            assert_eq!(&serde_json::from_slice::<Value>(&item.payload).expect("JSON"), data);
            assert!(text.windows(item.payload.len().max(1)).any(|part| part == item.payload), "its own text");
        }
        (None, Some(text), None) => assert_eq!(item.payload, text.as_bytes()),
        (None, None, Some(text)) => assert_eq!(item.payload, BASE64.decode(text).expect("base64")),
        _ => panic!("one of them is there"),
    }
    match &item.channels {
        Channels::One(name) => assert_eq!(said("channel"), Some(&**name)),
        Channels::Several(names) => {
            let plain = plain.get("channels").and_then(Value::as_array).expect("an array");
            assert!(names.len() <= MAX_ITEMS);
            assert!(plain.iter().map(Value::as_str).eq(names.iter().map(|name| Some(&**name))));
        }
    }
    assert_eq!(item.event.as_deref(), said("event"));
    assert!(item.event.as_deref().is_none_or(|name| !name.contains(['\n', '\r', '\0'])));
    assert_eq!(item.key.as_deref(), said("key"));
    assert!(item.key.as_deref().is_none_or(|key| (1..=128).contains(&key.len())));
    assert_eq!(item.retain, plain.get("retain").and_then(Value::as_bool).unwrap_or(false));
    assert_eq!(
        item.ttl.map(|ttl| ttl.as_secs_f64().round()),
        plain.get("ttl").and_then(Value::as_f64).map(f64::round)
    );
}

fn event(text: &[u8]) {
    let Ok(event) = CloudEvent::parse(text) else { return };
    let Ok(Value::Object(plain)) = serde_json::from_slice::<Value>(text) else { return };
    let said = |name: &str| plain.get(name).and_then(Value::as_str);
    assert_eq!(said("specversion"), Some("1.0"));
    let required = ["id", "source", "type"].map(said);
    assert!(required.iter().all(|value| value.is_some_and(|value| !value.is_empty())));
    assert_eq!(Some(event.channel()), said("channel").or(said("subject")).or(said("type")));
    if let (Ok(key), [Some(id), Some(source), _]) = (event.key(), required) {
        assert_eq!(key, format!("{source}\0{id}"));
    }
    assert!(!plain.contains_key("data") || said("data_base64").is_none());
    if let Some(time) = said("time") {
        let digits: Vec<u32> = time
            .split(|letter: char| !letter.is_ascii_digit())
            .take(6)
            .map(|digits| digits.parse().expect("a number"))
            .collect();
        let [_, month, day, hour, minute, second] = digits[..] else { panic!("{time}") };
        assert!((1..=12).contains(&month) && (1..=31).contains(&day), "{time}");
        assert!(hour < 24 && minute < 60 && second <= 60, "{time}");
        assert!(time.len() >= 20 && time.is_ascii(), "{time}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_bodies_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/publish_bodies");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            super::bodies(&std::fs::read(&file).unwrap());
        }
    }
}
