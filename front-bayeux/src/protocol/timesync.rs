//! Clock comparison (CometD, "Timesync Extension").

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::codec::message::{field, integer};

/// What a client said about its clock, all in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timesync {
    /// Its clock when it sent.
    tc: i64,
    /// How far off the server's last answer was.
    accuracy_ms: i64,
    lag_known: bool,
    received: Instant,
    received_ms: i64,
}

/// Below this an answer would not improve anything.
const GOOD_ENOUGH_MS: i64 = 25;

impl Timesync {
    /// Reads `ext.timesync`; `unix_ms` is the server's clock at `now`.
    pub(crate) fn read(ext: &RawValue, now: Instant, unix_ms: u64) -> Option<Self> {
        let timesync = field(ext, "timesync")?;
        let number = |name| field(timesync, name).and_then(integer);
        let tc = number("tc")?;
        let (lag, offset) = (number("l").unwrap_or(0), number("o").unwrap_or(0));
        let received_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let accuracy_ms = tc.saturating_add(offset).saturating_add(lag).saturating_sub(received_ms);
        Some(Self { tc, accuracy_ms, lag_known: lag != 0, received: now, received_ms })
    }

    /// The answer `{tc,ts,p,a}`; none if the client's clock is close already.
    pub(crate) fn answer(&self, now: Instant) -> Option<[(&'static str, i64); 4]> {
        if self.lag_known && self.accuracy_ms.saturating_abs() < GOOD_ENOUGH_MS {
            return None;
        }
        let held = now.saturating_duration_since(self.received).min(Duration::from_secs(86_400));
        let held_ms = i64::try_from(held.as_millis()).unwrap_or(0);
        Some([("tc", self.tc), ("ts", self.received_ms), ("p", held_ms), ("a", self.accuracy_ms)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ext: &str, unix_ms: u64) -> Option<Timesync> {
        let raw = RawValue::from_string(ext.to_owned()).unwrap();
        Timesync::read(&raw, Instant::now(), unix_ms)
    }

    #[test]
    fn the_answer_tells_time_hold_and_accuracy() {
        let sync = read(r#"{"timesync":{"tc":1000,"l":10,"o":40}}"#, 1500).unwrap();
        let later = sync.received + Duration::from_millis(7);
        assert_eq!(sync.answer(later), Some([("tc", 1000), ("ts", 1500), ("p", 7), ("a", -450)]));
    }

    #[test]
    fn a_good_clock_is_not_answered_once_the_lag_is_known() {
        assert!(
            read(r#"{"timesync":{"tc":1000,"l":10,"o":480}}"#, 1500)
                .unwrap()
                .answer(Instant::now())
                .is_none()
        );
        assert!(
            read(r#"{"timesync":{"tc":1500,"l":0,"o":0}}"#, 1500).unwrap().answer(Instant::now()).is_some()
        );
    }

    #[test]
    fn wrong_types_are_ignored() {
        for ext in ["{}", "[]", "5", r#"{"timesync":5}"#, r#"{"timesync":{"tc":"x"}}"#] {
            assert!(read(ext, 0).is_none(), "{ext}");
        }
    }
}
