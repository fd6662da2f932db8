//! Event streams (HTML Standard, "Server-sent events").

use broker_core::Broker;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use outgoing::events::{Parser, Piece};
use tokio::time::timeout;

use super::{End, Memory};
use crate::ask::{Asked, Clients, Failure};
use crate::publish::{Item, publish};
use crate::source::Source;
use crate::state::Condition;

pub(super) async fn read(
    source: &Source,
    broker: &Broker,
    clients: &Clients,
    memory: &mut Memory,
) -> Result<(), End> {
    let settings = source.settings();
    let mut own = HeaderMap::new();
    own.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    own.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(id) = memory.last_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
        own.insert("last-event-id", id);
    }
    let asked = Asked {
        method: Method::GET,
        url: &settings.url,
        headers: &settings.headers,
        body: Bytes::new(),
        is_trusted: source.is_trusted,
    };
    let (answer, _) = clients.ask(&asked, &own).await?;
    match answer.status() {
        StatusCode::NO_CONTENT => return Err(End::Stop),
        StatusCode::OK => {}
        _ => return Err(Failure::of_status(&answer).into()),
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_stream = kind.is_some_and(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    });
    if !is_stream {
        let detail = format!("no event stream: {}", kind.unwrap_or("its type is not said"));
        return Err(Failure::new(Condition::Protocol, detail).into());
    }
    source.opened();
    let mut body = answer.into_body();
    let mut parser = Parser::new(settings.max_message);
    loop {
        let mut bytes = match timeout(settings.idle, body.next()).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let detail = format!("nothing came for {} s", settings.idle.as_secs());
                return Err(Failure::new(Condition::Timeout, detail).into());
            }
        };
        loop {
            let fed = parser.feed(&bytes);
            let fed = fed.map_err(|error| Failure::new(Condition::TooLarge, error.to_string()))?;
            let Some((piece, taken)) = fed else { break };
            let _ = bytes.split_to(taken);
            match piece {
                Piece::Retry(retry) => memory.retry = Some(retry),
                Piece::Block(block) => {
                    if let Some(data) = block.data {
                        memory.pace.admit(data.len()).await;
                        let event = String::from_utf8(block.name).ok().filter(|name| !name.is_empty());
                        let item =
                            Item { payload: data.into(), event, id: block.id.clone(), ..Item::default() };
                        publish(broker, source, item).await?;
                    }
                    // After the message: one that was cut off comes again. An empty id takes the last one back.
                    if let Some(id) = block.id {
                        source.note_last_id(&id);
                        memory.positions.note(settings, &id);
                        memory.last_id = Some(id).filter(|id| !id.is_empty());
                    }
                }
                // An id counts with its event: what was cut off behind it comes again.
                _ => {}
            }
        }
    }
}
