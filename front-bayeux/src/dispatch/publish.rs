//! Messages with `data`: published to the broker, or handed to a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use broker_core::{Channel, Echo, Principal, Properties, Publish, PublishError};
use bytes::Bytes;

use super::{Caller, Outcome};
use crate::codec::message::{self, Message};
use crate::error::{Denial, Fault};
use crate::front::Shared;
use crate::hooks::listener::Listener;
use crate::hooks::service::{ServiceReply, ServiceRequest};
use crate::sessions::own_messages::service_answer;

use crate::sessions::rate::RateLimit;
use crate::sessions::registry::Member;
use crate::sessions::shared::Shared as Common;

/// Payloads below this are copied out of the request, so that a small message does not keep a large
/// body alive.
const COPY_BELOW_BYTES: usize = 2048;

impl Shared {
    pub(super) fn publish(
        &self,
        source: &Bytes,
        message: &Message<'_>,
        channel: Channel,
        principal: &Principal,
        member: Option<&Arc<Member>>,
    ) -> Result<(), Fault> {
        let data = message.data.ok_or(Fault::DataMissing)?;
        let max = self.config().max_ext_bytes;
        if message.ext.is_some_and(|ext| ext.get().len() > max) {
            return Err(Fault::ExtTooLarge { max });
        }
        let passed = |listener: &dyn Listener| {
            listener.publishing(member.map(|member| &member.id), &channel, data.get())
        };
        if self.listener().is_some_and(|listener| !passed(&*listener)) {
            return Err(Fault::MessageDeleted);
        }
        self.policy.can_publish(principal, &channel).map_err(Fault::PublishDenied)?;
        let bucket = member.map_or(&self.anonymous_channels, |member| &member.new_channels);
        self.allow_creation(principal, bucket, &channel).map_err(Fault::ChannelCreateDenied)?;
        principal.admit(1).map_err(|wait| Fault::RateLimited {
            retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1),
        })?;
        let own_copy = member.is_some_and(|member| member.echo.load(Ordering::Relaxed))
            && !self.config().not_to_publisher.iter().any(|filter| filter.matches(&channel));
        let mut publish = Publish::new(channel, slice(source, data.get())).json();
        if let Some(ext) = message.ext
            && message::is_object(ext)
        {
            publish = publish
                .properties(Properties { ext: Some(slice(source, ext.get())), ..Properties::default() });
        }
        if let Some(member) = member {
            let echo = if own_copy { Echo::Deliver } else { Echo::Skip };
            publish = publish.from(member.subscriber.key(), echo);
        }
        match self.broker.publish(publish) {
            Ok(_) => {
                self.counters().published();
                Ok(())
            }
            Err(PublishError::TooLarge { max, .. }) => Err(Fault::MessageTooLarge { max }),
            Err(PublishError::ChannelCharacter { character, .. }) => Err(Fault::ChannelCharacter(character)),
            Err(PublishError::TooManyLevels { max, .. }) => Err(Fault::TooManyLevels { max }),
            Err(PublishError::Busy { .. }) => Err(Fault::Busy),
            Err(PublishError::Closed) => Err(Fault::Closed),
            Err(_) => Err(Fault::ChannelCreateDenied(Denial::Policy)),
        }
    }

    /// Whether a channel may be used that may not exist yet.
    pub(super) fn allow_creation(
        &self,
        principal: &Principal,
        bucket: &RateLimit,
        channel: &Channel,
    ) -> Result<(), Denial> {
        let per_second = self.config().max_new_channels_per_second;
        let guards = self.policy.guards_creation();
        if (!guards && per_second == 0) || self.broker.channel(channel).is_some() {
            return Ok(());
        }
        if guards {
            self.policy.can_create(principal, channel)?;
        }
        if per_second != 0 && !bucket.take(self.common.age(), per_second) {
            return Err(Denial::Because("too_many_new_channels".into()));
        }
        Ok(())
    }

    pub(super) async fn serve(
        &self,
        source: &Bytes,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let name = message.channel.and_then(message::string).unwrap_or_default();
        let Some(handler) = self.services.find(&name) else {
            self.counters().unhandled_service();
            if self.config().refuse_unhandled_services {
                return Err(Fault::ServiceUnhandled);
            }
            self.succeed(message, outcome, |_| {});
            return Ok(());
        };
        let Some(call) = Call::begin(&self.common, member) else { return Err(Fault::Busy) };
        let request = ServiceRequest {
            channel: name.clone().into_owned(),
            data: message.data.map(|data| slice(source, data.get())).unwrap_or_default(),
            ext: message.ext.map(|ext| slice(source, ext.get())),
            client: Some(member.id),
            principal: member.principal.clone(),
        };
        let mut handling = handler(request);
        let ready = std::future::poll_fn(|cx| Poll::Ready(handling.as_mut().poll(cx))).await;
        let id = message.id.map(|id| Box::<str>::from(id.get()));
        match ready {
            Poll::Ready(ServiceReply::Refused(error)) => return Err(Fault::Refused(error)),
            Poll::Ready(reply) => deliver_service_reply(&self.common, member, &name, id.as_deref(), &reply),
            // A handler that takes its time answers on its own; the batch goes on.
            Poll::Pending => {
                let (name, timeout) = (name.into_owned(), self.config().service_timeout);
                tokio::spawn(async move {
                    let reply = tokio::time::timeout(timeout, handling).await.unwrap_or_else(|_| {
                        call.common.counters.late_service();
                        ServiceReply::Failed(Bytes::from_static(b"\"timeout\""))
                    });
                    deliver_service_reply(&call.common, &call.member, &name, id.as_deref(), &reply);
                });
            }
        }
        self.succeed(message, outcome, |_| {});
        Ok(())
    }

    pub(super) async fn anonymous(&self, caller: &Caller<'_>) -> Result<Principal, Fault> {
        let denied = |_| Fault::PublishDenied(Denial::Policy);
        self.policy.can_handshake(caller.credentials, None).await.map_err(denied)
    }
}

/// The bytes of a part of `source`, shared if that pays.
fn slice(source: &Bytes, part: &str) -> Bytes {
    if part.len() < COPY_BELOW_BYTES {
        Bytes::copy_from_slice(part.as_bytes())
    } else {
        source.slice_ref(part.as_bytes())
    }
}

/// A call that may wait for its handler; counted while it is there.
struct Call {
    common: Arc<Common>,
    member: Arc<Member>,
}

impl Call {
    /// `None` if too many wait already.
    fn begin(common: &Arc<Common>, member: &Arc<Member>) -> Option<Self> {
        let config = &common.config;
        let take = |count: &AtomicUsize, max| {
            let more = |count: usize| (count < max).then_some(count + 1);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if !take(&member.service_calls, config.max_service_calls_per_session) {
            return None;
        }
        if !take(&common.service_calls, config.max_service_calls) {
            member.service_calls.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { common: Arc::clone(common), member: Arc::clone(member) })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.member.service_calls.fetch_sub(1, Ordering::Relaxed);
        self.common.service_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn deliver_service_reply(
    common: &Common,
    member: &Member,
    channel: &str,
    id: Option<&str>,
    reply: &ServiceReply,
) {
    if let Some(answer) = service_answer(channel, id, reply, &common.config) {
        member.mailbox.deliver_direct(Instant::now(), answer);
    }
}
