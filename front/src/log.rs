//! Log lines about clients that are refused: one form for all protocols, and few of a kind.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use broker_core::{Network, Sparing, SubscriberKey, Telling};
use http::HeaderValue;
use http::request::Parts;
use http_edge::{Problem, connection_id};
use parking_lot::Mutex;

/// What was refused to whom, for the log. Nothing in it is a secret: no credential, and no name that was not vouched
/// for.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RefusedLine<'a> {
    /// The front's name, or the listener's.
    pub protocol: &'static str,
    /// Why, in one word of the protocol: a problem's code, a reason code's name, the error of a Bayeux reply.
    pub reason: &'a str,
    /// The same for people.
    pub detail: Option<&'a str>,
    /// Where the client comes from.
    pub remote: Option<IpAddr>,
    /// The user that it is, once something vouches for that.
    pub user: Option<&'a str>,
    /// The MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// Its connection, if it has one already.
    pub connection: Option<SubscriberKey>,
    /// The `X-Request-Id` of the answer.
    pub request: Option<&'a str>,
    /// What was asked for: a channel, a filter, or a path without its query.
    pub what: Option<&'a str>,
}

impl RefusedLine<'_> {
    /// Writes a line `refused` of level `info`, unless the last one for this protocol, reason and address (IPv6: /64)
    /// is less than a minute old: then it is counted, and the next line says how many there were.
    pub fn log(&self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let kind = (self.protocol, self.reason, self.remote.map(Network::of));
        let Some(repeated) = LINES.admit(&kind, Instant::now()) else { return };
        tracing::info!(
            target: TARGET,
            protocol = self.protocol,
            reason = self.reason,
            detail = self.detail.map(shortened),
            remote = self.remote.map(tracing::field::display),
            user = self.user,
            client_id = self.client_id.map(shortened),
            connection = self.connection.map(connection_id),
            request = self.request,
            what = self.what.map(shortened),
            repeated,
            "refused"
        );
    }
}

/// Logs the answer to a request if it refuses whoever asks: for lack of credentials, rights, rate or room. What is
/// wrong with the request itself is its client's affair, and in the access log.
pub fn log_problem(
    protocol: &'static str,
    problem: &Problem,
    request: &Parts,
    remote: Option<IpAddr>,
    id: &HeaderValue,
) {
    let refuses = matches!(problem.status.as_u16(), 401 | 403 | 421 | 429 | 500..);
    if refuses {
        let line = RefusedLine {
            protocol,
            reason: problem.code,
            detail: Some(&problem.detail),
            remote,
            request: id.to_str().ok(),
            what: Some(request.uri.path()),
            ..RefusedLine::default()
        };
        line.log();
    }
}

/// A text that a client chose, as long as it is in a line of the log: at most 256 bytes.
pub fn shortened(text: &str) -> &str {
    const MAX_BYTES: usize = 256;
    text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or_default()
}

/// What the lines are called in filters: `info,fanwire::refused=off` leaves them out.
const TARGET: &str = "fanwire::refused";

/// Lines that clients can cause, of all servers of the process.
static LINES: LazyLock<Repeats> = LazyLock::new(Repeats::default);

/// Lines that were not written because one of their kind had just been: of refusals, for `/metrics`.
pub fn suppressed_lines() -> u64 {
    LINES.suppressed.load(Relaxed)
}

/// Lets one line of a kind through each minute, and counts the others. While [`Repeats::MAX_KINDS`] are remembered, all
/// further ones are one kind.
#[derive(Debug)]
pub struct Repeats {
    kinds: Mutex<Kinds>,
    hasher: RandomState,
    suppressed: AtomicU64,
}

#[derive(Debug)]
struct Kinds {
    known: Sparing<u64>,
    others: Sparing<()>,
}

impl Default for Repeats {
    fn default() -> Self {
        let kinds = Kinds { known: Sparing::new(Self::MAX_KINDS), others: Sparing::new(1) };
        Self { kinds: Mutex::new(kinds), hasher: RandomState::new(), suppressed: AtomicU64::new(0) }
    }
}

impl Repeats {
    /// Kinds that are remembered: an address that nobody has seen makes one for each reason.
    pub const MAX_KINDS: usize = 4_096;

    /// Whether a line of this kind may be written now, and how many before it were not.
    pub fn admit(&self, kind: &impl Hash, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let turn = match kinds.known.note(self.hasher.hash_one(kind), 1, now) {
            Telling::NoRoom => kinds.others.note((), 1, now),
            turn => turn,
        };
        match turn {
            Telling::Now(times) => Some(times.saturating_sub(1)),
            Telling::HoldBack | Telling::NoRoom => {
                self.suppressed.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_line_of_a_kind_is_written_each_minute_and_the_others_are_counted() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let told: Vec<_> = [0, 1, 59, 60, 61, 200].map(|second| repeats.admit(&"a", at(second))).into();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(repeats.admit(&"b", at(200)), Some(0));
        assert_eq!(repeats.suppressed.load(Relaxed), 3);
    }

    #[test]
    fn there_are_only_so_many_kinds_and_old_ones_make_room() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let told = (0..10 * Repeats::MAX_KINDS).filter(|kind| repeats.admit(kind, start).is_some()).count();
        assert_eq!(told, Repeats::MAX_KINDS + 1, "and one for all that have no place");
        let later = start + Duration::from_secs(60);
        assert_eq!(repeats.admit(&"new", later), Some(0));
    }
}
