//! WebSockets (RFC 6455), with the broker as the client.

use broker_core::{Broker, ContentType};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Uri, header};
use outgoing::Stream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use std::time::Duration;

use super::{End, Memory};
use crate::ask::{Clients, Failure, is_same_host, joined};
use crate::publish::{Item, publish};
use crate::source::{Source, Upstream};
use crate::state::Condition;

/// Redirects of a handshake that are followed.
const MAX_REDIRECTS: usize = 3;
/// How long the answer to a handshake may take, and a message to be sent.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);
const SEND_TIME: Duration = Duration::from_secs(30);
/// Messages of backends that wait for the socket.
const MAX_UPSTREAM: usize = 16;

pub(super) async fn read(
    source: &Source,
    broker: &Broker,
    clients: &Clients,
    memory: &mut Memory,
) -> Result<(), End> {
    let settings = source.settings();
    let mut socket = open(source, clients).await?;
    for text in &settings.on_open {
        send(&mut socket, Message::text(text.clone())).await?;
    }
    let mut upstream = source.take_upstream(MAX_UPSTREAM);
    source.opened();
    let mut heard = Instant::now();
    let mut is_pinged = false;
    loop {
        let quiet = heard + if is_pinged { settings.ping * 2 } else { settings.ping };
        let message = tokio::select! {
            message = socket.next() => message,
            Some(message) = upstream.recv() => {
                let message = match message {
                    Upstream::Text(text) => Message::text(text),
                    Upstream::Binary(bytes) => Message::binary(bytes),
                };
                send(&mut socket, message).await?;
                continue;
            }
            () = sleep_until(quiet) => {
                if is_pinged {
                    let detail = format!("nothing came for {} s", heard.elapsed().as_secs());
                    return Err(Failure::new(Condition::Timeout, detail).into());
                }
                is_pinged = true;
                send(&mut socket, Message::Ping(bytes::Bytes::new())).await?;
                continue;
            }
        };
        let item = match message {
            None | Some(Ok(Message::Close(_))) | Some(Err(Error::ConnectionClosed)) => return Ok(()),
            Some(Err(error)) => return Err(failure(&error).into()),
            Some(Ok(Message::Text(text))) => Item { payload: text.into(), ..Item::default() },
            Some(Ok(Message::Binary(payload))) => {
                Item { payload, content_type: Some(ContentType::BYTES), ..Item::default() }
            }
            Some(Ok(_)) => {
                (heard, is_pinged) = (Instant::now(), false);
                continue;
            }
        };
        memory.pace.admit(item.payload.len()).await;
        publish(broker, source, item).await?;
        (heard, is_pinged) = (Instant::now(), false);
    }
}

async fn send(socket: &mut WebSocketStream<Stream>, message: Message) -> Result<(), Failure> {
    match timeout(SEND_TIME, socket.send(message)).await {
        Ok(sent) => sent.map_err(|error| failure(&error)),
        Err(_) => Err(Failure::new(Condition::Timeout, "it does not read")),
    }
}

async fn open(source: &Source, clients: &Clients) -> Result<WebSocketStream<Stream>, Failure> {
    let settings = source.settings();
    let (mut url, mut is_trusted) = (settings.url.clone(), source.is_trusted);
    let most = settings.max_message;
    let config = WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
    for _ in 0..=MAX_REDIRECTS {
        let stream = clients.of(&url, is_trusted)?.open(&url).await?;
        let mut request = spoken(&url)?.into_client_request().map_err(|error| failure(&error))?;
        let agent = HeaderValue::from_static(concat!("Fanwire/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if is_same_host(&url, &settings.url) {
            request.headers_mut().extend(settings.headers.iter().cloned());
        }
        let shaken = timeout(HANDSHAKE_TIME, client_async_with_config(request, stream, Some(config))).await;
        let shaken = shaken.map_err(|_| Failure::new(Condition::Timeout, "the handshake is not answered"))?;
        let answer = match shaken {
            Ok((socket, _)) => return Ok(socket),
            Err(Error::Http(answer)) => answer,
            Err(error) => return Err(failure(&error)),
        };
        let to = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        match to.filter(|_| answer.status().is_redirection()) {
            None => {
                return Err(Failure::of_status(&answer));
            }
            Some(to) => {
                let to =
                    to.replacen("ws", "http", usize::from(to.starts_with("ws:") || to.starts_with("wss:")));
                let next = joined(&url, &to);
                url =
                    next.ok_or_else(|| Failure::new(Condition::Protocol, "a redirect that leads nowhere"))?;
                is_trusted &= is_same_host(&url, &settings.url);
            }
        }
    }
    Err(Failure::new(Condition::Protocol, format!("more than {MAX_REDIRECTS} redirects")))
}

/// The same URL, as WebSockets spell it.
fn spoken(url: &Uri) -> Result<Uri, Failure> {
    let text = url.to_string().replacen("http", "ws", 1);
    text.parse().map_err(|_| Failure::new(Condition::Protocol, "it is no URL of a WebSocket"))
}

fn failure(error: &Error) -> Failure {
    let condition = match error {
        Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed => Condition::ConnectionFailed,
        Error::Capacity(_) => Condition::TooLarge,
        Error::Http(_) => Condition::BadStatus,
        _ => Condition::Protocol,
    };
    Failure::new(condition, error.to_string())
}
