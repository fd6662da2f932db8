//! The task that sends: what is published here, in the order of each publisher, encoded once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::PublishErrorKind;
use broker_core::Channel;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::frame::{self, Origin};
use crate::node::{Node, Outgoing};
use crate::stats::one_more;
use crate::subject::Reach;

/// How long what was given to the connection may take to leave, when somebody waits for that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a connection that takes nothing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(node: Arc<Node>, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) {
    let mut number = 0;
    while let Some(next) = outgoing.recv().await {
        node.took(&next);
        number += 1;
        let origin = Origin { life: node.life, number };
        let (subject, frame) = match next {
            Outgoing::Message(message) => {
                let reach = if message.retain() { Reach::All } else { Reach::Wanted };
                let subject = node.subjects.of_channel(message.channel(), reach);
                let frame = Bytes::from(frame::message(origin, &message));
                for subject in of_groups(&node, message.channel()) {
                    send(&node, subject, frame.clone()).await;
                }
                (subject, frame)
            }
            Outgoing::Forget(channel) => {
                (node.subjects.of_channel(&channel, Reach::All), frame::forget(origin, &channel).into())
            }
            Outgoing::Barrier(done) => {
                if node.is_linked() {
                    _ = timeout(FLUSH_TIMEOUT, node.client.flush()).await;
                }
                done.complete(());
                continue;
            }
        };
        send(&node, subject, frame).await;
    }
}

/// Where the groups of other nodes are that want a message on a channel and have no member here.
fn of_groups(node: &Node, channel: &Channel) -> Vec<String> {
    let groups = node.groups.read();
    groups.wanting(channel).filter_map(|id| node.subjects.of_group(id.name(), id.filter())).collect()
}

async fn send(node: &Node, subject: String, frame: Bytes) {
    let counters = &node.counters;
    if !node.is_linked() {
        return one_more(&counters.unsent_away);
    }
    let bytes = frame.len() as u64;
    let given = async {
        tokio::select! {
            biased;
            given = node.client.publish(subject, frame) => Some(given),
            // It takes nothing while it has no server.
            () = until_cut(node) => None,
        }
    };
    match given.await {
        Some(Ok(())) => {
            one_more(&counters.sent);
            counters.sent_bytes.fetch_add(bytes, Relaxed);
        }
        Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
            one_more(&counters.unsent_large);
            node.tell("a message is larger than the NATS server takes (max_payload): it stays on this node");
        }
        Some(Err(_)) | None => one_more(&counters.unsent_away),
    }
}

async fn until_cut(node: &Node) {
    while node.is_linked() {
        sleep(LOOK_EVERY).await;
    }
}
