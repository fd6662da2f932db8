//! The HTTP API: clients of other nodes.

use std::sync::{Arc, Weak};

use broker_core::Answer;
use bytes::Bytes;
use cluster::{Control, Peer, Service};
use front::Front;
use front_http::{Answered, Nodes};

use super::{as_a, find};
use crate::Fronts;

/// What the HTTP API asks of other nodes.
const API: &str = "api";

/// Has it know of other nodes' clients, and answer for those here.
pub(super) fn join(control: Control, fronts: &Fronts) {
    if let Some((front, api)) = find::<front_http::Front>(fronts) {
        control.serve(API, Arc::new(Asked(Arc::downgrade(front))));
        api.join(Arc::new(Others(control)));
    }
}

/// The other nodes, as the HTTP API asks them.
struct Others(Control);

impl Nodes for Others {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn ask(&self, question: Vec<u8>, is_enough: fn(&[u8]) -> bool) -> Answer<'static, Answered> {
        let control = self.0.clone();
        Answer::later(async move {
            match control.ask_all(API, &question, |_, answer| is_enough(answer)).await {
                Ok(answers) => {
                    let is_whole = answers.is_whole();
                    let named = |(peer, answer): (Peer, Bytes)| (peer.name.to_string(), answer);
                    Answered::new(answers.answers.into_iter().map(named).collect(), is_whole)
                }
                Err(too_large) => Answered::too_large_for(too_large.max),
            }
        })
    }
}

/// What others ask of the HTTP API here. Weakly: a broker that has the cluster as its engine is not to be kept by it.
struct Asked(Weak<dyn Front>);

impl Service for Asked {
    fn answer(&self, _: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        let Some(front) = self.0.upgrade() else { return Answer::now(None) };
        Answer::later(async move { as_a::<front_http::Front>(&front)?.answer_node(question).await })
    }
}
