//! A message of a shared subscription that an engine keeps, while it is not finished.

use std::sync::Arc;

use broker_core::Work;

use super::ledger::Ledger;

/// A message that has come and is not finished: it is once the last copy of this is gone, unless it was
/// [let go of](Ticket::let_go) before.
#[derive(Debug)]
pub(crate) struct Ticket {
    of: Of,
    offset: u64,
}

/// Who is told.
#[derive(Debug)]
enum Of {
    /// A group of this process alone.
    Ledger(Arc<Ledger>),
    /// One of several.
    Work(Arc<dyn Work>),
}

impl Ticket {
    pub(super) fn of_ledger(ledger: Arc<Ledger>, offset: u64) -> Arc<Self> {
        Arc::new(Self { of: Of::Ledger(ledger), offset })
    }

    pub(crate) fn of_work(work: Arc<dyn Work>, offset: u64) -> Arc<Self> {
        Arc::new(Self { of: Of::Work(work), offset })
    }

    /// Nobody has the message: it is to be read again, or for others.
    pub(super) fn let_go(&self) {
        match &self.of {
            Of::Ledger(ledger) => ledger.let_go(self.offset),
            Of::Work(work) => work.give_back(self.offset),
        }
    }

    /// There is no place for the message: from here on all is read later.
    pub(super) fn refuse(&self) {
        match &self.of {
            Of::Ledger(ledger) => ledger.refuse(self.offset),
            Of::Work(work) => work.give_back(self.offset),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match &self.of {
            Of::Ledger(ledger) => ledger.finish(self.offset),
            Of::Work(work) => work.finish(self.offset),
        }
    }
}
