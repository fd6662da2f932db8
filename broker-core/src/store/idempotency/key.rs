//! What names a publish that may be repeated.

use std::net::IpAddr;

use crate::rights::Network;

/// What names a publish, so that it is done once however often it is asked for
/// ([`Broker::publish_once`](crate::Broker::publish_once)). The channel is part of the name: the same text on another
/// channel is another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdempotencyKey<'a> {
    /// What the publisher calls it, an order's number say. Of any length; it is kept, and counts against
    /// [`IdempotencyConfig::max_bytes`](crate::IdempotencyConfig::max_bytes).
    pub text: &'a str,
    /// Whose key it is: the same text of two users is two keys. Empty for nobody in particular.
    pub user: &'a str,
    /// Where it comes from, as far as that is known. Not part of the name: who tries again may come from elsewhere. The
    /// budget that the key counts against is that of the user at this address (IPv6: at its
    /// [`Network`](crate::Network)).
    pub address: Option<IpAddr>,
}

/// An [`IdempotencyKey`] that an [`Engine`](crate::Engine) keeps with its message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeptKey {
    /// As [`IdempotencyKey::text`].
    pub text: Box<str>,
    /// As [`IdempotencyKey::user`].
    pub user: Box<str>,
    /// As [`IdempotencyKey::address`].
    pub address: Option<IpAddr>,
}

impl From<&IdempotencyKey<'_>> for KeptKey {
    fn from(key: &IdempotencyKey<'_>) -> Self {
        Self { text: key.text.into(), user: key.user.into(), address: key.address }
    }
}

impl<'a> IdempotencyKey<'a> {
    /// A key of nobody in particular, from anywhere.
    pub fn new(text: &'a str) -> Self {
        Self { text, user: "", address: None }
    }

    /// The bytes that it is known by on `channel`.
    pub(super) fn name_on(&self, channel: &str) -> Vec<u8> {
        let parts = [self.user, channel, self.text];
        let mut name = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        for part in parts {
            // Lengths keep ("a", "bc") and ("ab", "c") apart.
            name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        name
    }

    /// Against whose budget it counts.
    pub(super) fn holder(&self) -> (&'a str, Option<Network>) {
        (self.user, self.address.map(Network::of))
    }
}
