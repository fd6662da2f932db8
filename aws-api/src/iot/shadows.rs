//! `/things/THING/shadow` and the list of a thing's named shadows.

use broker_core::{Action, Channel, Filter, Principal, Segment};
use http::{HeaderValue, Method, header};
use http_edge::{Body, Response};
use serde_json::{Value, json};
use shadow::{Name, Rejection};

use super::answer::json;
use super::query::Query;
use crate::error::AwsError;
use crate::things::{Things, now};

/// Names on a page if nothing is said, and at most.
const PAGE: usize = 25;
const MAX_PAGE: usize = 100;

impl From<Rejection> for AwsError {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.message;
        match rejection.code {
            404 => Self::not_found(message),
            409 => Self::conflict(message),
            413 => Self::too_large(message),
            429 => Self::throttled(message),
            _ => Self::invalid(message),
        }
    }
}

/// Whoever may do it everywhere may do it here, and who has a rule for the shadow's topic.
fn check(principal: &Principal, action: Action, name: &Name) -> Result<(), AwsError> {
    let everything =
        Filter::new([Segment::RestOneOrMore]).map_err(|error| AwsError::internal(error.to_string()))?;
    let topic = Channel::parse(&name.topic())?;
    if principal.allows_all_of(action, &everything) || principal.rights().grants(action, &topic) {
        return Ok(());
    }
    Err(AwsError::forbidden(format!("no right to {} on {:?}", action.name(), topic.as_str())))
}

/// Answers what is asked of one shadow.
pub(crate) async fn shadow(
    things: &Things,
    principal: &Principal,
    method: &Method,
    thing: &str,
    query: &Query<'_>,
    body: &[u8],
) -> Result<Response, AwsError> {
    let wrong = || {
        AwsError::invalid("the name of a thing has 1 to 128 of A-Z a-z 0-9 : _ -, that of a shadow 1 to 64")
    };
    let name = Name::new(thing, query.text("name")).ok_or_else(wrong)?;
    let document = match *method {
        Method::GET => {
            check(principal, Action::History, &name)?;
            things.get(&name, b"")?
        }
        _ => {
            check(principal, Action::Publish, &name)?;
            if !things.has_room() {
                return Err(AwsError::throttled("too many documents wait for a busy broker"));
            }
            let is_delete = *method == Method::DELETE;
            let changed = if is_delete { things.delete(&name, b"") } else { things.update(&name, body) };
            // Whoever is answered finds it after a crash.
            let settled = things.settled().await;
            let changed = changed?;
            settled.map_err(|error| AwsError::throttled(error.to_string()).after(error.retry_after))?;
            changed
        }
    };
    let mut response = http::Response::new(Body::full(document));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A page of the names of a thing's shadows.
pub(crate) fn list_shadows(
    things: &Things,
    principal: &Principal,
    thing: &str,
    query: &Query<'_>,
) -> Result<Response, AwsError> {
    let name =
        Name::new(thing, None).ok_or_else(|| AwsError::invalid("this cannot be the name of a thing"))?;
    check(principal, Action::History, &name)?;
    let count = query.number("pageSize", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let page = things.list(thing, query.text("nextToken"), count);
    let next = page.names.last().filter(|_| page.more).cloned();
    let mut document = json!({ "results": page.names, "timestamp": now() });
    if let (Some(next), Value::Object(document)) = (next, &mut document) {
        document.insert("nextToken".to_owned(), next.into());
    }
    Ok(json(&document))
}
