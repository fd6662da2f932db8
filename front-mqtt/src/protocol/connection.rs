//! One connection after CONNACK: what the client sends, and what is to be done about it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Principal, Publish, Qos, Queued};
use bytes::Bytes;

use super::alias::IncomingAliases;
use super::connecting::{Negotiated, Told};
use super::delivering::Backlog;
use super::end::End;
use super::scope::is_another;
use super::session::Session;
use super::subscribing::{Subscribing, Target, Unsubscribing};
use super::wire::Wire;
use crate::codec::{self, AckKind, DecodeError, Dialect, Disconnect, Packet, Reason};

/// What the transport has to do. It does them in order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this.
    Reply(Bytes),
    /// Publish, then call [`Connection::handle_published`].
    Publish(Publishing),
    /// Free this identifier of a QoS 2 publish that is kept, then call [`Connection::handle_freed`].
    Free(u16),
    /// Subscribe, then call [`Connection::handle_subscribed`].
    Subscribe(Subscribing),
    /// Unsubscribe, then send the reply in it.
    Unsubscribe(Unsubscribing),
    /// Go on with the mechanism, then call [`Connection::handle_authenticated`].
    Authenticate(Authenticating),
    /// Send this, which may be empty, and end the connection.
    Close(Bytes, End),
}

/// A publish on its way into the broker.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) publish: Publish,
    pub(crate) packet_id: u16,
    pub(crate) qos: Qos,
}

/// An AUTH packet's part in a re-authentication.
#[derive(Debug)]
pub(crate) struct Authenticating {
    /// The exchange starts anew.
    pub(crate) begins: bool,
    pub(crate) data: Box<[u8]>,
}

/// What the mechanism made of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The client is to answer this.
    Continue(Vec<u8>),
    /// The client is known, with a last word for it.
    Done(Principal, Vec<u8>),
    /// It is not.
    Failed,
}

/// Why something was refused, in words for the client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why<'a> {
    /// More words for what the reason code says.
    Explained(&'a str),
    /// The words of whoever decides, which no code has.
    Decided(&'a str),
}

/// One transport's life.
pub(crate) struct Connection {
    pub(super) session: Arc<Session>,
    /// Its number in the session.
    pub(super) number: u32,
    pub(super) dialect: Dialect,
    pub(super) principal: Principal,
    pub(super) outputs: VecDeque<Output>,
    last_heard: Instant,
    pub(super) is_bridge: bool,
    told: Told,
    /// Largest packet the client takes, in bytes.
    max_packet_bytes: u32,
    /// Whether the session was to end with the connection when it began: then DISCONNECT cannot change it.
    expiry_was_zero: bool,
    closing: bool,
    /// Zero means no limit.
    max_silence_ms: u32,
    rare: Option<Box<Rare>>,
}

/// What few connections have, so that the others need not hold the place for it.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) aliases: IncomingAliases,
    auth_method: Option<Box<str>>,
    /// When the credentials end.
    expires: Option<Instant>,
    /// Why the connection ends, in words.
    why: Option<Box<str>>,
}

impl Connection {
    pub(crate) fn new(
        now: Instant,
        session: Arc<Session>,
        number: u32,
        principal: Principal,
        terms: &Negotiated,
        auth_method: Option<Box<str>>,
    ) -> Self {
        session.note_heard(now);
        Self {
            session,
            number,
            dialect: terms.dialect,
            principal,
            outputs: VecDeque::new(),
            last_heard: now,
            is_bridge: terms.is_bridge,
            told: terms.told,
            max_packet_bytes: terms.max_packet_bytes,
            expiry_was_zero: terms.session_expiry_secs == 0,
            closing: false,
            max_silence_ms: terms.max_silence_ms,
            rare: auth_method.map(|method| Box::new(Rare { auth_method: Some(method), ..Rare::default() })),
        }
    }

    /// The session's backlog has a turn.
    pub(crate) fn handle_backlog(&mut self, now_ms: u64, wire: &mut impl Wire) -> Backlog {
        self.session.handle_backlog(self.number, now_ms, wire)
    }

    /// More waits for the client than may: it is told, and the connection ends. What waits, if it is to be logged.
    pub(crate) fn handle_overrun(&mut self, now: Instant) -> Option<Queued> {
        if self.closing {
            return None;
        }
        self.close(Reason::QuotaExceeded, Some("more messages wait than may for a client that is connected"));
        self.session.note_overrun(self.number, now)
    }

    /// As whom the client is here.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn auth_method(&self) -> Option<&str> {
        self.rare.as_ref().and_then(|rare| rare.auth_method.as_deref())
    }

    /// Why the connection ends, in words.
    pub(crate) fn why(&self) -> Option<&str> {
        self.rare.as_ref().and_then(|rare| rare.why.as_deref())
    }

    /// What to do next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > 0 {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Gives back an output that is not done yet: it is the next again.
    pub(crate) fn put_back(&mut self, output: Output) {
        self.outputs.push_front(output);
    }

    /// Whether something is to be done yet before the next packet is handled.
    pub(crate) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When [`Connection::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.silent_until();
        silence.into_iter().chain(self.expires()).min()
    }

    fn expires(&self) -> Option<Instant> {
        self.rare.as_ref().and_then(|rare| rare.expires)
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn aliases(&self) -> Option<&IncomingAliases> {
        self.rare.as_ref().map(|rare| &rare.aliases)
    }

    fn silent_until(&self) -> Option<Instant> {
        let silence = Duration::from_millis(u64::from(self.max_silence_ms));
        if silence.is_zero() { None } else { self.last_heard.checked_add(silence) }
    }

    /// Closes if the client was silent for one and a half keep alives (MQTT 5.0 §3.1.2.10), or if its
    /// credentials have ended.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.silent_until().is_some_and(|due| due <= now) {
            self.close(Reason::KeepAliveTimeout, None);
        } else if self.expires().is_some_and(|due| due <= now) {
            self.close(Reason::MaximumConnectTime, Some("the credentials have expired"));
        }
    }

    /// Sets when the credentials end, by both clocks.
    pub(crate) fn expire(&mut self, now: Instant, now_ms: u64) {
        let expires = self
            .principal
            .expires_at_ms()
            .and_then(|end| now.checked_add(Duration::from_millis(end.saturating_sub(now_ms))));
        if expires.is_some() || self.rare.is_some() {
            self.rare_mut().expires = expires;
        }
    }

    /// When bytes last arrived, or could have.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Bytes arrived, whole packets or not.
    pub(crate) fn handle_sign_of_life(&mut self, now: Instant) {
        self.last_heard = now;
        self.session.note_heard(now);
    }

    /// A packet from the client. `buffer` is what it was parsed from, if payloads may keep that alive.
    pub(crate) fn handle_packet(
        &mut self,
        now_ms: u64,
        packet: Packet<'_>,
        buffer: Option<&Bytes>,
        wire: &mut impl Wire,
    ) {
        if self.closing {
            return;
        }
        if let Err(error) = self.dispatch(now_ms, packet, buffer, wire) {
            self.handle_error(&error);
        }
    }

    /// The client broke a rule: it is told, and the connection ends.
    pub(crate) fn handle_error(&mut self, error: &DecodeError) {
        self.close(error.reason, Some(error.detail));
    }

    fn dispatch(
        &mut self,
        now_ms: u64,
        packet: Packet<'_>,
        buffer: Option<&Bytes>,
        wire: &mut impl Wire,
    ) -> Result<(), DecodeError> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(&publish, buffer)?,
            Packet::PubAck(ack) => self.acknowledged(now_ms, AckKind::PubAck, ack, wire)?,
            Packet::PubRec(ack) => self.acknowledged(now_ms, AckKind::PubRec, ack, wire)?,
            Packet::PubComp(ack) => self.acknowledged(now_ms, AckKind::PubComp, ack, wire)?,
            Packet::PubRel(ack) => self.handle_pubrel(ack),
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
            Packet::PingReq => self.outputs.push_back(Output::Reply(codec::pingresp(self.dialect.framing))),
            Packet::Disconnect(disconnect) => self.handle_disconnect(disconnect)?,
            Packet::Auth(auth) => self.handle_auth(auth)?,
            Packet::Connect(_) => return Err(DecodeError::protocol("a second CONNECT")),
        }
        Ok(())
    }

    fn acknowledged(
        &mut self,
        now_ms: u64,
        kind: AckKind,
        ack: codec::Ack,
        wire: &mut impl Wire,
    ) -> Result<(), DecodeError> {
        if let Some((kind, reason)) = self.session.handle_ack(self.number, now_ms, kind, ack, wire)? {
            self.reply(kind, ack.packet_id, reason, None);
        }
        Ok(())
    }

    fn handle_disconnect(&mut self, disconnect: Disconnect) -> Result<(), DecodeError> {
        if let Some(secs) = disconnect.session_expiry_secs {
            if self.expiry_was_zero && secs != 0 {
                return Err(DecodeError::protocol("session expiry was 0 in CONNECT and cannot be raised"));
            }
            let max = self.session.config().max_session_expiry_secs.unwrap_or(u32::MAX);
            if let Some(mut state) = self.session.lock_as(self.number) {
                state.expiry_secs = secs.min(max);
            }
        }
        let end = if disconnect.reason == Reason::Success { End::Goodbye } else { End::Lost };
        self.closing = true;
        self.outputs.push_back(Output::Close(Bytes::new(), end));
        Ok(())
    }

    fn handle_auth(&mut self, auth: codec::Auth<'_>) -> Result<(), DecodeError> {
        let Some(method) = self.auth_method() else {
            return Err(DecodeError::protocol("AUTH from a client that connected without a method"));
        };
        if auth.method != Some(method) {
            return Err(DecodeError::protocol("authentication method is not the one of CONNECT"));
        }
        self.outputs.push_back(Output::Authenticate(Authenticating {
            begins: auth.reason == Reason::ReAuthenticate,
            data: auth.data.unwrap_or_default().into(),
        }));
        Ok(())
    }

    /// The mechanism has answered. What the client may no longer hear is returned, to be ended in the broker.
    pub(crate) fn handle_authenticated(&mut self, verdict: Verdict) -> Vec<(Target, u32)> {
        let (reason, data, gone) = match verdict {
            Verdict::Continue(data) => (Reason::ContinueAuthentication, data, Vec::new()),
            Verdict::Done(principal, _) if self.becomes_another(&principal) => {
                // The session, and what waits in it, are the first one's.
                self.close(Reason::NotAuthorized, Some("authenticated again as another user"));
                return Vec::new();
            }
            Verdict::Done(principal, data) => {
                let gone = self.session.lock_as(self.number).map_or_else(Vec::new, |mut state| {
                    state.principal = Some(principal.clone());
                    state.revoke(&principal)
                });
                self.principal = principal;
                (Reason::Success, data, gone)
            }
            Verdict::Failed => {
                self.close(Reason::NotAuthorized, Some("authentication failed"));
                return Vec::new();
            }
        };
        let data = Some(&*data).filter(|data| !data.is_empty());
        let method = self.auth_method().unwrap_or_default();
        let reply = codec::auth(self.dialect.framing, reason, method, data);
        self.outputs.push_back(Output::Reply(reply));
        gone
    }

    /// Whether the session would go to another user than the one whose client identifier it has.
    fn becomes_another(&self, principal: &Principal) -> bool {
        is_another(self.session.config().client_id_scope, &self.principal, principal)
    }

    pub(super) fn reply(&mut self, kind: AckKind, packet_id: u16, reason: Reason, why: Option<Why<'_>>) {
        let why = why.and_then(|why| self.told(why));
        let reply = self.within_maximum(why, |why| codec::ack(self.dialect, kind, packet_id, reason, why));
        self.outputs.push_back(Output::Reply(reply));
    }

    /// What of it the client is told in an acknowledgement (MQTT 5.0 §3.1.2.11.7).
    pub(super) fn told<'a>(&self, why: Why<'a>) -> Option<&'a str> {
        match (self.told, why) {
            (Told::All, Why::Explained(text)) | (Told::All | Told::Decided, Why::Decided(text)) => Some(text),
            (Told::Decided, Why::Explained(_)) | (Told::Nothing, _) => None,
        }
    }

    pub(super) fn max_packet_bytes(&self) -> usize {
        self.max_packet_bytes as usize
    }

    /// A packet with its reason string, or without it if the client does not take one of that size.
    pub(super) fn within_maximum(&self, why: Option<&str>, packet: impl Fn(Option<&str>) -> Bytes) -> Bytes {
        let full = packet(why);
        if full.len() > self.max_packet_bytes as usize { packet(None) } else { full }
    }

    /// Tells the client why, in terms it can act on, and ends the connection; the session may stay.
    pub(crate) fn close(&mut self, reason: Reason, why: Option<&str>) {
        if self.closing {
            return;
        }
        self.closing = true;
        if let Some(why) = why {
            self.rare_mut().why = Some(why.into());
        }
        let said = why.filter(|_| self.session.config().reason_strings);
        let last = self.within_maximum(said, |why| codec::disconnect(self.dialect, reason, why));
        self.outputs.push_back(Output::Close(last, End::Closed(reason)));
    }
}
