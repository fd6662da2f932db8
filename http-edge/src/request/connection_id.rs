//! How a connection is named to the outside.

use broker_core::SubscriberKey;

/// A subscriber's key as the opaque id that clients see and pass back, e.g. in `?exclude=`: lower-case hexadecimal.
pub fn connection_id(key: SubscriberKey) -> String {
    format!("{:x}", key.to_u128())
}

/// The key of [`connection_id`]; `None` for what is no such id. A key of a connection that is gone names nobody.
pub fn parse_connection_id(id: &str) -> Option<SubscriberKey> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.is_empty() || !id.bytes().all(plain) {
        return None;
    }
    let key = SubscriberKey::from_u128(u128::from_str_radix(id, 16).ok()?);
    (connection_id(key) == id).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_key_and_nothing_else_is_one() {
        let key = SubscriberKey::from_u128(3 << 64 | 17 << 32 | 5);
        assert_eq!(parse_connection_id(&connection_id(key)), Some(key));
        for wrong in [
            "",
            "g",
            "+1",
            "0x1",
            "A",
            "00",
            "ffffffffffffffffffffffffffffffffff",
            "100000000000000000000000000",
        ] {
            assert_eq!(parse_connection_id(wrong), None, "{wrong}");
        }
    }
}
