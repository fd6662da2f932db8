//! What a request and its answer are called in logs.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::Fields;

/// The header that carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// For `X-Request-Id` on an answer: the client's own id if it is short and printable, so that its logs and ours meet;
/// else 64 random bits.
pub fn request_id<'a>(request: impl Into<Fields<'a>>) -> HeaderValue {
    from_field(request.into().x_request_id)
}

/// As [`request_id`], where nothing else is looked for.
pub fn request_id_among(headers: &HeaderMap) -> HeaderValue {
    from_field(headers.get(X_REQUEST_ID))
}

fn from_field(field: Option<&HeaderValue>) -> HeaderValue {
    const MAX_BYTES: usize = 128;
    if let Some(id) = field
        && (1..=MAX_BYTES).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        // Copied: as it is it would keep the connection's read buffer for as long as the answer is held.
        return HeaderValue::from_bytes(id.as_bytes()).unwrap_or(HeaderValue::from_static("0"));
    }
    // Reckoned for all digits at once, not looked up for each.
    let bytes = fastrand::u64(..).to_ne_bytes();
    let id: [u8; 16] = std::array::from_fn(|place| {
        let digit = if place < 8 { bytes[place] >> 4 } else { bytes[place - 8] & 15 };
        digit + if digit < 10 { b'0' } else { b'a' - 10 }
    });
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
