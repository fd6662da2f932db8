//! `GET /v1/channels` and `/v1/channels/{channel…}`: which channels are in use.

use broker_core::{Action, Broker, ChannelInfo, Filter, HistoryQuery, Order, Principal};
use envelope::write_string;

use crate::error::Error;
use crate::query::{invalid, limit, parameters};

/// A page of at most `max_page` channels in the order of their names. `cursor` is the last name of the page before, as
/// `next` gave it. Channels that the principal may not look at are left out.
pub(crate) fn list(
    broker: &Broker,
    max_page: usize,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let (mut prefix, mut cursor, mut count) = (String::new(), None, 100.min(max_page));
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "prefix" => prefix = value.into_owned(),
            "cursor" => cursor = Some(value.into_owned()),
            "limit" => count = limit(&value, max_page)?,
            other => return Err(invalid(other, "unknown; known are prefix, cursor, limit")),
        }
    }
    let page = broker.channels(&prefix, cursor.as_deref(), count);
    let mut out = b"{\"channels\":[".to_vec();
    let mut first = true;
    for info in &page.channels {
        if !principal.allows(Action::Presence, &info.channel) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write(broker, info, &mut out);
    }
    out.extend_from_slice(b"],\"next\":");
    match page.channels.last() {
        Some(last) if page.more => write_string(last.channel.as_str(), &mut out),
        _ => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Ok(out)
}

/// One channel; 404 if it has no subscriber and nothing in the log.
pub(crate) fn one(broker: &Broker, principal: &Principal, channel: &str) -> Result<Vec<u8>, Error> {
    let channel = intake::channel(channel)?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::Presence, &channel) {
        return Err(Error::forbidden(principal, "look at", &channel));
    }
    let retained = broker.retained(&channel).is_some();
    let info = match broker.channel(&channel) {
        Some(info) => info,
        None if retained => ChannelInfo::new(channel, 0),
        None => return Err(Error::NotInUse(channel.as_str().to_owned())),
    };
    let mut out = Vec::new();
    write(broker, &info, &mut out);
    Ok(out)
}

/// Messages are counted up to here; a channel with more shows this number.
const MAX_COUNTED: usize = 1_000;

fn write(broker: &Broker, info: &ChannelInfo, out: &mut Vec<u8>) {
    let mut newest = HistoryQuery::default();
    newest.after = None;
    newest.limit = MAX_COUNTED;
    newest.order = Order::Newest;
    let messages = broker.history(&Filter::literal(info.channel.clone()), newest).messages.len();
    let retained = broker.retained(&info.channel).is_some();
    out.extend_from_slice(b"{\"channel\":");
    write_string(info.channel.as_str(), out);
    let rest =
        format!(",\"subscribers\":{},\"messages\":{messages},\"retained\":{retained}}}", info.subscriptions);
    out.extend_from_slice(rest.as_bytes());
}
