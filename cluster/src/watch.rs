//! The task that looks whether NATS and the other nodes are there.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::desk::Peer;
use crate::frame::{self, Content};
use crate::link::check_version;
use crate::node::Node;
use crate::peers::{HELLO_EVERY, News};
use crate::stats::one_more;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks NATS for an answer again and again, and tells of what has changed.
pub(crate) async fn look(node: Arc<Node>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_connected = None;
    let mut disconnects = node.events.disconnects.load(Relaxed);
    loop {
        looks.tick().await;
        let now = node.events.disconnects.load(Relaxed);
        if node.is_linked() && node.round_trip().await && now != disconnects {
            disconnects = now;
            node.desk.tell(|service| service.reconnected());
        }
        let is_connected = node.is_connected();
        if was_connected == Some(is_connected) {
            continue;
        }
        was_connected = Some(is_connected);
        if is_connected {
            let info = node.client.server_info();
            tracing::info!(
                node = node.settings.node,
                server = info.server_name,
                version = info.version,
                max_payload = info.max_payload,
                "connected to NATS: what is published goes to all nodes"
            );
            if let Err(error) = check_version(&node.client, &node.settings) {
                tracing::warn!(%error, "the NATS server should not be used");
            }
        } else {
            tracing::warn!("NATS does not answer: this node goes on alone");
        }
    }
}

/// Says that this node is there, and hears the others say so.
pub(crate) async fn greet(node: Arc<Node>, mut heard: Subscriber) {
    let mut hellos = interval(HELLO_EVERY);
    hellos.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = hellos.tick() => {
                say_hello(&node).await;
                let gone = node.peers.lock().forget_silent(Instant::now());
                for peer in gone {
                    tracing::warn!(peer = &*peer.name, "a node is silent, it is not counted any more");
                    node.desk.tell(|service| service.left(&peer));
                }
            }
            message = heard.next() => {
                let Some(message) = message else { return };
                if hear(&node, &message.payload) {
                    // So that it knows of this one at once.
                    say_hello(&node).await;
                }
            }
        }
    }
}

async fn say_hello(node: &Node) {
    if node.is_linked() {
        let hello = frame::hello(node.life, &node.settings.node);
        _ = node.client.publish(node.subjects.hello(), hello.into()).await;
    }
}

/// Whether it is from a node that was not known.
fn hear(node: &Node, frame: &[u8]) -> bool {
    match frame::read(frame) {
        Ok((origin, Content::Hello(name))) if origin.life != node.life => {
            let news = node.peers.lock().hear(origin.life, &name, &node.settings.node, Instant::now());
            match news {
                News::Nothing => return false,
                News::Came => tracing::info!(peer = &*name, "a node has come"),
                News::SameName => {
                    tracing::warn!(peer = &*name, "another node is called like this one");
                }
            }
            let peer = Peer::new(origin.life, &name);
            node.desk.tell(|service| service.came(&peer));
            return true;
        }
        Ok((origin, Content::Bye)) => {
            // Not under the lock: who hears of it asks who is still there.
            let gone = node.peers.lock().leave(origin.life);
            if let Some(peer) = gone {
                tracing::info!(peer = &*peer.name, "a node has left");
                node.desk.tell(|service| service.left(&peer));
            }
        }
        Ok(_) => {}
        Err(_) => one_more(&node.counters.unreadable),
    }
    false
}
