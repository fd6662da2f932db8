//! GRIP: what its items tell clients is told to those of other nodes, and which items those nodes have published.

use std::sync::{Arc, Weak};

use broker_core::Answer;
use bytes::Bytes;
use cluster::{Control, Peer, Service};
use front::Front;
use gateway_grip::Nodes;

use super::notices::{Notices, notices};
use super::{as_a, find};
use crate::Fronts;

/// What GRIP tells and asks other nodes.
const GRIP: &str = "grip";

/// Has it know of other nodes.
pub(super) fn join(control: Control, fronts: &Fronts) {
    if let Some((front, grip)) = find::<gateway_grip::Front>(fronts) {
        let (notices, teller) = notices();
        control.serve(GRIP, Arc::new(Heard(Arc::downgrade(front))));
        let again = Heard(Arc::downgrade(front));
        tokio::spawn(teller.run(control.clone(), GRIP, move || again.came_back()));
        grip.join(Arc::new(Others { control, notices }));
    }
}

/// The other nodes, as GRIP tells and asks them.
struct Others {
    control: Control,
    notices: Notices,
}

impl Nodes for Others {
    fn tell(&self, notice: Vec<u8>) {
        self.notices.tell(notice);
    }

    fn ask(&self, question: Vec<u8>) -> Answer<'static, Vec<Vec<u8>>> {
        let control = self.control.clone();
        Answer::later(async move {
            let answers = control.ask_all(GRIP, &question, |_, _| false).await.map(|all| all.answers);
            answers.unwrap_or_default().into_iter().map(|(_, answer)| answer.to_vec()).collect()
        })
    }
}

/// What others tell and ask GRIP here. Weakly: a broker that has the cluster as its engine is not to be kept by it.
struct Heard(Weak<dyn Front>);

impl Heard {
    fn with<T>(&self, act: impl FnOnce(&gateway_grip::Front) -> T) -> Option<T> {
        let front = self.0.upgrade()?;
        as_a(&front).map(act)
    }

    /// Others may have missed something.
    fn came_back(&self) {
        self.with(gateway_grip::Front::tell_all);
    }
}

impl Service for Heard {
    fn answer(&self, _: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        Answer::now(self.with(|grip| grip.answer_node(&question)).flatten())
    }

    fn hear(&self, _: &Peer, notice: Bytes) {
        self.with(|grip| grip.hear(&notice));
    }

    fn came(&self, _: &Peer) {
        self.came_back();
    }

    fn reconnected(&self) {
        self.came_back();
    }
}
