//! What a request and its answer are called in logs.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// For `X-Request-Id` on an answer: the client's own id if it is short and printable, so that its logs and ours meet; else 64 random bits.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    const MAX_BYTES: usize = 128;
    if let Some(id) = headers.get(X_REQUEST_ID)
        && (1..=MAX_BYTES).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return id.clone();
    }
    let mut id = [0; 16];
    let mut random = fastrand::u64(..);
    for digit in &mut id {
        let nibble = (random & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        random >>= 4;
    }
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_if_it_can_stand_in_a_log() {
        let id_for = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            request_id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(id_for("abc-1"), "abc-1");
        for unusable in ["", "a b", "é", &"x".repeat(129)] {
            let new = id_for(unusable);
            assert!(new.len() == 16 && new.bytes().all(|byte| byte.is_ascii_hexdigit()), "{new}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
