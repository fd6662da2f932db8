//! Messages with `data`: published to the broker, or handed to a service.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use broker_core::{Channel, Echo, Principal, Properties, Publish, PublishError};
use bytes::Bytes;

use super::{Caller, Outcome};
use crate::codec::message::{self, Message};
use crate::codec::object::Object;
use crate::error::{Denial, Fault};
use crate::front::Shared;
use crate::listener::Listener;
use crate::registry::Member;
use crate::service::{ServiceReply, ServiceRequest};

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
        let passed = |listener: &dyn Listener| {
            listener.publishing(member.map(|member| &member.id), &channel, data.get())
        };
        if self.listener().is_some_and(|listener| !passed(&*listener)) {
            return Err(Fault::MessageDeleted);
        }
        self.policy.can_publish(principal, &channel).map_err(Fault::PublishDenied)?;
        if self.policy.guards_creation() && self.broker.channel(&channel).is_none() {
            self.policy.can_create(principal, &channel).map_err(Fault::ChannelCreateDenied)?;
        }
        principal.admit(1).map_err(|wait| Fault::RateLimited {
            retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1),
        })?;
        let mut publish = Publish::new(channel, slice(source, data.get())).json();
        if let Some(ext) = message.ext
            && message::is_object(ext)
        {
            publish = publish
                .properties(Properties { ext: Some(slice(source, ext.get())), ..Properties::default() });
        }
        if let Some(member) = member {
            let echo = if self.config().broadcast_to_publisher { Echo::Deliver } else { Echo::Skip };
            publish = publish.from(member.subscriber.key(), echo);
        }
        match self.broker.publish(publish) {
            Ok(_) => {
                self.counters().published();
                Ok(())
            }
            Err(PublishError::TooLarge { max, .. }) => Err(Fault::MessageTooLarge { max }),
            Err(PublishError::Busy { .. }) => Err(Fault::Busy),
            Err(PublishError::Closed) => Err(Fault::Closed),
            Err(_) => Err(Fault::ChannelCreateDenied(Denial::Policy)),
        }
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
            Poll::Ready(reply) => {
                if let ServiceReply::Refused(error) = reply {
                    return Err(Fault::ServiceFailed(error));
                }
                deliver_service_reply(member, &name, id.as_deref(), &reply);
            }
            // A handler that takes its time answers on its own; the batch goes on.
            Poll::Pending => {
                let (member, name) = (Arc::clone(member), name.into_owned());
                tokio::spawn(async move {
                    let reply = handling.await;
                    deliver_service_reply(&member, &name, id.as_deref(), &reply);
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

fn deliver_service_reply(member: &Member, channel: &str, id: Option<&str>, reply: &ServiceReply) {
    let (data, successful) = match reply {
        ServiceReply::Data(data) => (data, true),
        ServiceReply::Failed(data) => (data, false),
        ServiceReply::Accepted | ServiceReply::Refused(_) => return,
    };
    let mut out = Vec::with_capacity(64 + channel.len() + data.len());
    let mut object = Object::new(&mut out);
    object.text("channel", channel);
    if let Some(id) = id {
        object.raw("id", id);
    }
    crate::front::put_data(&mut object, data);
    object.flag("successful", successful);
    object.finish();
    member.mailbox.deliver_direct(Instant::now(), out.into());
}
