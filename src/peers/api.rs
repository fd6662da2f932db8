//! The HTTP API: clients of other nodes.

use std::sync::{Arc, Weak};

use broker_core::Answer;
use bytes::Bytes;
use cluster::{Cluster, Control, Peer, Service, Standing, State};
use front::Front;
use front_http::{Answered, HeardNode, NodeReport, NodeState, Nodes, StreamState, Streams};

use super::{as_a, find};
use crate::Fronts;
use crate::metrics::Clients;

/// What the HTTP API asks of other nodes.
const API: &str = "api";

/// Has it know of other nodes' clients, and answer for those here.
pub(super) fn join(cluster: &Arc<Cluster>, fronts: &Fronts, clients: &Arc<Clients>) {
    let control = cluster.control();
    if let Some((front, api)) = find::<front_http::Front>(fronts) {
        control.serve(API, Arc::new(Asked(Arc::downgrade(front))));
        api.join(Arc::new(Others {
            control,
            cluster: Arc::downgrade(cluster),
            clients: Arc::clone(clients),
        }));
    }
}

/// The other nodes, as the HTTP API asks them.
struct Others {
    control: Control,
    /// Weakly, as it has the broker, which has the front.
    cluster: Weak<Cluster>,
    clients: Arc<Clients>,
}

fn shown(standing: Standing) -> StreamState {
    match standing {
        Standing::There => StreamState::There,
        Standing::Lost => StreamState::Lost,
        _ => StreamState::Silent,
    }
}

impl Nodes for Others {
    fn name(&self) -> &str {
        self.control.name()
    }

    fn own(&self) -> NodeReport {
        let mut report = NodeReport::default();
        report.life = self.control.life();
        env!("CARGO_PKG_VERSION").clone_into(&mut report.version);
        report.connections = self.clients.here();
        let Some(cluster) = self.cluster.upgrade() else { return report };
        let stats = cluster.stats();
        report.state = match stats.state() {
            State::Ready => NodeState::Ready,
            State::Degraded => NodeState::Degraded,
            _ => NodeState::Down,
        };
        report.sent = stats.sent + stats.kept_sent;
        report.received = stats.received + stats.kept_received;
        report.round_trip_ms = stats.round_trip.as_secs_f64() * 1_000.0;
        report.streams = stats.streams.map(|(kept, retained)| Streams::new(shown(kept), shown(retained)));
        report
    }

    fn heard(&self) -> Vec<HeardNode> {
        let heard = self.control.heard().into_iter();
        heard
            .map(|one| HeardNode::new(one.peer.name.to_string(), one.peer.life, one.ago, one.is_gone))
            .collect()
    }

    fn ask(&self, question: Vec<u8>, is_enough: fn(&[u8]) -> bool) -> Answer<'static, Answered> {
        let control = self.control.clone();
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
