//! Messages with `data`, handed to a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use super::outcome::Outcome;
use super::publish::slice;
use crate::codec::message::{self, Message};
use crate::error::Fault;
use crate::hooks::service::{ServiceReply, ServiceRequest, Services};
use crate::sessions::member::Member;
use crate::sessions::own_messages::service_answer;
use crate::sessions::shared::Shared;

/// Hands a message to the service of its channel; `source` holds its text.
pub(super) async fn call(
    services: &Services,
    shared: &Arc<Shared>,
    source: &Bytes,
    message: &Message<'_>,
    member: &Arc<Member>,
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let name = message.channel.and_then(message::string).unwrap_or_default();
    let Some(handler) = services.find(&name) else {
        shared.counters.unhandled_service();
        if shared.config.refuse_unhandled_services {
            return Err(Fault::ServiceUnhandled);
        }
        outcome.succeed(message, shared, |_| {});
        return Ok(());
    };
    let Some(call) = Call::begin(shared, member) else { return Err(Fault::Busy) };
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
        Poll::Ready(reply) => call.answer(&name, id.as_deref(), &reply),
        // A handler that takes its time answers on its own; the batch goes on.
        Poll::Pending => {
            let (name, timeout) = (name.into_owned(), shared.config.service_timeout);
            tokio::spawn(async move {
                let reply = tokio::time::timeout(timeout, handling).await.unwrap_or_else(|_| {
                    call.shared.counters.late_service();
                    ServiceReply::Failed(Bytes::from_static(b"\"timeout\""))
                });
                call.answer(&name, id.as_deref(), &reply);
            });
        }
    }
    outcome.succeed(message, shared, |_| {});
    Ok(())
}

/// A call that may wait for its handler; counted while it is there.
struct Call {
    shared: Arc<Shared>,
    member: Arc<Member>,
}

impl Call {
    /// `None` if too many wait already.
    fn begin(shared: &Arc<Shared>, member: &Arc<Member>) -> Option<Self> {
        let config = &shared.config;
        let take = |count: &AtomicUsize, max| {
            let more = |count: usize| (count < max).then_some(count + 1);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if !take(&member.service_calls, config.max_service_calls_per_session) {
            return None;
        }
        if !take(&shared.service_calls, config.max_service_calls) {
            member.service_calls.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { shared: Arc::clone(shared), member: Arc::clone(member) })
    }

    fn answer(&self, channel: &str, id: Option<&str>, reply: &ServiceReply) {
        if let Some(answer) = service_answer(channel, id, reply, &self.shared.config) {
            self.member.mailbox.deliver_direct(Instant::now(), answer);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.member.service_calls.fetch_sub(1, Ordering::Relaxed);
        self.shared.service_calls.fetch_sub(1, Ordering::Relaxed);
    }
}
