//! MQTT: a client is connected to one node.

use std::sync::{Arc, Weak};

use broker_core::Answer;
use bytes::Bytes;
use cluster::{Control, Peer, SESSIONS, Service};
use front::Front;
use front_mqtt::{Claim, Nodes};

use super::{as_a, find};
use crate::Fronts;

/// What MQTT tells other nodes.
const MQTT: &str = "mqtt";

/// Has clients taken over from node to node.
pub(super) fn join(control: Control, fronts: &Fronts) {
    if let Some((front, mqtt)) = find::<front_mqtt::Front>(fronts) {
        control.serve(MQTT, Arc::new(Told { front: Arc::downgrade(front), control: control.clone() }));
        control.serve(SESSIONS, Arc::new(Asked(Arc::downgrade(front))));
        let life = control.life();
        mqtt.join(Arc::new(Others(control)), life);
    }
}

/// The other nodes, as MQTT tells them.
struct Others(Control);

impl Nodes for Others {
    fn tell(&self, claim: Claim) {
        let control = self.0.clone();
        tokio::spawn(async move { tell(&control, None, &[claim]).await });
    }
}

/// What others tell MQTT here. Weakly: a broker that has the cluster as its engine is not to be kept by it.
struct Told {
    front: Weak<dyn Front>,
    control: Control,
}

impl Told {
    /// Tells of all clients that are here.
    fn tell_all(&self, peer: Option<Peer>) {
        let Some(front) = self.front.upgrade() else { return };
        let claims = as_a::<front_mqtt::Front>(&front).map(front_mqtt::Front::claims).unwrap_or_default();
        let control = self.control.clone();
        tokio::spawn(async move { tell(&control, peer.as_ref(), &claims).await });
    }
}

impl Service for Told {
    fn hear(&self, _: &Peer, notice: Bytes) {
        let Some(front) = self.front.upgrade() else { return };
        let Some(mqtt) = as_a::<front_mqtt::Front>(&front) else { return };
        let mut rest = &notice[..];
        while let Some((claim, behind)) = Claim::read(rest) {
            mqtt.claimed_elsewhere(&claim);
            rest = behind;
        }
    }

    fn came(&self, node: &Peer) {
        self.tell_all(Some(node.clone()));
    }

    fn reconnected(&self) {
        self.tell_all(None);
    }
}

/// What other nodes ask before they take a session.
struct Asked(Weak<dyn Front>);

impl Service for Asked {
    fn answer(&self, _: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        let front = self.0.upgrade();
        let mqtt = front.as_ref().and_then(as_a::<front_mqtt::Front>);
        match (mqtt, std::str::from_utf8(&question)) {
            (Some(mqtt), Ok(key)) => mqtt.record(key).map(|()| Some(Vec::new())),
            _ => Answer::now(None),
        }
    }
}

/// An identifier is not larger than NATS takes, so that this is none that is not told.
async fn tell(control: &Control, peer: Option<&Peer>, claims: &[Claim]) {
    control.tell_each(MQTT, peer, claims, Claim::write).await;
}
