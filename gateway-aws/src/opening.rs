//! From a request to a connection: Pending → Authorizing → Connecting → 101.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::{Principal, Rights, unix_ms};
use gateway::client::Answer;
use http::header::{HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_edge::websocket::Upgrade;
use http_edge::{Body, Encrypted, Peer, RawHead, Response, connection_id, parameters, user_agent};
use tokio::sync::oneshot;
use websocket::handshake;

use crate::answer::{self, Failure, error_message};
use crate::api::{ApiState, Cache};
use crate::client::{Target, Trace, has_failed};
use crate::config::{Authorizer, Source};
use crate::connection::Admitted;
use crate::event::{Authorized, Facts, Opening, Stamp};
use crate::member::{Frames, Known, Member, OUTBOX};
use crate::policy::Grant;
use crate::session::Session;
use crate::state::Shared;

/// Longest target of a request, in bytes, as API Gateway has it.
const MAX_TARGET_BYTES: usize = 4_096;

/// How long a handshake waits for a turn at its authorizer.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a client for which there was no turn may come back.
const RETRY_SECONDS: u64 = 1;

/// Why a client is not let in.
#[derive(Debug)]
enum Refusal {
    /// Nobody has answered that it may.
    Answered(StatusCode, &'static str),
    /// The function said this.
    Status(StatusCode),
    /// The function has let it in, but what it asked the broker for beside cannot be done.
    Undone,
    /// It may come back.
    Later,
}

impl Refusal {
    fn response(&self) -> Response {
        let (status, message) = match self {
            Self::Answered(status, message) => (*status, *message),
            Self::Status(status) => {
                let mut response = http::Response::new(Body::empty());
                *response.status_mut() = *status;
                return response;
            }
            Self::Undone => (StatusCode::BAD_GATEWAY, "Internal server error"),
            Self::Later => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        };
        let mut response = http::Response::new(Body::full(format!(r#"{{"message":"{message}"}}"#)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Later) {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        response
    }
}

const UNAUTHORIZED: Refusal = Refusal::Answered(StatusCode::UNAUTHORIZED, "Unauthorized");
const FORBIDDEN: Refusal = Refusal::Answered(StatusCode::FORBIDDEN, "Forbidden");
const FAILED: Refusal = Refusal::Answered(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error");
const BAD_GATEWAY: Refusal = Refusal::Answered(StatusCode::BAD_GATEWAY, "Internal server error");
const TIMED_OUT: Refusal = Refusal::Answered(StatusCode::GATEWAY_TIMEOUT, "Endpoint request timed out");

/// Answers a request at the path of an API.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    state: &Arc<ApiState>,
    peer: Option<Peer>,
    mut parts: Parts,
) -> Response {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        return Refusal::Answered(StatusCode::URI_TOO_LONG, "Request URI too long").response();
    }
    let mut options = handshake::Options::default();
    options.deflate = true;
    // Looked at first: nobody is asked about what cannot become a WebSocket.
    let upgrade = match Upgrade::accept(&mut parts, &options) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused.response("GET"),
    };
    if shared.is_closing.load(Relaxed) {
        return Refusal::Later.response();
    }
    let deflate = upgrade.deflate();
    let remote = peer.map(|peer| peer.0.ip());
    let (session, opening) = begin(shared, state, &parts, remote, deflate.is_some());
    let offered = offered(&parts.headers);
    drop(parts);
    let (done, outcome) = oneshot::channel();
    // In a task of its own: what a function has said of a client that left meanwhile still counts.
    tokio::spawn(async move {
        let admitted = admit(session, opening).await;
        // A client that left meanwhile lets go of it, and is told of.
        drop(done.send(admitted));
    });
    match outcome.await {
        Ok(Ok((admitted, chosen))) => {
            let mut response = upgrade.then(move |socket| admitted.open(socket, deflate));
            let chosen = chosen.filter(|chosen| offered.contains(chosen));
            if let Some(chosen) = chosen.and_then(|chosen| HeaderValue::from_str(&chosen).ok()) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
            }
            response
        }
        Ok(Err(refusal)) => {
            state.refused.fetch_add(1, Relaxed);
            refusal.response()
        }
        Err(_) => FAILED.response(),
    }
}

/// Sub-protocols that the client offers.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// The client as functions see it. It has its id from here on.
fn begin(
    shared: &Arc<Shared>,
    state: &Arc<ApiState>,
    parts: &Parts,
    remote: Option<IpAddr>,
    deflate: bool,
) -> (Arc<Session>, Opening) {
    let activity = Member::activity();
    let [plain, deflated] = shared.encodings;
    let frames =
        Frames { encoding: if deflate { deflated } else { plain }, deflate, activity: Arc::clone(&activity) };
    let subscriber = shared.broker.attach(Arc::new(frames), OUTBOX);
    let key = subscriber.key();
    let facts = Facts {
        api: state.api.name.clone(),
        stage: state.api.stage.clone(),
        stage_variables: state.api.stage_variables.clone(),
        domain: host_of(parts).unwrap_or_default(),
        connection_id: connection_id(key),
        connected_at_ms: unix_ms(),
        source_ip: remote.map(|ip| ip.to_string()).unwrap_or_default(),
        user_agent: user_agent(&parts.headers).map(str::to_owned),
    };
    let from = (remote, Encrypted::of(&parts.extensions));
    let member = Arc::new(Member::new(facts, Arc::clone(state), subscriber, (activity, deflate), from));
    shared.members.insert(key, Arc::clone(&member));
    state.connections.fetch_add(1, Relaxed);
    let trace = Trace::of(&parts.headers);
    (Arc::new(Session { shared: Arc::clone(shared), member, trace }), opening(parts))
}

/// What the client calls the server. HTTP/2 has it beside the path.
fn host_of(parts: &Parts) -> Option<String> {
    let host =
        parts.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    host.or_else(|| parts.uri.authority().map(|authority| authority.as_str().to_owned()))
}

/// All that the request says, with the names of header fields as the client spelled them.
fn opening(parts: &Parts) -> Opening {
    let raw = parts.extensions.get::<RawHead>();
    let spelled: HashMap<String, &str> = raw
        .map(|head| head.names().map(|name| (name.to_ascii_lowercase(), name)).collect())
        .unwrap_or_default();
    let headers = parts.headers.iter().map(|(name, value)| {
        // HTTP/2 spells nothing, and handlers look for `Host`.
        let plain = if name == header::HOST { "Host" } else { name.as_str() };
        let name = spelled.get(name.as_str()).copied().unwrap_or(plain);
        (name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let query = parameters(parts.uri.query()).filter_map(Result::ok);
    // Handlers make the address of `@connections` of it, whatever version of HTTP the client speaks.
    let host = host_of(parts).filter(|_| !parts.headers.contains_key(header::HOST));
    Opening {
        headers: host.map(|host| ("Host".to_owned(), host)).into_iter().chain(headers).collect(),
        query: query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
    }
}

/// Asks the authorizer, then the function of `$connect`; who may come, and by which sub-protocol.
async fn admit(session: Arc<Session>, opening: Opening) -> Result<(Admitted, Option<String>), Refusal> {
    match ask(&session, &opening).await {
        Ok(chosen) => Ok((Admitted::new(session), chosen)),
        Err(Refusal::Undone) => {
            // Its function believes that it is there, and hears that it is not.
            drop(Admitted::new(session));
            Err(Refusal::Undone)
        }
        Err(refusal) => {
            // Nobody hears of its end who has not let it in.
            session.shared.members.remove(&session.member.subscriber.key());
            session.member.state.connections.fetch_sub(1, Relaxed);
            Err(refusal)
        }
    }
}

async fn ask(session: &Session, opening: &Opening) -> Result<Option<String>, Refusal> {
    let state = &session.member.state;
    let authorizer = state.api.routes.get("$connect").and_then(|route| route.authorizer.as_deref());
    let asked =
        authorizer.and_then(|name| Some((state.authorizers.get(name)?, state.api.authorizers.get(name)?)));
    let known = match asked {
        None => Known { principal: Principal::anonymous(Rights::none()), authorized: None },
        Some((target, authorizer)) => {
            let grant = authorize(session, opening, target, authorizer).await?;
            let rights = Rights::none();
            let mut principal = Principal::user_with(&grant.principal_id, rights);
            if let Some(expires_at_ms) = grant.expires_at_ms() {
                if expires_at_ms <= unix_ms() {
                    return Err(UNAUTHORIZED);
                }
                principal = principal.expiring_at(expires_at_ms);
            }
            let authorized = Authorized::new(grant.principal_id.clone(), grant.context.clone());
            Known { principal, authorized: Some(authorized) }
        }
    };
    session.member.identify(known);
    let Some(outcome) = session.connect(opening).await else { return Ok(None) };
    let reply = outcome.map_err(|failure| match failure {
        Failure::Open | Failure::Full => Refusal::Later,
        Failure::TimedOut => TIMED_OUT,
        _ => BAD_GATEWAY,
    })?;
    match reply.status {
        Some(200..=299) => {}
        Some(status @ 300..) => {
            return Err(StatusCode::from_u16(status).map_or(BAD_GATEWAY, Refusal::Status));
        }
        _ => return Err(BAD_GATEWAY),
    }
    // What the function says to the broker is done before the client is there.
    let done = session.act(reply.actions, answer::Body::None, false).await;
    done.map_err(|_| Refusal::Undone)?;
    Ok(reply.protocol)
}

/// What the authorizer says, or has said of the same identity a little while ago.
async fn authorize(
    session: &Session,
    opening: &Opening,
    (target, cache): &(Arc<Target>, Cache),
    authorizer: &Authorizer,
) -> Result<Arc<Grant>, Refusal> {
    let facts = &session.member.facts;
    let identity: Option<Vec<String>> =
        authorizer.identity.iter().map(|source| found(source, facts, opening)).collect();
    let identity = identity.ok_or(UNAUTHORIZED)?;
    let arn = session.member.state.arn(&session.shared.config);
    let now = Instant::now();
    let is_kept = !authorizer.cache.is_zero();
    let kept = if is_kept { cache.find(&identity, now) } else { None };
    let grant = match kept {
        Some(grant) => grant,
        None => {
            let stamp = Stamp::new(unix_ms());
            let outcome = match target.turn(Some(PATIENCE)).await {
                Ok(turn) => {
                    let event = facts.authorize(opening, &stamp, &arn);
                    let read = |answer: &Answer| granted(answer.status, has_failed(answer), &answer.body);
                    target.call(turn, session.trace.lambda(), event.into(), read).await
                }
                Err(failure) => Err(failure),
            };
            let grant = Arc::new(outcome.map_err(|failure| refused(session, &stamp, &failure))?);
            if is_kept {
                cache.keep(identity, &grant, now, authorizer);
            }
            grant
        }
    };
    if grant.allows(&arn) { Ok(grant) } else { Err(FORBIDDEN) }
}

/// A part of a client's identity; nothing if it is not there or empty.
fn found(source: &Source, facts: &Facts, opening: &Opening) -> Option<String> {
    let last = |pairs: &[(String, String)], is: &dyn Fn(&str) -> bool| {
        pairs.iter().rev().find(|(name, _)| is(name)).map(|(_, value)| value.clone())
    };
    let found = match source {
        Source::Header(wanted) => last(&opening.headers, &|name| name.eq_ignore_ascii_case(wanted)),
        Source::Query(wanted) => last(&opening.query, &|name| name == wanted),
        Source::StageVariable(name) => facts.stage_variables.get(name).cloned(),
        Source::SourceIp => Some(facts.source_ip.clone()),
    };
    found.filter(|value| !value.is_empty())
}

/// Reads the answer of an authorizer.
fn granted(status: u16, has_failed: bool, body: &[u8]) -> Result<Grant, Failure> {
    if status != 200 {
        return Err(Failure::Status(status));
    }
    if has_failed {
        return Err(Failure::Function(error_message(body)));
    }
    Grant::parse(body).map_err(|bad| match error_message(body) {
        said if !said.is_empty() => Failure::Function(said),
        _ if !body.trim_ascii_start().starts_with(b"{") => Failure::NotJson,
        _ => Failure::Malformed(bad.to_string()),
    })
}

/// What the client is told where the authorizer did not say who it is.
fn refused(session: &Session, stamp: &Stamp, failure: &Failure) -> Refusal {
    let state = &session.member.state;
    if matches!(failure, Failure::Function(message) if message == "Unauthorized") {
        return UNAUTHORIZED;
    }
    tracing::warn!(
        target: "fanwire::gateway", gateway = %state.api.name, connection = %session.member.facts.connection_id,
        request = %stamp.request_id, error = %failure,
        "an authorizer did not say whether a client may connect"
    );
    match failure {
        Failure::Open | Failure::Full => Refusal::Later,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_found_where_it_stands() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let opening = Opening {
            headers: vec![pair("HeaderAuth1", "a"), pair("Empty", "")],
            query: vec![pair("token", "1"), pair("token", "2"), pair("Empty", "")],
        };
        let facts = Facts { source_ip: "192.0.2.1".into(), ..Facts::default() };
        for (source, expected) in [
            ("route.request.header.headerauth1", Some("a")),
            ("route.request.querystring.token", Some("2")),
            ("route.request.querystring.Token", None),
            ("route.request.querystring.Empty", None),
            ("route.request.header.Empty", None),
            ("route.request.header.missing", None),
            ("stageVariables.x", None),
            ("context.identity.sourceIp", Some("192.0.2.1")),
        ] {
            let source: Source = source.parse().unwrap();
            assert_eq!(found(&source, &facts, &opening).as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn the_answer_of_an_authorizer_is_a_grant_or_a_failure() {
        let answer = |status, failed: bool, body: &str| granted(status, failed, body.as_bytes());
        let grant = r#"{"principalId":"a","policyDocument":{"Statement":[]}}"#;
        assert_eq!(answer(200, false, grant).unwrap().principal_id, "a");
        let unauthorized = r#"{"errorMessage":"Unauthorized","errorType":"Error"}"#;
        for failed in [true, false] {
            assert_eq!(answer(200, failed, unauthorized), Err(Failure::Function("Unauthorized".into())));
        }
        assert_eq!(answer(500, false, grant), Err(Failure::Status(500)));
        assert_eq!(answer(200, false, "Task timed out"), Err(Failure::NotJson));
        assert!(matches!(answer(200, false, "{}"), Err(Failure::Malformed(_))));
    }
}
