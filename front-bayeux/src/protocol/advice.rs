//! How a client is told to go on (Bayeux 1.0, "Advice"): every case, and nowhere else.

use std::time::Duration;

use super::end::End;
use crate::codec::reply::{Advice, Reconnect};
use crate::config::Timing;
use crate::error::{Fault, HandshakeDenial};

/// When a client may try again whose credentials nobody could check, or whose server goes away, in milliseconds.
const SOON_MS: i64 = 1000;

/// When a client may try again for which there was no room, in milliseconds.
const LATER_MS: i64 = 5000;

/// Start over at once: what the client of an unknown or lost session is told.
const HANDSHAKE: Advice = Advice { interval_ms: Some(0), ..new(Reconnect::Handshake) };

/// Stay away for good.
const NONE: Advice = new(Reconnect::None);

const fn new(reconnect: Reconnect) -> Advice {
    Advice { reconnect, interval_ms: None, timeout_ms: None, max_interval_ms: None, multiple_clients: false }
}

impl Advice {
    /// A handshake succeeded, or a connect asked: the times that hold for the session.
    pub(crate) fn retry(timing: Timing, tells_max_interval: bool) -> Self {
        Self {
            interval_ms: Some(millis(timing.interval)),
            timeout_ms: Some(millis(timing.timeout)),
            max_interval_ms: tells_max_interval.then(|| millis(timing.max_interval)),
            ..new(Reconnect::Retry)
        }
    }

    /// A connect found its session over.
    pub(crate) fn after(end: End) -> Self {
        match end {
            End::Disconnected | End::Kicked => NONE,
            End::Expired | End::QueueFull | End::ReplayLost => HANDSHAKE,
            End::Shutdown { return_after_ms } => {
                Self { interval_ms: Some(i64::from(return_after_ms)), ..HANDSHAKE }
            }
        }
    }

    /// A connect is not held, because its browser holds another session's. `wait` is when to try again; without it the
    /// client shall stay away.
    pub(crate) fn not_held(wait: Option<Duration>) -> Self {
        let advice = match wait {
            Some(wait) => Self { interval_ms: Some(millis(wait)), ..new(Reconnect::Retry) },
            None => NONE,
        };
        Self { multiple_clients: true, ..advice }
    }

    /// Whether it is that of [`not_held`](Self::not_held), and for good.
    pub(crate) fn refuses_second_session(&self) -> bool {
        self.multiple_clients && self.reconnect == Reconnect::None
    }

    /// A handshake failed.
    pub(crate) fn failed_handshake(fault: &Fault) -> Self {
        let again = |interval_ms| Self { interval_ms, ..new(Reconnect::Handshake) };
        match fault {
            Fault::HandshakeDenied(HandshakeDenial::TryAgain) | Fault::Busy => again(None),
            Fault::HandshakeDenied(HandshakeDenial::Unavailable | HandshakeDenial::Undecided)
            | Fault::Closed => again(Some(SOON_MS)),
            Fault::TooManySessions => again(Some(LATER_MS)),
            _ => NONE,
        }
    }

    /// A connect failed.
    pub(crate) fn failed_connect(fault: &Fault) -> Option<Self> {
        match fault {
            Fault::SessionUnknown | Fault::SessionLost(_) => Some(HANDSHAKE),
            _ => Self::failed(fault),
        }
    }

    /// Any other message failed. Mostly its client is told nothing: its next connect is.
    pub(crate) fn failed(fault: &Fault) -> Option<Self> {
        match fault {
            Fault::RateLimited { retry_after_ms } => {
                let interval_ms = i64::try_from(*retry_after_ms).ok();
                Some(Self { interval_ms, ..new(Reconnect::Retry) })
            }
            _ => None,
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_back_is_told_when() {
        let handshake = |fault| {
            let advice = Advice::failed_handshake(&fault);
            (advice.reconnect, advice.interval_ms)
        };
        let cases = [
            (Fault::VersionMismatch, Reconnect::None, None),
            (Fault::Refused("4".into()), Reconnect::None, None),
            (Fault::HandshakeDenied(HandshakeDenial::Refused), Reconnect::None, None),
            (Fault::HandshakeDenied(HandshakeDenial::TryAgain), Reconnect::Handshake, None),
            (Fault::HandshakeDenied(HandshakeDenial::Unavailable), Reconnect::Handshake, Some(1000)),
            (Fault::Busy, Reconnect::Handshake, None),
            (Fault::Closed, Reconnect::Handshake, Some(1000)),
            (Fault::TooManySessions, Reconnect::Handshake, Some(5000)),
        ];
        for (fault, reconnect, interval_ms) in cases {
            assert_eq!(handshake(fault.clone()), (reconnect, interval_ms), "{fault:?}");
        }
        assert_eq!(Advice::failed_connect(&Fault::SessionUnknown), Some(HANDSHAKE));
        assert_eq!(Advice::failed(&Fault::SessionUnknown), None);
        let limited = Fault::RateLimited { retry_after_ms: 7 };
        assert_eq!(Advice::failed_connect(&limited), Advice::failed(&limited));
        assert!(Advice::not_held(None).refuses_second_session());
        assert!(!Advice::not_held(Some(Duration::ZERO)).refuses_second_session());
    }
}
