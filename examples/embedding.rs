//! A chat service of one's own with a broker inside: axum, its own sessions by a cookie, three protocols, who is there,
//! and an end at which nobody is cut off. `docs/embedding.md` goes through it.
//!
//! Run: cargo run --example embedding
//! See: curl -c jar -d ann http://127.0.0.1:3000/login             a session, in a cookie
//!      curl -b jar -N http://127.0.0.1:3000/events/chat/tea       what is said in a room
//!      curl -b jar -d hello http://127.0.0.1:3000/rooms/tea       to say something
//!      curl -b jar http://127.0.0.1:3000/rooms/tea                who is there
//!      curl -b jar -X POST http://127.0.0.1:3000/logout           and nobody listens as ann any more

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header::SET_COOKIE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use fanwire::core::CloseCause;
use fanwire::edge::OriginPolicy;
use fanwire::front::Front;
use fanwire::{
    Action, AuthError, Authenticated, Authenticator, Broker, Channel, Credentials, Filter, Principal,
    Publish, Rights, Rule, bayeux, mqtt, sse,
};
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::new(fanwire::core::Config::default());
    let (events, browsers, devices) = fronts(&broker)?;
    let chat = Chat { broker: broker.clone(), sessions: Arc::default() };
    let application = Router::new()
        .route("/rooms/{room}", get(who_is_there).post(say))
        .route("/logout", post(log_out))
        .nest_service("/events", events.nested())
        .nest_service("/cometd", browsers.nested())
        .nest_service("/mqtt", devices.nested())
        .layer(from_fn_with_state(chat.clone(), know_session))
        .route("/login", post(log_in))
        .with_state(chat);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening http={}", listener.local_addr()?);
    let stop = async move {
        stop_signal().await;
        fanwire::stop(&broker, [&events as &dyn Front, &browsers, &devices], Duration::from_secs(5)).await;
    };
    // With the feature `axum` the fronts find there where a client comes from.
    let application = application.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, application).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// Everybody hears every room; what is said goes through this service, which knows who says it.
fn fronts(broker: &Broker) -> Result<(sse::Front, bayeux::Front, mqtt::Front), Error> {
    let rights = Rights::none().allow(Rule::new([Action::Subscribe], Filter::parse("chat/*")?));
    let visitors = Arc::new(BySession { rights: Arc::new(rights) });
    let (mut events, mut browsers, mut devices) =
        (sse::Config::default(), bayeux::Config::default(), mqtt::Config::default());
    for origins in [&mut events.origins, &mut browsers.origins, &mut devices.origins] {
        *origins = OriginPolicy::SameOrigin;
    }
    Ok((
        sse::Front::new(broker.clone(), visitors.clone(), events),
        bayeux::Front::new(broker.clone(), visitors.clone(), browsers),
        mqtt::Front::new(broker.clone(), visitors, devices),
    ))
}

#[derive(Clone)]
struct Chat {
    broker: Broker,
    sessions: Arc<Mutex<HashMap<String, Session>>>,
}

impl Chat {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has logged in, as this service knows it.
#[derive(Clone)]
struct Session {
    id: String,
    user: String,
}

/// A request whose cookie names a session has it from here on, also when it goes to a front.
async fn know_session(State(chat): State<Chat>, mut request: Request, next: Next) -> Response {
    let known = |id| chat.sessions().get(std::str::from_utf8(id).ok()?).cloned();
    let session = fanwire::edge::cookies(request.headers(), "sid").find_map(known);
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    next.run(request).await
}

/// The fronts let in who has a session, whatever protocol they speak.
struct BySession {
    rights: Arc<Rights>,
}

impl Authenticator for BySession {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let session = credentials.request::<Parts>().and_then(|parts| parts.extensions.get::<Session>());
        Authenticated::now(match session {
            Some(session) => Ok(Principal::new(Some(&session.user), self.rights.clone())),
            None => Err(AuthError::Required),
        })
    }
}

/// A real service would ask for more than a name.
async fn log_in(State(chat): State<Chat>, user: String) -> Result<impl IntoResponse, StatusCode> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let id = format!("{:032x}", u128::from_ne_bytes(random));
    let cookie = format!("sid={id}; Path=/; HttpOnly; SameSite=Lax");
    chat.sessions().insert(id.clone(), Session { id, user });
    Ok(([(SET_COOKIE, cookie)], StatusCode::NO_CONTENT))
}

/// Ends the session, and whatever its user still hears.
async fn log_out(State(chat): State<Chat>, Extension(session): Extension<Session>) -> StatusCode {
    chat.sessions().remove(&session.id);
    let Ok(rooms) = Filter::parse("chat/*") else { return StatusCode::INTERNAL_SERVER_ERROR };
    let mut page = chat.broker.presence(&rooms, None, 1_000).await;
    loop {
        for member in page.members.iter().filter(|one| one.principal.user() == Some(session.user.as_str())) {
            if let Some(connection) = chat.broker.connection(member.key) {
                connection.close(&CloseCause::Administrative(Some("logged out".to_owned())));
            }
        }
        let Some(last) = page.next else { return StatusCode::NO_CONTENT };
        page = chat.broker.presence(&rooms, Some(last), 1_000).await;
    }
}

async fn say(
    State(chat): State<Chat>,
    Extension(session): Extension<Session>,
    Path(room): Path<String>,
    text: String,
) -> Result<String, (StatusCode, String)> {
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
    let channel = Channel::parse(&format!("chat/{room}")).map_err(|error| wrong(&error))?;
    let said = json!({ "from": session.user, "text": text }).to_string();
    let receipt = chat.broker.publish(Publish::new(channel, said).json()).map_err(|error| wrong(&error))?;
    Ok(format!("heard by {}\n", receipt.receivers))
}

async fn who_is_there(
    State(chat): State<Chat>,
    Extension(_): Extension<Session>,
    Path(room): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    let room = Filter::parse(&format!("chat/{room}")).map_err(|_| StatusCode::BAD_REQUEST)?;
    let page = chat.broker.presence(&room, None, 1_000).await;
    let members = page.members.iter().map(|one| {
        json!({ "user": one.principal.user(), "protocol": one.protocol, "client": one.client_id, "from": one.remote })
    });
    Ok(Json(json!({ "members": members.collect::<Vec<_>>(), "more": page.next.is_some() })))
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
