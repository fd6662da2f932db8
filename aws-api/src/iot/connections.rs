//! `/connections/CLIENT`: MQTT clients by their identifiers.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Action, Broker, Connection, Dismissal, Filter, Principal, Qos, Segment, SubscriberKey};
use http_edge::Response;
use serde_json::{Map, Value, json};

use super::answer::{done, json};
use super::publish::Messages;
use super::query::Query;
use crate::error::AwsError;
use crate::presence::{Clients, Gone};

/// Subscriptions on a page if nothing is said, and at most.
const PAGE: usize = 20;
const MAX_PAGE: usize = 1_000;

/// How long an acknowledgement is waited for, in seconds: if nothing is said, and at most.
const TIMEOUT_SECS: u64 = 5;
const MAX_TIMEOUT_SECS: u64 = 60;

/// Connections looked at before other tasks get their turn.
const TURN: usize = 1_000;

/// A client that has a place in the broker, or had one not long ago.
struct Found {
    /// Its place, unless it left for good.
    place: Option<(SubscriberKey, Arc<dyn Connection>)>,
    gone: Option<Gone>,
}

async fn find(broker: &Broker, clients: &Clients, id: &str) -> Result<Found, AwsError> {
    if let Some(known) = clients.find(id) {
        let place = broker.connection(known.key).map(|connection| (known.key, connection));
        return Ok(Found { place, gone: known.gone });
    }
    // A session that was restored has a place before its client comes.
    let mut after = None;
    loop {
        let page = broker.connections(after, TURN);
        let is_last = page.len() < TURN;
        after = page.last().map(|(key, _)| *key);
        for (key, connection) in page {
            if connection.details().client_id.as_deref() == Some(id) {
                return Ok(Found { place: Some((key, connection)), gone: None });
            }
        }
        if is_last {
            return Err(AwsError::not_found(format!("no client {id:?} is or was here")));
        }
        tokio::task::yield_now().await;
    }
}

/// Who may look at connections and close them: who may manage every channel, with none denied.
fn may_manage_all(principal: &Principal) -> Result<(), AwsError> {
    let all = Filter::new([Segment::RestOneOrMore]).map_err(|error| AwsError::internal(error.to_string()))?;
    if principal.allows_all_of(Action::Manage, &all) {
        return Ok(());
    }
    Err(AwsError::forbidden("no right to manage connections: this needs `manage` on every channel"))
}

/// What is known of a client.
pub(crate) async fn one(
    broker: &Broker,
    clients: &Clients,
    principal: &Principal,
    id: &str,
    query: &Query<'_>,
) -> Result<Response, AwsError> {
    may_manage_all(principal)?;
    let with_socket = query.flag("includeSocketInformation")?;
    let found = find(broker, clients, id).await?;
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| _ = out.insert(name.to_owned(), value);
    set("clientId", id.into());
    let (peer, details) = match &found.place {
        Some((_, connection)) => (connection.peer(), Some(connection.details())),
        None => (None, None),
    };
    set("connected", peer.is_some().into());
    let expiry = details.as_ref().and_then(|details| details.session_expiry_secs).unwrap_or(0);
    set("cleanSession", (expiry == 0).into());
    set("sessionExpiry", expiry.into());
    if let Some(keep_alive) = details.as_ref().and_then(|details| details.keep_alive_secs) {
        set("keepAliveDuration", keep_alive.into());
    }
    match &peer {
        Some(peer) => set("connectedSince", peer.since_ms.into()),
        None => {
            if let Some(gone) = found.gone {
                set("disconnectedSince", gone.at_ms.into());
                set("disconnectReason", gone.reason.into());
            }
        }
    }
    if let Some(details) = details.filter(|_| with_socket) {
        if let Some(remote) = details.remote {
            set("sourceIp", remote.to_string().into());
        }
        if let Some(port) = details.remote_port {
            set("sourcePort", port.into());
        }
        if let Some(local) = details.local {
            set("targetIp", local.ip().to_canonical().to_string().into());
            set("targetPort", local.port().into());
        }
    }
    Ok(json(&Value::Object(out)))
}

/// What a client is subscribed to, whether it is connected or its session waits for it.
pub(crate) async fn subscriptions(
    broker: &Broker,
    clients: &Clients,
    principal: &Principal,
    id: &str,
    query: &Query<'_>,
) -> Result<Response, AwsError> {
    may_manage_all(principal)?;
    let count = query.number("maxResults", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let from = query.number("nextToken", 0, usize::MAX)?.unwrap_or(0);
    let gone = || AwsError::not_found(format!("client {id:?} has left, and its session with it"));
    let (_, connection) = find(broker, clients, id).await?.place.ok_or_else(gone)?;
    let held = connection.held();
    let page = held.iter().skip(from).take(count);
    let list: Vec<Value> = page
        .map(|held| json!({ "topicFilter": held.filter, "qos": u8::from(held.qos != Qos::AtMostOnce) }))
        .collect();
    let next = from.saturating_add(count);
    let mut document = json!({ "subscriptions": list });
    if let (true, Value::Object(document)) = (next < held.len(), &mut document) {
        document.insert("nextToken".to_owned(), next.to_string().into());
    }
    Ok(json(&document))
}

/// Closes a connection.
pub(crate) async fn close(
    broker: &Broker,
    clients: &Clients,
    principal: &Principal,
    id: &str,
    query: &Query<'_>,
) -> Result<Response, AwsError> {
    may_manage_all(principal)?;
    let mut how = Dismissal::default();
    how.ends_session = query.flag("cleanSession")?;
    how.forgets_will = query.flag("preventWillMessage")?;
    let place = find(broker, clients, id).await?.place;
    let connected = place.filter(|(_, connection)| connection.peer().is_some());
    let (_, connection) =
        connected.ok_or_else(|| AwsError::not_found(format!("client {id:?} is not connected")))?;
    connection.dismiss(&how);
    Ok(done())
}

/// Sends a message to one client, whatever it is subscribed to.
pub(crate) async fn send(
    broker: &Broker,
    clients: &Clients,
    principal: &Principal,
    id: &str,
    message: Messages<'_>,
) -> Result<Response, AwsError> {
    let query = message.query;
    let topic = query.text("topic").ok_or_else(|| AwsError::invalid("`topic` is needed"))?;
    let publish = message.publish(topic)?;
    broker.check_levels(&publish.channel().clone().into())?;
    if !principal.allows(Action::Manage, publish.channel()) {
        return Err(AwsError::forbidden(format!("no right to send to clients on {topic:?}")));
    }
    let timeout = query.number("timeout", 1, MAX_TIMEOUT_SECS)?.unwrap_or(TIMEOUT_SECS);
    let gone = || AwsError::not_found(format!("client {id:?} is not connected"));
    let (key, _) = find(broker, clients, id).await?.place.ok_or_else(gone)?;
    if !query.flag("confirmation")? {
        broker.send_to(key, publish).await?;
        return Ok(message.taken());
    }
    let acknowledged = broker.send_acknowledged(key, publish)?;
    match tokio::time::timeout(Duration::from_secs(timeout), acknowledged).await {
        Ok(true) => Ok(message.taken()),
        Ok(false) => Err(AwsError::not_acknowledged("the client has left, or refused the message")),
        Err(_) => Err(AwsError::not_acknowledged("the client has not acknowledged the message in time")),
    }
}
