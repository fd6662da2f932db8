//! Messages with `data`, published to the broker.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use broker_core::{Channel, Client, Echo, Principal, Properties, Publish, PublishError};
use bytes::Bytes;

use super::creation::allow_creation;
use crate::codec::message::{self, Message};
use crate::error::Fault;
use crate::hooks::listener::Listener;
use crate::hooks::policy::Policy;
use crate::sessions::Sessions;
use crate::sessions::member::Member;
use crate::sessions::rate::RateLimit;

/// Payloads below this are copied out of the request, so that a small message does not keep a large
/// body alive.
const COPY_BELOW_BYTES: usize = 2048;

/// Who publishes.
pub(super) struct Publisher<'a> {
    pub(super) principal: &'a Principal,
    /// Its session; none where publishing needs none.
    pub(super) member: Option<&'a Member>,
    /// How many channels it may bring into being.
    pub(super) new_channels: &'a RateLimit,
    pub(super) remote: Option<IpAddr>,
}

/// Publishes a message; `source` holds its text.
pub(super) async fn publish(
    sessions: &Sessions,
    policy: &dyn Policy,
    source: &Bytes,
    message: &Message<'_>,
    channel: Channel,
    publisher: &Publisher<'_>,
) -> Result<(), Fault> {
    let Publisher { principal, member, new_channels, remote } = *publisher;
    let data = message.data.ok_or(Fault::DataMissing)?;
    let max = sessions.config().max_ext_bytes;
    if message.ext.is_some_and(|ext| ext.get().len() > max) {
        return Err(Fault::ExtTooLarge { max });
    }
    let passed =
        |listener: &dyn Listener| listener.publishing(member.map(|member| &member.id), &channel, data.get());
    if sessions.shared.listener().is_some_and(|listener| !passed(&*listener)) {
        return Err(Fault::MessageDeleted);
    }
    policy.can_publish(principal, &channel).map_err(Fault::PublishDenied)?;
    allow_creation(sessions, policy, principal, new_channels, &channel)
        .map_err(Fault::ChannelCreateDenied)?;
    principal.admit(1).map_err(|wait| Fault::RateLimited {
        retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1),
    })?;
    let own_copy = member.is_some_and(|member| member.echo.load(Ordering::Relaxed))
        && !sessions.config().not_to_publisher.iter().any(|filter| filter.matches(&channel));
    let mut publish = Publish::new(channel, slice(source, data.get())).json();
    if let Some(ext) = message.ext
        && message::is_object(ext)
    {
        let mut given = Properties::default();
        given.ext = Some(slice(source, ext.get()));
        publish = publish.properties(given);
    }
    if let Some(member) = member {
        let echo = if own_copy { Echo::Deliver } else { Echo::Skip };
        publish = publish.from(member.subscriber.key(), echo);
    }
    if let Some(policy) = sessions.broker.policy() {
        let mut client = Client::new(principal, "bayeux");
        client.key = member.map(|member| member.subscriber.key());
        client.remote = remote;
        publish = policy.publish(&client, publish).await.map_err(PublishError::from)?;
    }
    let receipt = match sessions.broker.submit(publish).if_now() {
        Ok(receipt) => receipt,
        Err(later) => later.await,
    };
    receipt.map_err(|refused| refused.error)?;
    sessions.counters().published();
    if let Some(member) = member {
        member.mailbox.note_published();
    }
    Ok(())
}

/// The bytes of a part of `source`, shared if that pays.
pub(super) fn slice(source: &Bytes, part: &str) -> Bytes {
    if part.len() < COPY_BELOW_BYTES {
        Bytes::copy_from_slice(part.as_bytes())
    } else {
        source.slice_ref(part.as_bytes())
    }
}
