//! Pages that are asked for again: after a while, or at once where they answer only when there is something.

use std::time::Duration;

use broker_core::{Broker, ContentType};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use outgoing::Body;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{End, Memory as Remembered};
use crate::ask::{Asked, Clients, Failure, is_same_host, joined};
use crate::publish::{Item, publish};
use crate::source::Source;
use crate::state::Condition;

/// How long the body of an answer may take once its head is there.
const BODY_TIME: Duration = Duration::from_secs(30);
/// From a long poll that brought nothing at once to the next one.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);

/// What was answered last.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
    /// What was published last, as it came.
    last: Option<Bytes>,
    /// What was published last, where differences are published.
    document: Option<Value>,
    /// There were differences since the whole was published.
    has_patches: bool,
    /// Where a long poll goes on.
    next: Option<Uri>,
}

pub(super) async fn read(
    source: &Source,
    broker: &Broker,
    clients: &Clients,
    memory: &mut Remembered,
) -> Result<(), End> {
    let settings = source.settings();
    loop {
        let (answer, _) = ask(source, clients, &memory.poll, &settings.url).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            source.opened();
            if memory.poll.has_patches && source.take_newcomer() {
                publish_document(source, broker, memory).await?;
            }
        } else {
            let (head, body) = taken(source, answer).await?;
            publish_page(source, broker, memory, &head, body).await?;
            (memory.poll.etag, memory.poll.modified) = validators(&head);
        }
        sleep(settings.interval).await;
    }
}

pub(super) async fn read_long(
    source: &Source,
    broker: &Broker,
    clients: &Clients,
    memory: &mut Remembered,
) -> Result<(), End> {
    let settings = source.settings();
    loop {
        let asked = memory.poll.next.clone().unwrap_or_else(|| settings.url.clone());
        let began = Instant::now();
        let (answer, from) = ask(source, clients, &memory.poll, &asked).await?;
        // What ended without a message: nothing has come within the server's time.
        let is_empty = matches!(answer.status().as_u16(), 204 | 304 | 408 | 504);
        if is_empty {
            source.opened();
            sleep(EMPTY_PAUSE.saturating_sub(began.elapsed())).await;
            continue;
        }
        let (head, body) = taken(source, answer).await?;
        let next = next_link(&head, &from).filter(|next| is_same_host(next, &settings.url));
        if body.is_empty() {
            sleep(EMPTY_PAUSE.saturating_sub(began.elapsed())).await;
        } else {
            memory.pace.admit(body.len()).await;
            let content_type = content_type(&head);
            publish(broker, source, Item { payload: body, content_type, ..Item::default() }).await?;
        }
        (memory.poll.etag, memory.poll.modified) = validators(&head);
        if next.is_some() {
            memory.poll.next = next;
        }
    }
}

async fn ask(
    source: &Source,
    clients: &Clients,
    memory: &Memory,
    url: &Uri,
) -> Result<(Response<Body>, Uri), Failure> {
    let settings = source.settings();
    let mut own = HeaderMap::new();
    for (name, value) in
        [(header::IF_NONE_MATCH, &memory.etag), (header::IF_MODIFIED_SINCE, &memory.modified)]
    {
        if let Some(value) = value {
            own.insert(name, value.clone());
        }
    }
    let asked = Asked {
        method: settings.method.clone(),
        url,
        headers: &settings.headers,
        body: settings.body.clone(),
        is_trusted: source.is_trusted,
    };
    clients.ask(&asked, &own).await
}

/// The head and the whole body of an answer that has one.
async fn taken(source: &Source, answer: Response<Body>) -> Result<(HeaderMap, Bytes), Failure> {
    if !answer.status().is_success() {
        return Err(Failure::of_status(&answer));
    }
    let (parts, body) = answer.into_parts();
    let body = body.collect(source.settings().max_message, BODY_TIME).await?;
    source.opened();
    Ok((parts.headers, body))
}

async fn publish_page(
    source: &Source,
    broker: &Broker,
    memory: &mut Remembered,
    head: &HeaderMap,
    body: Bytes,
) -> Result<(), End> {
    let settings = source.settings();
    if settings.select.is_none() && !settings.diff {
        if memory.poll.last.as_ref() != Some(&body) {
            memory.pace.admit(body.len()).await;
            let content_type = content_type(head);
            let item = Item { payload: body.clone(), content_type, ..Item::default() };
            publish(broker, source, item).await?;
            memory.poll.last = Some(body);
        }
        return Ok(());
    }
    let no_json = |error: serde_json::Error| Failure::new(Condition::Protocol, format!("no JSON: {error}"));
    let mut whole: Value = serde_json::from_slice(&body).map_err(no_json)?;
    if let Some(pointer) = &settings.select {
        let selected = whole.pointer_mut(pointer).map(Value::take);
        whole = selected.ok_or_else(|| {
            Failure::new(Condition::Protocol, format!("{pointer:?} of the answer is not there"))
        })?;
    }
    let newcomer = settings.diff && source.take_newcomer() && memory.poll.has_patches;
    if memory.poll.document.as_ref() == Some(&whole) && !newcomer {
        return Ok(());
    }
    let old = memory.poll.document.replace(whole);
    let (Some(old), true, false) = (old, settings.diff, newcomer) else {
        return publish_document(source, broker, memory).await;
    };
    let Some(new) = &memory.poll.document else { return Ok(()) };
    let text = |value: &Value| value.to_string();
    let patch = serde_json::to_string(&json_patch::diff(&old, new)).map_err(no_json)?;
    if patch.len() > text(new).len() {
        return publish_document(source, broker, memory).await;
    }
    memory.pace.admit(patch.len()).await;
    let content_type = Some(ContentType::new("application/json-patch+json"));
    let event = Some("patch".to_owned());
    let item = Item { payload: patch.into(), content_type, event, ..Item::default() };
    publish(broker, source, item).await?;
    memory.poll.has_patches = true;
    // Whoever came just now has what was retained, to which this difference does not apply.
    if source.take_newcomer() { publish_document(source, broker, memory).await } else { Ok(()) }
}

/// Publishes the whole. Where differences follow it is retained, for who comes then.
async fn publish_document(source: &Source, broker: &Broker, memory: &mut Remembered) -> Result<(), End> {
    let Some(document) = &memory.poll.document else { return Ok(()) };
    let payload = Bytes::from(document.to_string());
    memory.pace.admit(payload.len()).await;
    let diff = source.settings().diff;
    let event = diff.then(|| "data".to_owned());
    let content_type = Some(ContentType::JSON);
    publish(broker, source, Item { payload, content_type, event, retain: diff, ..Item::default() }).await?;
    memory.poll.has_patches = false;
    Ok(())
}

fn content_type(head: &HeaderMap) -> Option<ContentType> {
    let text = head.get(header::CONTENT_TYPE)?.to_str().ok()?;
    (text.len() <= 256).then(|| ContentType::new(text))
}

fn validators(head: &HeaderMap) -> (Option<HeaderValue>, Option<HeaderValue>) {
    (head.get(header::ETAG).cloned(), head.get(header::LAST_MODIFIED).cloned())
}

/// Where `Link: <…>; rel=next` leads (RFC 8288).
fn next_link(head: &HeaderMap, base: &Uri) -> Option<Uri> {
    let texts = head.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    for link in texts.flat_map(|text| text.split(',')) {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|rest| rest.split_once('>'))
        else {
            continue;
        };
        let is_next =
            parameters.split(';').filter_map(|one| one.trim().split_once('=')).any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return joined(base, target);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let base: Uri = "http://a.example/poll?after=1".parse().unwrap();
        for (link, next) in [
            ("</poll?after=2>; rel=next", Some("http://a.example/poll?after=2")),
            ("</x>; rel=\"prev\", <?after=2>;rel=\"up Next\"", Some("http://a.example/poll?after=2")),
            ("</x>; rel=prev", None),
            ("nonsense", None),
        ] {
            let mut head = HeaderMap::new();
            head.insert(header::LINK, link.parse().unwrap());
            assert_eq!(next_link(&head, &base).map(|url| url.to_string()).as_deref(), next, "{link}");
        }
    }
}
