//! The end of a connection, told at least once: tried again, kept as a dead letter, and told anew if somebody asks for it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::{Broker, Publish};
use bytes::Bytes;
use gateway::client::Answer;
use gateway::dead::{DeadLetters, Owner};
use gateway::delivery::{Cause, Dead, Event, Failure as Why};
use http::HeaderValue;
use serde_json::Value;
use tokio::time::{sleep, sleep_until};

use crate::answer::{self, Failure, Reply};
use crate::api::ApiState;
use crate::client::{Target, Trace, has_failed};
use crate::config::{Integration, Kind, Mapping};

/// After this nobody is told any more that a connection is over.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// What is called when a connection is over.
const ROUTE: &str = "$disconnect";

/// Tells of the end of one connection, until somebody has heard it or it is of no use any more; then it is a dead letter.
pub(crate) async fn tell(state: &ApiState, broker: &Broker, trace: &Trace, event: Event) {
    let Some(route) = state.api.routes.get(ROUTE) else { return };
    let (Some(target), Some(integration)) =
        (state.integrations.get(&route.integration), state.api.integrations.get(&route.integration))
    else {
        return;
    };
    let until = event.made + MAX_AGE;
    let (mut waits, mut attempts) = (state.api.retry.iter(), 0);
    let (failure, cause) = loop {
        // While it is left alone nobody was asked, and nothing has failed.
        if let Some(at) = target.opens_at() {
            if at.max(Instant::now()) >= until {
                break (Failure::Open, Cause::Expired);
            }
            sleep_until(at.max(Instant::now() + Duration::from_millis(20)).into()).await;
            continue;
        }
        state.pace.turn().await;
        let began = Instant::now();
        let outcome = {
            let Ok(_turn) = state.ends.acquire().await else { return };
            call(target, integration, trace, &event).await
        };
        state.log_call(&event.order, &event.id, ROUTE, &outcome, began.elapsed());
        let failure = match outcome {
            Ok(reply) => return publish(state, broker, &event, reply).await,
            Err(Failure::Open) => continue,
            Err(failure) => failure,
        };
        attempts += 1;
        let wait = waits.next().map(|wait| wait.mul_f64(0.8 + 0.4 * fastrand::f64()));
        match wait {
            Some(wait) if Instant::now() + wait < until => sleep(wait).await,
            Some(_) => break (failure, Cause::Expired),
            None => break (failure, Cause::GaveUp),
        }
    };
    state.dead.fetch_add(1, Relaxed);
    tracing::warn!(
        target: "fanwire::gateway", gateway = %state.api.name, connection = &*event.order,
        request = event.id, error = %failure,
        "nobody could be told that a connection is over"
    );
    let status = if let Failure::Status(status) = failure { Some(status) } else { None };
    let last = Why::new(status, failure.to_string());
    state.dead_letters.bury(broker, &Dead::new(Arc::new(event), attempts, Some(last), cause));
}

async fn call(
    target: &Target,
    integration: &Integration,
    trace: &Trace,
    event: &Event,
) -> Result<Reply, Failure> {
    let turn = target.turn(None).await?;
    match &integration.kind {
        Kind::Lambda => {
            let read = |answer: &Answer| answer::of_lambda(answer.status, has_failed(answer), &answer.body);
            target.call(turn, trace.lambda(), event.body.clone(), read).await
        }
        Kind::Http { headers } => {
            let mut sent = trace.bare();
            let known: Value = serde_json::from_slice(&event.body).unwrap_or_default();
            for (name, mapping) in headers {
                if let Some(value) = mapped(mapping, &known) {
                    sent.insert(name.clone(), value);
                }
            }
            let read = |answer: &Answer| Ok(answer::of_http(answer.status, None, &answer.body));
            target.call(turn, sent, Bytes::new(), read).await
        }
    }
}

/// The value of a header field by what the event says; nothing where it says nothing of it, or what cannot stand in one.
fn mapped(mapping: &Mapping, event: &Value) -> Option<HeaderValue> {
    let context = event.get("requestContext")?;
    let value = match mapping {
        Mapping::Static(value) => return Some(value.clone()),
        Mapping::ConnectionId => context.get("connectionId"),
        Mapping::RequestId => context.get("requestId"),
        Mapping::RouteKey => context.get("routeKey"),
        Mapping::EventType => context.get("eventType"),
        Mapping::Stage => context.get("stage"),
        Mapping::DomainName => context.get("domainName"),
        Mapping::ApiId => context.get("apiId"),
        Mapping::ConnectedAt => context.get("connectedAt"),
        Mapping::SourceIp => context.get("identity")?.get("sourceIp"),
        Mapping::UserAgent => context.get("identity")?.get("userAgent"),
        Mapping::Authorizer(name) => context.get("authorizer")?.get(name),
    };
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// There is nobody to send to or to subscribe.
async fn publish(state: &ApiState, broker: &Broker, event: &Event, reply: Reply) {
    for message in reply.actions.publish {
        let wanted = Publish::new(message.channel, message.payload);
        let wanted = if message.is_json { wanted.json() } else { wanted };
        if let Err(refused) = broker.submit(wanted).await {
            tracing::warn!(
                target: "fanwire::gateway", gateway = %state.api.name, connection = &*event.order,
                error = %refused.error, "what a function asked the broker for was not done"
            );
        }
    }
}

/// An API, as somebody whose events may be dead.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) state: Arc<ApiState>,
    pub(crate) broker: Broker,
}

impl Owner for Ends {
    fn dead_letters(&self) -> &DeadLetters {
        &self.state.dead_letters
    }

    fn replay(&self, event: Event) {
        let (state, broker) = (Arc::clone(&self.state), self.broker.clone());
        tokio::spawn(async move { tell(&state, &broker, &Trace::default(), event).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Authorized, Facts, Stamp};

    #[test]
    fn header_fields_of_an_end_are_found_in_its_event() {
        let facts = Facts {
            api: "chat".into(),
            stage: "dev".into(),
            domain: "localhost:80".into(),
            connection_id: "c1".into(),
            connected_at_ms: 5,
            source_ip: "192.0.2.1".into(),
            user_agent: None,
            ..Facts::default()
        };
        let authorized = Authorized::new("ann", [("n".to_owned(), "42".to_owned())].into());
        let stamp = Stamp::new(7);
        let event: Value =
            serde_json::from_slice(&facts.disconnect(&stamp, Some(&authorized), 1006, "")).unwrap();
        for (mapping, expected) in [
            ("'static'", Some("static")),
            ("$context.connectionId", Some("c1")),
            ("$context.requestId", Some(&*stamp.request_id)),
            ("$context.routeKey", Some("$disconnect")),
            ("$context.eventType", Some("DISCONNECT")),
            ("$context.stage", Some("dev")),
            ("$context.domainName", Some("localhost:80")),
            ("$context.apiId", Some("chat")),
            ("$context.connectedAt", Some("5")),
            ("$context.identity.sourceIp", Some("192.0.2.1")),
            ("$context.identity.userAgent", None),
            ("$context.authorizer.principalId", Some("ann")),
            ("$context.authorizer.n", Some("42")),
            ("$context.authorizer.m", None),
        ] {
            let value = mapped(&mapping.parse().unwrap(), &event);
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected, "{mapping}");
        }
    }
}
