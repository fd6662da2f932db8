use std::time::{Duration, Instant};

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// Silence after which the peer is asked by a ping whether it is there, and how long until it is asked again; at
    /// least [`MIN_PING_INTERVAL`]. Default: it is not asked; zero is the same.
    pub ping_interval: Option<Duration>,
    /// Silence after which the connection is closed. Default: none is too long; zero is the same.
    pub idle_timeout: Option<Duration>,
}

/// A shorter interval between pings would only make load.
pub const MIN_PING_INTERVAL: Duration = Duration::from_millis(100);

/// Whether the peer of a WebSocket is there. Time is an argument.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    last_read: Instant,
    last_ping: Instant,
}

/// What a silence asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Send a ping.
    Ping,
    /// Close the connection.
    TooLong,
}

impl Pulse {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self { last_read: now, last_ping: now }
    }

    /// When something came last.
    pub fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Something came; whatever it is, the peer is there.
    pub fn handle_read(&mut self, now: Instant) {
        self.last_read = now;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if ever.
    pub fn poll_timeout(&self, patience: &Patience) -> Option<Instant> {
        self.next_ping(patience).into_iter().chain(self.too_long(patience)).min()
    }

    /// What the silence asks for by now; it has a ping sent once.
    pub fn handle_timeout(&mut self, now: Instant, patience: &Patience) -> Option<Silence> {
        if self.too_long(patience).is_some_and(|at| at <= now) {
            return Some(Silence::TooLong);
        }
        self.next_ping(patience).filter(|at| *at <= now)?;
        self.last_ping = now;
        Some(Silence::Ping)
    }

    fn next_ping(&self, patience: &Patience) -> Option<Instant> {
        let interval = patience.ping_interval.filter(|interval| !interval.is_zero())?;
        self.last_read.max(self.last_ping).checked_add(interval.max(MIN_PING_INTERVAL))
    }

    fn too_long(&self, patience: &Patience) -> Option<Instant> {
        self.last_read.checked_add(patience.idle_timeout.filter(|timeout| !timeout.is_zero())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_again_and_again_and_then_given_up() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let patience = Patience {
            ping_interval: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(25)),
        };
        let mut pulse = Pulse::new(begin);
        assert_eq!(pulse.poll_timeout(&patience), Some(at(10)));
        for (seconds, expected, next) in [
            (9, None, 10),
            (10, Some(Silence::Ping), 20),
            (11, None, 20),
            (20, Some(Silence::Ping), 25),
            (24, None, 25),
            (25, Some(Silence::TooLong), 25),
        ] {
            assert_eq!(pulse.handle_timeout(at(seconds), &patience), expected, "{seconds}");
            assert_eq!(pulse.poll_timeout(&patience), Some(at(next)), "{seconds}");
        }
        pulse.handle_read(at(25));
        assert_eq!(pulse.handle_timeout(at(34), &patience), None);
        assert_eq!(pulse.poll_timeout(&patience), Some(at(35)));
    }

    #[test]
    fn zero_is_never_and_a_ping_is_not_load() {
        let begin = Instant::now();
        let zero = Some(Duration::ZERO);
        for patience in [Patience::default(), Patience { ping_interval: zero, idle_timeout: zero }] {
            assert_eq!(Pulse::new(begin).poll_timeout(&patience), None, "{patience:?}");
        }
        let eager = Patience { ping_interval: Some(Duration::from_nanos(1)), idle_timeout: None };
        assert_eq!(Pulse::new(begin).poll_timeout(&eager), Some(begin + MIN_PING_INTERVAL));
    }
}
