//! Events that a session lost for want of room.

/// See the module. Counts up to what fits.
#[derive(Debug, Default)]
pub(super) struct Losses {
    all: u32,
    /// Those that its client has not been told of.
    untold: u32,
}

impl Losses {
    pub(super) fn note(&mut self, events: u32) {
        self.all = self.all.saturating_add(events);
        self.untold = self.untold.saturating_add(events);
    }

    pub(super) fn all(&self) -> u32 {
        self.all
    }

    /// Those that its client is told of now.
    pub(super) fn tell(&mut self) -> u32 {
        std::mem::take(&mut self.untold)
    }
}
