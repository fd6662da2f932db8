//! Replies that are built from a session's answers.

use crate::codec::object::Object;
use crate::codec::reply::{Common, put_reply};
use crate::config::Config;
use crate::error::Fault;
use crate::protocol::{ConnectAnswer, End};

/// What a session that the server ends is told (CometD, "disconnect"), and why, if whoever ended it said so.
pub(crate) fn goodbye(reason: Option<&str>, config: &Config) -> Vec<u8> {
    let mut out = br#"{"channel":"/meta/disconnect","successful":true"#.to_vec();
    if let Some(reason) = reason {
        // `code:arguments:text`, as every error (Bayeux 1.0, "error").
        out.extend_from_slice(b",\"error\":");
        envelope::write_string(&format!("403::{reason}"), &mut out);
    }
    if let Some(timestamp) = timestamp(config, Asked::No) {
        out.extend_from_slice(b",\"timestamp\":");
        envelope::write_string(&timestamp, &mut out);
    }
    out.push(b'}');
    out
}

/// Whether a request carried a `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Yes,
    No,
}

impl From<bool> for Asked {
    fn from(stamped: bool) -> Self {
        if stamped { Self::Yes } else { Self::No }
    }
}

/// The current time for a message: if all carry one, or if it answers one that did (CometD, "Timestamp Extension").
pub(crate) fn timestamp(config: &Config, asked: Asked) -> Option<String> {
    (config.events.timestamp || asked == Asked::Yes).then(|| envelope::timestamp(broker_core::unix_ms()))
}

/// Adds the time to a message of the server's own, if all carry it.
pub(crate) fn put_timestamp(object: &mut Object<'_>, config: &Config) {
    if let Some(timestamp) = timestamp(config, Asked::No) {
        object.text("timestamp", &timestamp);
    }
}

/// The reply to a connect, without its events.
pub(crate) fn connect(answer: &ConnectAnswer, config: &Config) -> Vec<u8> {
    let fault = match answer.end {
        // Who is told to go away did nothing wrong.
        None | Some(End::Disconnected | End::Kicked) => None,
        Some(End::Expired) => Some(Fault::SessionUnknown),
        Some(End::QueueFull) => Some(Fault::SessionLost("queue_full")),
        Some(End::ReplayLost) => Some(Fault::SessionLost("replay_lost")),
        Some(End::Shutdown { .. }) => Some(Fault::SessionLost("server_closing")),
    };
    let refused = answer.advice.is_some_and(|advice| advice.refuses_second_session());
    let fault = if refused { Some(Fault::MultipleClients) } else { fault };
    let error = fault.map(|fault| fault.wire());
    let timestamp = timestamp(config, answer.stamped.into());
    let common = Common {
        channel: Some("\"/meta/connect\""),
        id: answer.id.as_deref(),
        error: error.as_deref(),
        advice: answer.advice,
        timestamp: timestamp.as_deref(),
    };
    let mut out = Vec::with_capacity(160);
    put_reply(&mut out, &common, |object| {
        if answer.ack.is_some() || answer.timesync.is_some() || answer.dropped > 0 {
            object.object("ext", |ext| put_ext(ext, answer));
        }
    });
    out
}

fn put_ext(ext: &mut Object<'_>, answer: &ConnectAnswer) {
    if let Some(ack) = answer.ack {
        ext.number("ack", i64::try_from(ack).unwrap_or(i64::MAX));
    }
    if answer.dropped > 0 {
        ext.number("dropped", i64::from(answer.dropped));
    }
    if let Some(fields) = answer.timesync {
        ext.object("timesync", |timesync| put_timesync(timesync, fields));
    }
}

pub(crate) fn put_timesync(object: &mut Object<'_>, fields: [(&'static str, i64); 4]) {
    for (name, value) in fields {
        object.number(name, value);
    }
}
