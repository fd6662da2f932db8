//! What a session's mutex guards.

use broker_core::{Filter, Kind, Message};

use super::socket::Socket;
use crate::codec::event::Replay;
use crate::codec::id::ClientId;
use crate::protocol::Session;
use crate::protocol::duplicates::Duplicates;

/// See the module.
pub(crate) struct State {
    /// Whose session it is; none shook hands yet on a socket that was just opened.
    pub(super) id: Option<ClientId>,
    pub(crate) session: Session,
    pub(crate) socket: Option<Socket>,
    pub(super) replay: Replay,
    /// When its operator was last told that it has no room, in seconds since the front's start.
    pub(super) warned_secs: u32,
    /// Events that were for its client.
    pub(super) sent: u32,
    /// While a replay runs.
    duplicates: Option<Box<Duplicates>>,
}

impl State {
    /// A session whose client is not known yet.
    pub(super) fn new(session: Session) -> Self {
        Self {
            id: None,
            session,
            socket: None,
            replay: Replay::Plain,
            warned_secs: 0,
            sent: 0,
            duplicates: None,
        }
    }

    /// A replay is about to begin.
    pub(super) fn begin_replay(&mut self, tag: u32, epoch: Option<u64>, filter: Filter, after: u64) {
        self.duplicates = Some(Box::new(Duplicates::new(tag, epoch, filter, after)));
    }

    pub(super) fn end_replay(&mut self) {
        self.duplicates = None;
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.duplicates.is_some()
    }

    /// What the running replay brings, for whoever makes or ends another subscription of the session.
    pub(super) fn duplicates(&mut self) -> Option<&mut Duplicates> {
        self.duplicates.as_deref_mut()
    }

    /// Whether no replay has brought a message that its client may see.
    pub(super) fn admits(&mut self, message: &Message, kind: Kind) -> bool {
        self.duplicates.as_mut().is_none_or(|duplicates| duplicates.admits(message, kind))
    }

    /// Counts what the socket's outbox has thrown away.
    pub(crate) fn count_drops(&mut self) {
        if let Some(socket) = &mut self.socket {
            let dropped = socket.count_drops();
            self.session.note_dropped(dropped);
        }
    }

    /// Whether the session's socket is the connection `number`.
    pub(crate) fn is_bound_to(&self, number: u64) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.number == number)
    }

    /// The socket that an event goes to straight away, past the queue.
    pub(super) fn pushing_socket(&self) -> Option<&Socket> {
        self.socket.as_ref().filter(|socket| self.session.pushes() && socket.is_open())
    }
}
