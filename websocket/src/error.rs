use tungstenite::protocol::frame::coding::CloseCode;

/// What the peer did wrong, in the terms in which it is told: send [`encode::close`](crate::encode::close)
/// with these two and end the connection (RFC 6455 §7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({close_code})")]
#[non_exhaustive]
pub struct Violation {
    /// 1002 for a broken rule, 1003 for a kind of data not taken here, 1007 for text that is not
    /// UTF-8 or data that does not inflate, 1009 for something too big.
    pub close_code: CloseCode,
    /// At most 123 bytes, so that it fits a close frame.
    pub reason: &'static str,
}

impl Violation {
    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self { close_code: CloseCode::Protocol, reason }
    }

    pub(crate) const fn invalid(reason: &'static str) -> Self {
        Self { close_code: CloseCode::Invalid, reason }
    }

    pub(crate) const fn too_big(reason: &'static str) -> Self {
        Self { close_code: CloseCode::Size, reason }
    }

    pub(crate) const fn unsupported(reason: &'static str) -> Self {
        Self { close_code: CloseCode::Unsupported, reason }
    }
}
