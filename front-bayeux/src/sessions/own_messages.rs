//! Messages that the server sends to one session of its own accord.

use bytes::Bytes;

use super::timestamp::{Stamped, timestamp};
use crate::codec::object::Object;
use crate::config::Config;
use crate::hooks::service::ServiceReply;

/// What a session that the server ends is told (CometD, "disconnect"), and why, if whoever ended it said so.
pub(crate) fn goodbye(reason: Option<&str>, config: &Config) -> Vec<u8> {
    let mut out = br#"{"channel":"/meta/disconnect","successful":true"#.to_vec();
    if let Some(reason) = reason {
        // `code:arguments:text`, as every error (Bayeux 1.0, "error").
        out.extend_from_slice(b",\"error\":");
        envelope::write_string(&format!("403::{reason}"), &mut out);
    }
    if let Some(timestamp) = timestamp(config, Stamped::No) {
        out.extend_from_slice(b",\"timestamp\":");
        envelope::write_string(&timestamp, &mut out);
    }
    out.push(b'}');
    out
}

/// A message to one session alone.
pub(crate) fn direct_message(channel: &str, data: &Bytes, config: &Config) -> Bytes {
    let mut out = Vec::with_capacity(32 + channel.len() + data.len());
    let mut object = Object::new(&mut out);
    object.text("channel", channel);
    put_data(&mut object, data);
    put_timestamp(&mut object, config);
    object.finish();
    out.into()
}

/// What a service answers beyond the reply to the message that asked it, whose `id` it carries; none if it only
/// accepts.
pub(crate) fn service_answer(
    channel: &str,
    id: Option<&str>,
    reply: &ServiceReply,
    config: &Config,
) -> Option<Bytes> {
    let mut out = Vec::with_capacity(64 + channel.len());
    let mut object = Object::new(&mut out);
    object.text("channel", channel);
    if let Some(id) = id {
        object.raw("id", id);
    }
    match reply {
        ServiceReply::Accepted => return None,
        ServiceReply::Data(data) | ServiceReply::Failed(data) => put_data(&mut object, data),
        // The message's own reply is gone already.
        ServiceReply::Refused(error) => _ = object.text("data", error).text("error", error),
    }
    object.flag("successful", matches!(reply, ServiceReply::Data(_)));
    put_timestamp(&mut object, config);
    object.finish();
    Some(out.into())
}

/// Adds the time, if all messages carry it.
fn put_timestamp(object: &mut Object<'_>, config: &Config) {
    if let Some(timestamp) = timestamp(config, Stamped::No) {
        object.text("timestamp", &timestamp);
    }
}

/// Adds `data` as it is if it is JSON, else as a string; `null` if it is empty.
fn put_data(object: &mut Object<'_>, data: &Bytes) {
    if data.is_empty() {
        object.raw("data", "null");
        return;
    }
    let text = String::from_utf8_lossy(data);
    if envelope::is_valid_json(data, envelope::MAX_DEPTH) {
        object.raw("data", &text);
    } else {
        object.text("data", &text);
    }
}
