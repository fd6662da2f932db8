//! How a connection is encrypted.

use std::borrow::Cow;
use std::num::NonZeroU16;

/// TLS suites by their numbers of IANA. Those of 1.3 begin with 0x13.
const SUITES: [(u16, &str); 9] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xC02B, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (0xC02C, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    (0xC02F, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0xC030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xCCA8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0xCCA9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// What a client and this server have agreed on in a TLS handshake. Two bytes, as every idle connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    suite: NonZeroU16,
}

impl Encryption {
    /// By the cipher suite's number of IANA; `None` for 0, which is no encryption.
    pub fn of_suite(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(|suite| Self { suite })
    }

    /// The version of TLS: `1.3` or `1.2`. Suites belong to one of the two (RFC 8446 §B.4).
    pub fn version(self) -> &'static str {
        if self.suite.get() >> 8 == 0x13 { "1.3" } else { "1.2" }
    }

    /// The cipher suite by its name of IANA; one that is not known here by its number, `0xC0AC` say.
    pub fn cipher(self) -> Cow<'static, str> {
        let number = self.suite.get();
        let known = SUITES.iter().find(|(known, _)| *known == number);
        known.map_or_else(|| Cow::Owned(format!("{number:#06X}")), |(_, name)| Cow::Borrowed(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_says_its_version_and_its_name() {
        let said = |number| {
            let encryption = Encryption::of_suite(number).unwrap();
            (encryption.version(), encryption.cipher())
        };
        assert_eq!(said(0x1301), ("1.3", "TLS_AES_128_GCM_SHA256".into()));
        assert_eq!(said(0xC02F), ("1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()));
        assert_eq!(said(0xC0AC), ("1.2", "0xC0AC".into()));
        assert!(Encryption::of_suite(0).is_none());
        assert_eq!(size_of::<Option<Encryption>>(), 2);
    }
}
