//! Which life of the stream of sessions a node goes by. Somebody may delete it: then another one is made, in which the rows of
//! sessions that nodes have are written again, and until they are nobody is given a session. No IO.

use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct SessionLife(Mutex<State>);

#[derive(Debug)]
struct State {
    epoch: u64,
    /// The largest sequence of what this node has stored there.
    newest: u64,
    /// The life in which all rows of this node are.
    written: u64,
    /// The life in which sessions are given.
    open: u64,
    is_away: bool,
}

/// What was known when something was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    epoch: u64,
    newest: u64,
}

/// Where something was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Here,
    /// In another stream than the one that this node goes by.
    Elsewhere,
    /// In one of them: it goes by another one since.
    Unknown,
}

impl SessionLife {
    /// Of a stream that was found, or made. Where `is_anew` others may have to write what they have.
    pub(crate) fn new(epoch: u64, is_anew: bool) -> Self {
        let open = if is_anew { 0 } else { epoch };
        Self(Mutex::new(State { epoch, newest: 0, written: epoch, open, is_away: false }))
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.0.lock().epoch
    }

    /// The life in which all rows of this node are.
    pub(crate) fn written(&self) -> u64 {
        self.0.lock().written
    }

    /// Whether sessions are given and taken.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.0.lock();
        !state.is_away && state.open == state.epoch
    }

    /// NATS says that there is none; whether that is news.
    pub(crate) fn miss(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().is_away, true)
    }

    /// It is there, and what it has ends here; whether that is news. Servers that lost their power may have lost the end of it.
    pub(crate) fn find(&self, last: u64) -> bool {
        let mut state = self.0.lock();
        state.newest = state.newest.min(last);
        std::mem::replace(&mut state.is_away, false)
    }

    /// There is another one, in which nothing of this node is.
    pub(crate) fn begin(&self, epoch: u64) {
        let mut state = self.0.lock();
        (state.epoch, state.newest, state.is_away) = (epoch, 0, false);
    }

    /// All that this node has is written there; false if there is another one again.
    pub(crate) fn note_written(&self, epoch: u64) -> bool {
        let mut state = self.0.lock();
        let is_it = state.epoch == epoch;
        if is_it {
            state.written = epoch;
        }
        is_it
    }

    /// So is what other nodes have; false if there is another one again.
    pub(crate) fn open(&self, epoch: u64) -> bool {
        let mut state = self.0.lock();
        state.open = epoch;
        state.epoch == epoch
    }

    pub(crate) fn before(&self) -> Before {
        let State { epoch, newest, .. } = *self.0.lock();
        Before { epoch, newest }
    }

    /// What was sent is stored under a sequence. One that is not behind all before it is of another stream.
    pub(crate) fn note_stored(&self, before: Before, sequence: u64) -> Where {
        let mut state = self.0.lock();
        if state.epoch != before.epoch {
            return Where::Unknown;
        }
        if sequence <= before.newest {
            return Where::Elsewhere;
        }
        state.newest = state.newest.max(sequence);
        Where::Here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_under_a_smaller_sequence_is_in_another_stream() {
        let life = SessionLife::new(1, false);
        let early = life.before();
        assert_eq!(life.note_stored(life.before(), 8), Where::Here);
        assert_eq!(life.note_stored(early, 7), Where::Here, "it was sent before");
        let before = life.before();
        assert_eq!(life.note_stored(before, 8), Where::Elsewhere);
        life.find(5);
        assert_eq!(life.note_stored(life.before(), 6), Where::Here, "it has lost its end");
        life.begin(2);
        assert_eq!(life.note_stored(before, 9), Where::Unknown);
        assert_eq!(life.note_stored(life.before(), 1), Where::Here);
    }

    #[test]
    fn sessions_are_given_in_a_life_that_was_opened() {
        let life = SessionLife::new(1, false);
        assert!(life.is_open() && life.miss() && !life.miss() && !life.is_open());
        assert!(life.find(0) && !life.find(0) && life.is_open(), "it is the same one");
        life.begin(2);
        assert!(!life.is_open() && life.written() == 1);
        assert!(life.note_written(2) && !life.is_open() && life.written() == 2);
        assert!(life.miss() && life.open(2) && !life.is_open() && life.find(0) && life.is_open());
        life.begin(3);
        assert!(!life.note_written(2) && !life.open(2) && !life.is_open());
        assert!(!SessionLife::new(1, true).is_open());
    }
}
