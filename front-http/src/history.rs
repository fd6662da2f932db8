//! `GET /v1/history/{channel…}`: what the log holds, now or as soon as there is something.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Action, Authenticator, Broker, Event, Filter, HistoryQuery, Order, OutboxConfig, OutboxPolicy, Position,
    Principal, SubscribeOptions, unix_ms,
};
use envelope::{envelope, write_string};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::error::Error;
use crate::query::{invalid, limit, parameters};

/// The parameters of a request for history.
#[derive(Debug, PartialEq)]
struct Query {
    after: Option<Position>,
    limit: usize,
    order: Order,
    wait: Duration,
}

const DEFAULT_LIMIT: usize = 100;

impl Query {
    fn read(query: Option<&str>, max_page: usize, max_wait: Duration) -> Result<Query, Error> {
        let mut read = Query {
            after: None,
            limit: DEFAULT_LIMIT.min(max_page),
            order: Order::Oldest,
            wait: Duration::ZERO,
        };
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            match &*name {
                "after" => {
                    read.after = Some(value.parse().map_err(|_| invalid("after", "not a message id"))?)
                }
                "limit" => read.limit = limit(&value, max_page)?,
                "order" => {
                    read.order = match &*value {
                        "asc" => Order::Oldest,
                        "desc" => Order::Newest,
                        _ => return Err(invalid("order", "not `asc` or `desc`")),
                    }
                }
                "wait" => {
                    let secs: f64 = value.parse().map_err(|_| invalid("wait", "not a number of seconds"))?;
                    if !(0.0..=86_400.0).contains(&secs) {
                        return Err(invalid("wait", "not between 0 and a day, in seconds"));
                    }
                    read.wait = Duration::from_secs_f64(secs).min(max_wait);
                }
                other => return Err(invalid(other, "unknown; known are after, limit, order, wait")),
            }
        }
        Ok(read)
    }
}

/// How often it is asked whether a held request would still be let in.
const JUDGED_EVERY: Duration = Duration::from_secs(2);

/// That something came is all a held request wants to know of it; what it is stands in the log.
const FEW: OutboxConfig = OutboxConfig::new(1, 1 << 10, OutboxPolicy::DropOldest);

/// What pages are read from, within which bounds, and what ends the requests that are held.
pub(crate) struct Pages {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    max_page: usize,
    max_page_bytes: usize,
    max_wait: Duration,
    /// True once the front shuts down.
    closing: watch::Sender<bool>,
}

impl Pages {
    pub(crate) fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: &Config) -> Self {
        Pages {
            broker,
            authenticator,
            max_page: config.max_page,
            max_page_bytes: config.max_page_bytes,
            max_wait: config.max_wait,
            closing: watch::Sender::new(false),
        }
    }

    /// Answers the requests that are held with what there is, and holds none any more.
    pub(crate) fn hold_no_more(&self) {
        self.closing.send_replace(true);
    }

    /// One page as JSON. With `wait`, an empty one is held until something comes, the time is over, or the front shuts
    /// down.
    pub(crate) async fn answer(
        &self,
        principal: &Principal,
        filter: &str,
        query: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        let query = Query::read(query, self.max_page, self.max_wait)?;
        let filter = intake::filter(filter)?;
        self.broker.check_levels(&filter)?;
        if !principal.allows_filter(Action::History, &filter) {
            return Err(Error::forbidden(principal, "read the history of", &filter));
        }
        if query.wait.is_zero() {
            return Ok(self.page(principal, &filter, &query).await?.json);
        }
        // Subscribed before the log is read, so that nothing falls between.
        let mut options = SubscribeOptions::default();
        options.outbox = FEW;
        let mut live = self.broker.subscribe_with(std::slice::from_ref(&filter), options)?;
        self.broker.settled(&filter).await?;
        let mut closing = self.closing.subscribe();
        let left = principal.expires_at_ms().map(|end| Duration::from_millis(end.saturating_sub(unix_ms())));
        let expires = left.filter(|left| *left < query.wait).map(|left| Instant::now() + left);
        let deadline = expires.unwrap_or_else(|| Instant::now() + query.wait);
        loop {
            // While the request was held the configuration may have changed.
            if !self.authenticator.still_holds(principal) {
                return Err(intake::Error::RightsChanged.into());
            }
            let page = self.page(principal, &filter, &query).await?;
            if !page.is_empty || *closing.borrow_and_update() {
                return Ok(page.json);
            }
            let next = async {
                loop {
                    tokio::select! {
                        event = live.next() => return event.is_some(),
                        _ = closing.changed() => return true,
                        () = sleep(JUDGED_EVERY) => {
                            if !self.authenticator.still_holds(principal) {
                                return true;
                            }
                        }
                    }
                }
            };
            match timeout_at(deadline, next).await {
                Ok(true) | Err(_) if !self.authenticator.still_holds(principal) => {
                    return Err(intake::Error::RightsChanged.into());
                }
                Ok(true) => {}
                Err(_) if expires.is_some() => return Err(intake::Error::Expired.into()),
                Ok(false) | Err(_) => return Ok(page.json),
            }
            // One look at the log serves all that came meanwhile.
            while let Some(Event::Message(_) | Event::Lagged(_)) = now_or_never(live.next()) {}
        }
    }

    async fn page(&self, principal: &Principal, filter: &Filter, query: &Query) -> Result<Page, Error> {
        let mut asked = HistoryQuery::default();
        asked.after = query.after;
        asked.limit = query.limit;
        asked.order = query.order;
        let history = self.broker.read_history(filter, asked).await?;
        let mut json = b"{\"epoch\":".to_vec();
        let first = history.first.to_string();
        write_string(first.split('-').next().unwrap_or_default(), &mut json);
        json.extend_from_slice(b",\"first\":");
        write_string(&first, &mut json);
        json.extend_from_slice(b",\"last\":");
        write_string(&history.last.to_string(), &mut json);
        json.extend_from_slice(if history.gap { b",\"gap\":true" } else { b",\"gap\":false" });
        json.extend_from_slice(b",\"messages\":[");
        let (mut bytes, mut count, mut seen) = (0, 0, 0);
        for message in &history.messages {
            if principal.allows(Action::History, message.channel()) {
                bytes += message.payload().len();
                if count > 0 {
                    if bytes > self.max_page_bytes {
                        break;
                    }
                    json.push(b',');
                }
                count += 1;
                json.extend_from_slice(&envelope(message));
            }
            seen += 1;
        }
        json.extend_from_slice(b"],\"next\":");
        write_string(&history.position_after(seen).to_string(), &mut json);
        json.push(b'}');
        Ok(Page { json, is_empty: count == 0 && !history.gap })
    }
}

/// What a future yields without waiting.
fn now_or_never<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => None,
    }
}

struct Page {
    json: Vec<u8>,
    /// Nothing new, and no gap to be told of.
    is_empty: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bounded() {
        let read = |query| Query::read(Some(query), 1_000, Duration::from_secs(55));
        let all = read("after=k3-18&limit=1000&order=desc&wait=90").unwrap();
        assert_eq!(all.after, Some(broker_core::MessageId::new(723, 18).into()));
        assert_eq!((all.limit, all.order, all.wait), (1_000, Order::Newest, Duration::from_secs(55)));
        for wrong in [
            "after=",
            "after=x",
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=a",
            "order=up",
            "wait=-1",
            "wait=NaN",
            "wait=1e9",
            "since=1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
