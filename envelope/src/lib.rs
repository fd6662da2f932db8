//! Messages as JSON: payload classification, the JSON envelope, exact text.
//!
//! A payload is bytes with a content type. Where a protocol wants JSON it goes there in one of three shapes, decided
//! by [`classify`]; JSON text is passed on byte for byte, never parsed into a tree and printed again, so
//! `12345678901234567890`, `1e400`, key order and spacing survive.
//!
//! | payload | shape | member of the envelope |
//! | --- | --- | --- |
//! | `application/json`, `+json` or no type, and valid JSON no deeper than [`MAX_DEPTH`] | its own text | `data` |
//! | any other UTF-8, `text/*` above all | a JSON string | `text` |
//! | other bytes | base64 (RFC 4648 §4, padded) in a JSON string | `base64` |
//!
//! ```
//! use broker_core::ContentType;
//! use bytes::Bytes;
//! use envelope::{JsonValue, classify};
//!
//! let exact = Bytes::from_static(br#"{"n": 12345678901234567890}"#);
//! assert_eq!(classify(&exact, Some(&ContentType::JSON)), JsonValue::Raw(exact.clone()));
//! assert_eq!(classify(&exact, Some(&ContentType::TEXT)), JsonValue::Text(exact));
//! ```
//!
//! It knows no protocol: Bayeux writes its own binary object where this crate says [`JsonValue::Base64`].

mod message;
mod validate;
mod value;

pub use message::{envelope, json_value, timestamp, write_timestamp};
pub use validate::is_valid_json;
pub use value::{JsonValue, classify, write_string};

/// Whether an event name is one that means something by itself to the reader of an event stream: `gap`, that messages
/// are missing, `binary`, that the data is an envelope, and `open` and `error`, which `EventSource` says of its
/// connection. A message with such a name would be taken for that.
pub fn is_reserved_event(name: &str) -> bool {
    matches!(name, "gap" | "binary" | "open" | "error")
}

/// The deepest JSON that is passed on as JSON: 512 arrays and objects inside one another. Receivers parse it
/// recursively; deeper text is still delivered, as a string.
pub const MAX_DEPTH: usize = 512;
