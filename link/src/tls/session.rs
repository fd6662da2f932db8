//! What lies between plain bytes and records: the state of one connection, without its socket.

use std::io;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

use super::MAX_RECORD;

/// After the handshake. rustls keeps no buffers here; what is in these is there only as long as it waits for something.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Read from the socket, and by nobody yet.
    plain: Vec<u8>,
    /// Bytes of `plain` that were read.
    read: usize,
    /// Records that were begun to be written.
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that are written.
    written: usize,
    /// The peer says nothing more.
    pub(super) ended: bool,
    failed: bool,
    said_goodbye: bool,
    /// The last byte that an outbox gave is in `outgoing`, and was not said to be taken.
    pub(super) owes: bool,
}

/// Where plain bytes go: says how many of them it took.
pub(super) type Take<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

impl Session {
    /// `incoming` and `plain` came behind the handshake.
    pub(super) fn new(tls: UnbufferedServerConnection, incoming: &[u8], plain: &[u8]) -> Self {
        Self {
            tls,
            // Copies: what the handshake needed would stay.
            incoming: incoming.into(),
            plain: plain.into(),
            read: 0,
            outgoing: Vec::new(),
            written: 0,
            ended: false,
            failed: false,
            said_goodbye: false,
            owes: false,
        }
    }

    /// What was decrypted and not read.
    pub(super) fn plain(&self) -> &[u8] {
        self.plain.get(self.read..).unwrap_or_default()
    }

    /// So much of it was read.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.read += bytes;
        if self.read >= self.plain.len() {
            // An idle connection has no buffers.
            (self.plain, self.read) = (Vec::new(), 0);
        }
    }

    /// What is to be written before anything else.
    pub(super) fn outgoing(&self) -> &[u8] {
        self.outgoing.get(self.written..).unwrap_or_default()
    }

    /// So much of it is written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= self.outgoing.len() {
            (self.outgoing, self.written) = (Vec::new(), 0);
        }
    }

    /// Records that the socket did not take.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.outgoing.extend_from_slice(rest);
    }

    /// Decrypts what has come; how many plain bytes there were. Those that are not taken wait in `plain`.
    pub(super) fn receive(&mut self, new: &mut [u8], take: Take<'_>) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let outcome = if self.incoming.is_empty() {
            let (outcome, used) = self.process(new, take);
            self.incoming.extend_from_slice(new.get(used..).unwrap_or_default());
            outcome
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(new);
            let (outcome, used) = self.process(&mut incoming, take);
            if used < incoming.len() {
                incoming.drain(..used);
                self.incoming = incoming;
            }
            outcome
        };
        let outcome = match outcome {
            // Only a message of a handshake could be longer, and there is none after it that is.
            Ok(_) if self.incoming.len() > MAX_RECORD => Err(io::ErrorKind::InvalidData.into()),
            outcome => outcome,
        };
        if outcome.is_err() {
            self.fail();
        }
        outcome
    }

    /// Plain bytes that there were, and how many of `bytes` are done with.
    fn process(&mut self, bytes: &mut [u8], take: Take<'_>) -> (io::Result<usize>, usize) {
        let (mut produced, mut used) = (0, 0);
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(rest);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    add_alerts(&mut self.tls, &mut self.outgoing);
                    return (Err(invalid(error)), used + discard);
                }
            };
            let goes_on = match state {
                ConnectionState::ReadTraffic(mut traffic) => loop {
                    match traffic.next_record() {
                        None => break Ok(true),
                        Some(Err(error)) => break Err(invalid(error)),
                        Some(Ok(record)) => {
                            produced += record.payload.len();
                            // In order: what waits already is older.
                            let taken = if self.plain.is_empty() { take(record.payload) } else { 0 };
                            self.plain.extend_from_slice(record.payload.get(taken..).unwrap_or_default());
                        }
                    }
                },
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut self.outgoing, |out| data.encode(out)).map(|()| true)
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    Ok(true)
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    Ok(true)
                }
                ConnectionState::Closed => {
                    self.ended = true;
                    Ok(false)
                }
                ConnectionState::WriteTraffic(_) => Ok(false),
                // No early data is accepted, and no handshake follows the first.
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
            used += discard;
            match goes_on {
                Ok(true) => {}
                Ok(false) => return (Ok(produced), used),
                Err(error) => return (Err(error), used),
            }
        }
    }

    /// Nothing is read or written any more, but the alert that says why.
    fn fail(&mut self) {
        self.failed = true;
        self.incoming = Vec::new();
    }

    /// Puts a record of `bytes` into `out`, and before it whatever has to go first: how much of `out` that is.
    /// [`RECORD_ROOM`](super::RECORD_ROOM) is enough for what fits into one record.
    pub(super) fn encrypt(&mut self, bytes: &[u8], out: &mut [u8]) -> io::Result<usize> {
        self.write_with(out, |traffic, out| traffic.encrypt(bytes, out))
    }

    /// Makes the alert that says that nothing more comes, once, behind all that was begun.
    pub(super) fn say_goodbye(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.said_goodbye, true) || self.failed {
            return Ok(());
        }
        let mut alert = [0; 1 << 10];
        let length = self.write_with(&mut alert, |traffic, out| traffic.queue_close_notify(out))?;
        self.outgoing.extend_from_slice(alert.get(..length).unwrap_or_default());
        Ok(())
    }

    fn write_with(
        &mut self,
        out: &mut [u8],
        mut write: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut length = 0;
        loop {
            let room = out.get_mut(length..).unwrap_or_default();
            // With what rustls has seen of the next record, as it remembers where that lies.
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let done = match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    length += write(&mut traffic, room).map_err(io::Error::other)?;
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    length += data.encode(room).map_err(io::Error::other)?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        self.plain.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                    false
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    false
                }
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            if discard > 0 {
                self.incoming.drain(..discard);
            }
            if done {
                return Ok(length);
            }
        }
    }
}

type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

/// Appends what `write` makes, however much it is.
pub(super) fn encode(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let (before, mut room) = (out.len(), 1 << 10);
    loop {
        out.resize(before + room, 0);
        let outcome = write(out.get_mut(before..).unwrap_or_default());
        out.truncate(before + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(_) => return Ok(()),
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// What the peer is told of its mistake, appended. rustls is not to look at what comes behind the mistake: only at
/// what it has to say itself.
pub(super) fn add_alerts(tls: &mut UnbufferedServerConnection, out: &mut Vec<u8>) {
    while tls.wants_write() {
        match tls.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                if encode(out, |out| data.encode(out)).is_err() {
                    return;
                }
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
            _ => return,
        }
    }
}

pub(super) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
