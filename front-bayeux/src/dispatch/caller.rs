//! Who sent a request, and how; and which session one of its messages may speak for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use broker_core::{Credentials, Encryption};
use front::RefusedLine;
use http::{HeaderMap, HeaderValue};

use crate::codec::id::ClientId;
use crate::codec::message::{self, Message};
use crate::config::Transport;
use crate::error::Fault;
use crate::protocol::End;
use crate::sessions::member::Member;
use crate::sessions::socket::Socket;
use crate::sessions::{Sessions, Unborn};

/// The client's name for itself. It is looked for when it is asked for: by a handshake, and most requests are none.
#[derive(Clone, Copy)]
pub(crate) enum UserAgent<'a> {
    In(&'a HeaderMap),
    Known(Option<&'a str>),
}

impl<'a> UserAgent<'a> {
    /// The name, if it is text.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Self::In(headers) => http_edge::user_agent(headers),
            Self::Known(text) => text,
        }
    }
}

/// Who sent a request, and how.
pub(crate) struct Caller<'a> {
    pub(crate) transport: Transport,
    /// The browser's cookie, over HTTP.
    pub(crate) browser: Option<&'a str>,
    /// More cookies of that name: one may be of the session that another path's server made.
    pub(crate) more_browsers: &'a [&'a str],
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) user_agent: UserAgent<'a>,
    /// What the request is called in the log: the one that opened it, of a WebSocket without a session.
    pub(crate) request: Option<&'a HeaderValue>,
    /// What HTTP's headers presented.
    pub(crate) credentials: Credentials<'a>,
    /// Tokens that are tried if that of `credentials` is none that is known.
    pub(crate) more_tokens: &'a [Box<str>],
    /// Whether who this is was seen in a request that nobody has any more.
    pub(crate) lacks_request: bool,
    /// The socket, over WebSocket.
    pub(crate) socket: Option<&'a mut SocketCaller>,
}

/// What a WebSocket knows of its sessions.
pub(crate) struct SocketCaller {
    /// Made with the socket, until a handshake turns it into a session.
    pub(crate) unborn: Option<Unborn>,
    pub(crate) socket: Socket,
    /// The session that shook hands here, or that the first message named.
    pub(crate) member: Option<Arc<Member>>,
    /// When the held connect's time is over.
    pub(crate) held_until: Option<Instant>,
}

impl Caller<'_> {
    /// What the log says of who is refused.
    pub(super) fn refused<'a>(&'a self, member: Option<&'a Member>) -> RefusedLine<'a> {
        let mut line = RefusedLine::default();
        line.remote = self.remote.map(|remote| remote.ip());
        line.request = self.request.and_then(|id| id.to_str().ok());
        line.user = member.and_then(|member| member.principal.user());
        line.connection = member.map(|member| member.subscriber.key());
        line
    }

    /// The session that a message names, if the caller may use it.
    pub(super) fn identify(
        &mut self,
        message: &Message<'_>,
        sessions: &Sessions,
    ) -> Result<Arc<Member>, Fault> {
        let id = message.client_id.and_then(message::string).ok_or(Fault::SessionUnknown)?;
        let id = ClientId::parse(&id).ok_or(Fault::SessionUnknown)?;
        let member = match &mut self.socket {
            Some(socket) => socket.find(&id, sessions)?,
            None => {
                let member = sessions.registry.find(&id).ok_or(Fault::SessionUnknown)?;
                if !self.is_browser_of(&member) && !sessions.config().trust_client_session {
                    return Err(Fault::SessionUnknown);
                }
                member
            }
        };
        member.note_alive();
        match member.mailbox.end() {
            None => Ok(member),
            // Its next connect is still told that it shall stay away.
            Some(End::Kicked) if message.channel.is_some_and(|c| c.get() == "\"/meta/connect\"") => {
                sessions.forget(&member, End::Kicked);
                Ok(member)
            }
            Some(end @ (End::QueueFull | End::ReplayLost)) => {
                sessions.forget(&member, end);
                Err(Fault::SessionLost(if end == End::QueueFull { "queue_full" } else { "replay_lost" }))
            }
            Some(_) => Err(Fault::SessionUnknown),
        }
    }

    fn is_browser_of(&self, member: &Member) -> bool {
        let mut known = self.browser.into_iter().chain(self.more_browsers.iter().copied());
        member.browser.as_deref().is_some_and(|own| known.any(|browser| browser == own))
    }
}

impl SocketCaller {
    /// The session of this id, if it is the socket's or may become it.
    fn find(&mut self, id: &ClientId, sessions: &Sessions) -> Result<Arc<Member>, Fault> {
        if let Some(member) = &self.member {
            if member.id == *id {
                return Ok(Arc::clone(member));
            }
            // A session that is over leaves the socket to the next one.
            if member.mailbox.end().is_none() {
                return Err(Fault::SessionUnknown);
            }
        }
        if sessions.config().websocket.require_handshake_per_connection {
            return Err(Fault::SessionUnknown);
        }
        let member = sessions.registry.find(id).ok_or(Fault::SessionUnknown)?;
        self.member = Some(Arc::clone(&member));
        Ok(member)
    }
}
