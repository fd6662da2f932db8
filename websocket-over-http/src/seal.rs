//! What a message carries of its item of GRIP, as only servers with the same key write it.
//!
//! It stands in a property of the message, and whoever may publish can set properties: without a seal an MQTT client
//! could close the WebSockets of others. A seal is good for one channel. Its key is made at the start, unless
//! [`seal_with`] says one that outlives the process, or that other servers have.

use std::fmt::Write as _;
use std::sync::OnceLock;

use hmac::{Hmac, Mac as _};
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

fn mac(channel: &str, item: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key()?).ok()?;
    mac.update(&(channel.len() as u64).to_be_bytes());
    mac.update(channel.as_bytes());
    mac.update(item.as_bytes());
    Some(mac)
}

/// An item for a message of this channel: the value of the property
/// [`ITEM_PROPERTY`](grip::publish::ITEM_PROPERTY).
pub fn sealed(channel: &str, item: &str) -> Option<String> {
    let mut out = String::with_capacity(65 + item.len());
    for byte in mac(channel, item)?.finalize().into_bytes() {
        write!(out, "{byte:02x}").ok()?;
    }
    out.push(' ');
    out.push_str(item);
    Some(out)
}

/// The item, if it was sealed for this channel.
pub(crate) fn unsealed<'t>(channel: &str, text: &'t str) -> Option<&'t str> {
    let (seal, item) = text.split_once(' ')?;
    let mut said = [0; 32];
    for (byte, pair) in said.iter_mut().zip(seal.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let is_whole = seal.len() == 64;
    (is_whole && mac(channel, item)?.verify_slice(&said).is_ok()).then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_for_one_item_on_one_channel() {
        let text = sealed("a", "{\"x\": 1}").unwrap();
        assert_eq!(unsealed("a", &text), Some("{\"x\": 1}"));
        assert_eq!(unsealed("b", &text), None);
        for forged in [
            "{\"x\": 1}",
            "",
            " ",
            "00 {}",
            &text.replace('1', "2"),
            &text[2..],
            &format!("00{text}"),
            &format!("é{text}"),
        ] {
            assert_eq!(unsealed("a", forged), None, "{forged}");
        }
    }
}
