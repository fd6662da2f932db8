//! What a message carries of its item of GRIP, as only servers with the same key write it.
//!
//! It stands in a property of the message, and whoever may publish can set properties: without a seal an MQTT client
//! could close the WebSockets of others. A seal is good for one channel and payload. Its key is made at the start, unless
//! [`seal_with`] says one that outlives the process, or that other servers have.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use hmac::{Hmac, Mac as _};
use parking_lot::RwLock;
use sha2::Sha256;

/// `None` where the system has no random numbers: then nothing is sealed, and nothing believed.
static KEY: OnceLock<Option<[u8; 32]>> = OnceLock::new();

fn key() -> Option<&'static [u8; 32]> {
    KEY.get_or_init(secret).as_ref()
}

/// A secret that nobody knows; `None` where the system has no random numbers.
pub fn secret() -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).ok().map(|()| secret)
}

/// Seals with a key that is made of `secret`, from the start of the process on; whether nothing was sealed or read before,
/// which holds with the key of then.
pub fn seal_with(secret: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    mac.update(b"items of GRIP in properties of messages");
    KEY.set(Some(mac.finalize().into_bytes().into())).is_ok()
}

/// A payload that is shorter stands in the item as well.
const MIN_SHARED: usize = 64;

/// Keys of others whose items are believed, the newest last.
static OTHERS: RwLock<Vec<[u8; 32]>> = RwLock::new(Vec::new());

/// Most keys of others that are known: the oldest go, of nodes that are long gone.
const MAX_OTHERS: usize = 64;

/// The key itself, for servers that are to believe what was sealed here: who has it can seal as this one does.
pub fn seal_key() -> Option<[u8; 32]> {
    key().copied()
}

/// From now on items that were sealed with this key are known too.
pub fn believe(other: [u8; 32]) {
    let mut others = OTHERS.write();
    if key() != Some(&other) && !others.contains(&other) {
        if others.len() == MAX_OTHERS {
            others.remove(0);
        }
        others.push(other);
    }
}

fn mac(key: &[u8; 32], channel: &str, said: &str, payload: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key).ok()?;
    for part in [channel, said] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.update(payload);
    Some(mac)
}

/// How a payload stands in an item, if it is long enough to be left out there. It may be a part of a content, as the data
/// of an event is.
fn literal(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok().filter(|text| text.len() >= MIN_SHARED)?;
    grip::publish::escaped(text)
}

/// An item for a message of this channel and payload: the value of the property
/// [`ITEM_PROPERTY`](grip::publish::ITEM_PROPERTY). Where the payload stands in the item it is left out.
pub fn sealed(channel: &str, item: &str, payload: &[u8]) -> Option<String> {
    let (mut places, mut rest) = (Vec::new(), String::new());
    match literal(payload) {
        Some(literal) => {
            let mut parts = item.split(&literal);
            rest.push_str(parts.next().unwrap_or_default());
            for part in parts {
                places.push(rest.len().to_string());
                rest.push_str(part);
            }
        }
        None => rest.push_str(item),
    }
    let said = format!("{} {rest}", places.join(","));
    let mut out = String::with_capacity(65 + said.len());
    for byte in mac(key()?, channel, &said, payload)?.finalize().into_bytes() {
        write!(out, "{byte:02x}").ok()?;
    }
    out.push(' ');
    out.push_str(&said);
    Some(out)
}

/// What was sealed for a message of this channel and payload: where the payload was left out, and the rest.
fn opened<'t>(channel: &str, text: &'t str, payload: &[u8]) -> Option<(&'t str, &'t str)> {
    let (seal, said) = text.split_once(' ')?;
    let mut known = [0; 32];
    for (byte, pair) in known.iter_mut().zip(seal.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let is_by =
        |key: &[u8; 32]| mac(key, channel, said, payload).is_some_and(|mac| mac.verify_slice(&known).is_ok());
    let is_known = seal.len() == 64 && (key().is_some_and(is_by) || OTHERS.read().iter().rev().any(is_by));
    is_known.then(|| said.split_once(' ')).flatten()
}

/// The item without what is the payload of its message.
pub(crate) fn outline<'t>(channel: &str, text: &'t str, payload: &[u8]) -> Option<&'t str> {
    opened(channel, text, payload).map(|(_, rest)| rest)
}

/// The item, if it was sealed for a message of this channel and payload.
pub(crate) fn unsealed<'t>(channel: &str, text: &'t str, payload: &[u8]) -> Option<Cow<'t, str>> {
    let (places, rest) = opened(channel, text, payload)?;
    if places.is_empty() {
        return Some(Cow::Borrowed(rest));
    }
    let literal = literal(payload)?;
    let (mut whole, mut from) = (String::with_capacity(rest.len() + literal.len()), 0);
    for place in places.split(',') {
        let place = place.parse().ok()?;
        whole.push_str(rest.get(from..place)?);
        whole.push_str(&literal);
        from = place;
    }
    whole.push_str(rest.get(from..)?);
    Some(Cow::Owned(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_for_one_item_on_one_channel_with_one_payload() {
        let text = sealed("a", "{\"x\": 1}", b"p").unwrap();
        assert_eq!(unsealed("a", &text, b"p").as_deref(), Some("{\"x\": 1}"));
        assert_eq!(unsealed("b", &text, b"p"), None);
        assert_eq!(unsealed("a", &text, b"q"), None);
        for forged in [
            "{\"x\": 1}",
            "",
            " ",
            "00 {}",
            &text.replace('1', "2"),
            &text[2..],
            &format!("00{text}"),
            &format!("é{text}"),
            &text.replacen("  ", " 1 ", 1),
        ] {
            assert_eq!(unsealed("a", forged, b"p"), None, "{forged}");
        }
    }

    #[test]
    fn what_others_sealed_is_known_once_their_key_is() {
        let other = [7; 32];
        let said = " {}";
        let seal = mac(&other, "a", said, b"p").unwrap().finalize().into_bytes();
        let text = seal.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + " " + said;
        assert_eq!(unsealed("a", &text, b"p"), None);
        believe(other);
        assert_eq!(unsealed("a", &text, b"p").as_deref(), Some("{}"));
        assert_eq!(unsealed("a", &text, b"q"), None);
        // Of many the oldest go.
        for number in 0..MAX_OTHERS {
            believe([u8::try_from(number).unwrap() + 100; 32]);
        }
        assert_eq!(unsealed("a", &text, b"p"), None);
    }

    #[test]
    fn a_long_payload_stands_in_a_message_once() {
        let content = format!("é\n\"data\": {}", "x".repeat(4_000));
        let text_of = |text: &str| format!("\"{}\"", grip::publish::escaped(text).unwrap());
        let literal = text_of(&content);
        let event = text_of(&format!("event: a\ndata: {content}\n\n"));
        for (item, most) in [
            (format!("{{\"a\":{event}}}"), 140),
            (format!("{{\"a\":{literal}}}"), 100),
            (format!("{{\"a\":{literal},\"b\": {literal},\"c\":[\"{}\"]}}", "y".repeat(50)), 170),
            ("{\"a\":1}".to_owned(), 100),
        ] {
            let text = sealed("a", &item, content.as_bytes()).unwrap();
            assert!(text.len() < most, "{} bytes", text.len());
            assert_eq!(unsealed("a", &text, content.as_bytes()).as_deref(), Some(&*item));
        }
        // What is written in another way stands there as it came.
        let item = format!("{{\"a\":{}}}", literal.replace('é', "\\u00e9"));
        let text = sealed("a", &item, content.as_bytes()).unwrap();
        assert_eq!(unsealed("a", &text, content.as_bytes()).as_deref(), Some(&*item));
        let bytes = [0xff; 100];
        let text = sealed("a", "{}", &bytes).unwrap();
        assert_eq!(unsealed("a", &text, &bytes).as_deref(), Some("{}"));
    }
}
