//! The task that takes what other nodes ask, answer and tell.

use std::sync::Arc;

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::select_all;

use super::MAX_ANSWER_BYTES;
use super::frame::{self, Frame, Kind};
use crate::desk::{Peer, Reply};
use crate::node::Node;
use crate::stats::one_more;

pub(crate) async fn run(node: Arc<Node>) {
    let subjects = [
        node.subjects.questions(),
        node.subjects.questions_to(node.life),
        node.subjects.answers_to(node.life),
        node.subjects.notices(),
        node.subjects.notices_to(node.life),
    ];
    let mut feeds = Vec::new();
    for subject in subjects {
        // Waits while there is no connection. The subjects are ours, so that nothing is wrong with them.
        let Ok(feed) = node.client.subscribe(subject).await else { return };
        feeds.push(feed);
    }
    let mut feeds = select_all(feeds);
    while let Some(message) = feeds.next().await {
        take(&node, &message);
    }
}

fn take(node: &Arc<Node>, message: &Message) {
    let Some(frame) = frame::read(&message.payload) else {
        one_more(&node.counters.unreadable);
        return node.tell("what another node asks or tells cannot be read: is it of another version?");
    };
    if frame.life == node.life {
        return;
    }
    match frame.kind {
        Kind::Question => question(node, frame),
        Kind::Answer => node.desk.take(frame.number, Reply { life: frame.life, body: Some(frame.body) }),
        Kind::Cannot => node.desk.take(frame.number, Reply { life: frame.life, body: None }),
        Kind::Notice => {
            if let Some(service) = node.desk.service(&frame.service) {
                service.hear(&peer(node, frame.life), frame.body);
            }
        }
    }
}

fn peer(node: &Node, life: u64) -> Peer {
    let known = node.peers.lock().find(life);
    // One that has not said its name yet.
    known.unwrap_or_else(|| Peer::new(life, &format!("{life:x}")))
}

fn question(node: &Arc<Node>, frame: Frame) {
    one_more(&node.counters.questions);
    let from = peer(node, frame.life);
    let service = node.desk.service(&frame.service);
    let place = Arc::clone(&node.desk.answering).try_acquire_owned();
    let node = Arc::clone(node);
    // Beside others: one may have to go over many clients.
    tokio::spawn(async move {
        let answer = match (service, place) {
            (Some(service), Ok(_place)) => service.answer(&from, frame.body).await,
            (service, place) => {
                if service.is_some() && place.is_err() {
                    node.tell("other nodes ask more than this one answers at a time");
                }
                None
            }
        };
        let answer = answer.filter(|answer| answer.len() <= MAX_ANSWER_BYTES);
        let kind = if answer.is_some() { Kind::Answer } else { Kind::Cannot };
        let answer = frame::write(kind, node.life, frame.number, "", &answer.unwrap_or_default());
        send(&node, frame.life, answer).await;
    });
}

async fn send(node: &Node, life: u64, answer: Bytes) {
    if node.is_linked() {
        _ = node.client.publish(node.subjects.answers_to(life), answer).await;
    }
}
