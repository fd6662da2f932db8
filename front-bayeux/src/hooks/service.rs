//! `/service/...`: messages between one client and the embedding service; they are never broadcast.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use broker_core::Principal;
use bytes::Bytes;
use dashmap::DashMap;

use crate::codec::id::ClientId;

/// A message to a service channel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceRequest {
    /// Its channel, e.g. `/service/echo`.
    pub channel: String,
    /// JSON text of `data`; empty if it was absent.
    pub data: Bytes,
    /// JSON text of `ext`.
    pub ext: Option<Bytes>,
    /// The session it came from; `None` without one.
    pub client: Option<ClientId>,
    /// As whom it shook hands.
    pub principal: Principal,
}

/// What a handler gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceReply {
    /// Only the message's own reply, `successful:true`.
    Accepted,
    /// Also a message on the same channel and `id` with this `data` (JSON text): the answer to a
    /// remote call. Text that is not JSON goes as a string.
    Data(Bytes),
    /// As [`ServiceReply::Data`], but `successful:false`: the remote call failed.
    Failed(Bytes),
    /// The message's own reply is `successful:false` with this error, `CCC:args:text`.
    Refused(Cow<'static, str>),
}

/// The future of a handler.
pub type Handling = Pin<Box<dyn Future<Output = ServiceReply> + Send>>;

type Handler = Arc<dyn Fn(ServiceRequest) -> Handling + Send + Sync>;

/// Handlers by channel; `/service/x/*` and `/service/x/**` are taken too, the exact name first.
#[derive(Default)]
pub(crate) struct Services(DashMap<Box<str>, Handler>);

impl Services {
    pub(crate) fn insert<F, R>(&self, channel: &str, handler: F)
    where
        F: Fn(ServiceRequest) -> R + Send + Sync + 'static,
        R: Future<Output = ServiceReply> + Send + 'static,
    {
        self.0.insert(channel.into(), Arc::new(move |request| Box::pin(handler(request))));
    }

    pub(crate) fn remove(&self, channel: &str) -> bool {
        self.0.remove(channel).is_some()
    }

    /// The handler for a channel, copied out.
    pub(crate) fn find(&self, channel: &str) -> Option<Handler> {
        if self.0.is_empty() {
            return None;
        }
        if let Some(handler) = self.0.get(channel) {
            return Some(Arc::clone(&handler));
        }
        let (parent, _) = channel.rsplit_once('/')?;
        if let Some(handler) = self.0.get(&*format!("{parent}/*")) {
            return Some(Arc::clone(&handler));
        }
        let mut ancestor = parent;
        loop {
            if let Some(handler) = self.0.get(&*format!("{ancestor}/**")) {
                return Some(Arc::clone(&handler));
            }
            ancestor = ancestor.rsplit_once('/')?.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_handler_answers() {
        let services = Services::default();
        for name in ["/service/a", "/service/a/*", "/service/**"] {
            services.insert(name, |_| async { ServiceReply::Accepted });
        }
        let cases =
            [("/service/a", true), ("/service/a/b", true), ("/service/x/y/z", true), ("/other/a", false)];
        for (channel, found) in cases {
            assert_eq!(services.find(channel).is_some(), found, "{channel}");
        }
        assert!(services.remove("/service/**") && services.find("/service/x").is_none());
    }
}
