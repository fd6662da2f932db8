//! The reply to a connect, as text.

use super::timestamp::timestamp;
use crate::codec::object::Object;
use crate::codec::reply::{Common, put_reply};
use crate::config::Config;
use crate::error::Fault;
use crate::protocol::{ConnectAnswer, End};

/// The reply, without its events.
pub(crate) fn connect_reply(answer: &ConnectAnswer, config: &Config) -> Vec<u8> {
    let error = fault(answer).map(|fault| fault.wire());
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

fn fault(answer: &ConnectAnswer) -> Option<Fault> {
    if answer.advice.is_some_and(|advice| advice.refuses_second_session()) {
        return Some(Fault::MultipleClients);
    }
    match answer.end? {
        // Who is told to go away did nothing wrong.
        End::Disconnected | End::Kicked => None,
        End::Expired => Some(Fault::SessionUnknown),
        End::QueueFull => Some(Fault::SessionLost("queue_full")),
        End::ReplayLost => Some(Fault::SessionLost("replay_lost")),
        End::Shutdown { .. } => Some(Fault::SessionLost("server_closing")),
    }
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

/// Adds what the server says of the clocks.
pub(crate) fn put_timesync(object: &mut Object<'_>, fields: [(&'static str, i64); 4]) {
    for (name, value) in fields {
        object.number(name, value);
    }
}
