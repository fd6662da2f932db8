//! Who clients are and what they may do, as a configuration says it: keys, signed tokens, passwords, and what those
//! without any may do. One authenticator, [`BuiltIn`], serves every front; its [`Access`] can be replaced while it
//! runs.
//!
//! ```text
//!                 ┌ token, password ─▶ keys      SHA-256, constant time
//! Credentials ────┤ token, password ─▶ issuers   signature, iss, aud, exp, nbf; keys from secret, PEM or JWKS
//!                 ┤ user + password ─▶ users     argon2, off the async threads, remembered for a while
//!                 ┤ certificate ─────▶ users, or rights of its own; the handshake of TLS has verified it
//!                 └ none ────────────▶ anonymous
//! ```
//!
//! What is presented and known to none of them is refused: whoever shows a credential is never served as nobody.

mod access;
mod built_in;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod issuer;
mod jwks;
mod key;
mod mint;
mod password;
mod rate;
mod turns;

pub use access::{Access, AccessError, Certificates};
pub use built_in::BuiltIn;
pub use issuer::{Algorithm, Issuer, KeySource};
pub use key::{Key, KeyHash, NewKey};
pub use mint::{MintError, NewToken, SigningKey};
pub use password::{PasswordLimits, User, hash_password};
pub use rate::{AddressRates, Rate, RateOf, UsedRate};
