//! The front as its server sees it.

use std::time::Duration;

use front::{Accepted, Metric, Refusal, Task, refused};
use http::Request;
use http_edge::{Body, Peer, Response, Visitor, below};

use crate::Front;
use crate::codec::Reason;

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    /// MQTT over WebSocket.
    fn claims(&self, path: &str) -> bool {
        below(path, self.path()).is_some()
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (front, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { Front::handle(&front, request).await })
    }

    fn begin(&self) {
        Front::begin(self);
    }

    fn serve(&self, accepted: Accepted) -> Task {
        let front = self.clone();
        let Accepted { socket, peer, certificate, encryption, .. } = accepted;
        Box::pin(async move {
            let visitor = Visitor::at(Some(peer)).certified(certificate.as_deref()).encrypted(encryption);
            front.serve_visitor(socket, visitor).await;
        })
    }

    /// CONNACK once its CONNECT has come, as before it a client has no version that it could be answered in.
    fn refuse_stream(&self, refusal: &Refusal, accepted: Accepted) -> Task {
        let reason = match refusal.reason {
            front::Reason::TooFast => Reason::ConnectionRateExceeded,
            _ => Reason::QuotaExceeded,
        };
        let front = self.clone();
        Box::pin(async move { front.refuse_with(reason, accepted.socket, accepted.peer).await })
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let stats = self.stats();
        out.extend([
            Metric::gauge("mqtt_connections", "MQTT connections open now", stats.connections as u64),
            Metric::gauge("mqtt_sessions", "MQTT sessions, connected or not", stats.sessions as u64),
            Metric::counter("mqtt_connects", "MQTT connections let in", stats.connects),
            Metric::counter("mqtt_handshakes_failed", "MQTT connections not let in", stats.handshakes_failed),
            Metric::counter(
                "mqtt_sessions_refused",
                "MQTT connections whose session had no place: too many, or another user's",
                stats.sessions_refused,
            ),
            refused("mqtt", "rights", stats.refused_rights),
            refused("mqtt", "rate", stats.rate_limited),
            Metric::counter("mqtt_bytes_received", "Bytes from MQTT clients", stats.bytes_received),
            Metric::counter("mqtt_bytes_sent", "Bytes to MQTT clients", stats.bytes_sent),
            Metric::counter("mqtt_sessions_expired", "MQTT sessions that expired", stats.sessions_expired),
            Metric::counter("mqtt_messages_received", "Publishes from MQTT clients", stats.messages_received),
            Metric::counter("mqtt_messages_sent", "Publishes to MQTT clients", stats.messages_sent),
            Metric::counter(
                "mqtt_messages_dropped",
                "Messages kept from MQTT clients by a limit",
                stats.messages_dropped,
            ),
            Metric::counter(
                "mqtt_closed_slow",
                "MQTT connections closed because too much waited for their clients",
                stats.closed_slow,
            ),
            Metric::gauge(
                "mqtt_group_queued",
                "Messages that wait for a member of an MQTT shared subscription to have room",
                stats.group_queued as u64,
            ),
            Metric::gauge(
                "mqtt_group_queued_bytes",
                "Bytes of those messages",
                stats.group_queued_bytes as u64,
            ),
            Metric::counter(
                "mqtt_group_dropped",
                "Messages of MQTT shared subscriptions that no member had room for or was left for",
                stats.group_dropped,
            ),
            Metric::counter(
                "mqtt_session_gaps",
                "Times that messages of an MQTT session or shared subscription were dropped from the store before a client came",
                stats.session_gaps,
            ),
            Metric::counter(
                "mqtt_publishes_given_up",
                "QoS 2 publishes given up with their connections, before the broker or a policy let them through",
                stats.publishes_given_up,
            ),
        ]);
    }

    fn shut_down(&self, window: Duration) -> Task {
        let front = self.clone();
        Box::pin(async move { front.shutdown(window).await })
    }
}
