//! Which frame of the stream is next: none twice, none left out. No IO.

/// What is to be done with a frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one.
    Next,
    /// It has come already.
    Repeat,
    /// Those before it have not come: they are to be read first.
    Hole,
}

/// The stream's sequences are without holes but for what is gone for good, so the newest one says all.
#[derive(Debug)]
pub(crate) struct Guard {
    last: u64,
    /// The newest one that is known to be in the stream.
    known: u64,
}

impl Guard {
    /// All up to `last` has come.
    pub(crate) fn new(last: u64) -> Self {
        Self { last, known: last }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// A frame has come.
    pub(crate) fn look(&mut self, sequence: u64) -> Verdict {
        self.know(sequence);
        match sequence.checked_sub(self.last) {
            None | Some(0) => Verdict::Repeat,
            Some(1) => Verdict::Next,
            Some(_) => Verdict::Hole,
        }
    }

    /// There is one with this sequence.
    pub(crate) fn know(&mut self, sequence: u64) {
        self.known = self.known.max(sequence);
    }

    /// The newest one that is known and has not come, if there is one.
    pub(crate) fn missing(&self) -> Option<u64> {
        (self.known > self.last).then_some(self.known)
    }

    /// All up to here has come, or is gone for good.
    pub(crate) fn pass(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
        self.know(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_once_and_none_is_left_out() {
        let mut guard = Guard::new(10);
        assert_eq!(
            (guard.look(10), guard.look(3), guard.missing()),
            (Verdict::Repeat, Verdict::Repeat, None)
        );
        assert_eq!(guard.look(11), Verdict::Next);
        guard.pass(11);
        assert_eq!((guard.look(11), guard.look(14)), (Verdict::Repeat, Verdict::Hole));
        assert_eq!(guard.missing(), Some(14), "also one that was given up is to be read");
        guard.pass(12);
        assert_eq!((guard.look(13), guard.last()), (Verdict::Next, 12));
        guard.pass(20);
        assert_eq!((guard.missing(), guard.look(14), guard.look(21)), (None, Verdict::Repeat, Verdict::Next));
        guard.know(22);
        assert_eq!(guard.missing(), Some(22));
    }
}
