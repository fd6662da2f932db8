//! The last bytes to a client, in MQTT's terms and in WebSocket's.

use bytes::{Bytes, BytesMut};
use websocket::CloseCode;

use crate::codec::{self, Framing, Reason};
use crate::config::Config;
use crate::protocol::Online;

/// DISCONNECT, where the version has it and the client takes one of that size, and a close frame, where there
/// are frames.
pub(crate) fn goodbye(config: &Config, online: &Online, reason: Reason, why: Option<&str>) -> Bytes {
    let (dialect, max_packet_bytes) = (online.dialect, online.max_packet_bytes as usize);
    // In a frame it is two bytes longer, which costs a client with such a bound the text.
    let full = codec::disconnect(dialect, reason, why.filter(|_| config.reason_strings));
    let last = if full.len() > max_packet_bytes { codec::disconnect(dialect, reason, None) } else { full };
    with_close_frame(dialect.framing, last, reason, why)
}

/// Puts a close frame behind the last packet: pages see its code even where version 3 has no packet to say it.
pub(crate) fn with_close_frame(framing: Framing, last: Bytes, reason: Reason, why: Option<&str>) -> Bytes {
    if framing == Framing::Raw {
        return last;
    }
    let close = websocket::encode::close(close_code(reason), why.unwrap_or_else(|| words(reason)));
    let mut both = BytesMut::with_capacity(last.len() + close.len());
    both.extend_from_slice(&last);
    both.extend_from_slice(&close);
    both.freeze()
}

/// What a page is told where nothing more is to be said.
fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::ServerShuttingDown => "the server is shutting down",
        Reason::KeepAliveTimeout => "nothing came for one and a half keep alives",
        Reason::SessionTakenOver => "another connection has the client identifier",
        _ => "",
    }
}

fn close_code(reason: Reason) -> CloseCode {
    match reason {
        Reason::Success | Reason::DisconnectWithWill => CloseCode::Normal,
        Reason::ServerShuttingDown => CloseCode::Away,
        Reason::MalformedPacket | Reason::ProtocolError => CloseCode::Protocol,
        Reason::PacketTooLarge => CloseCode::Size,
        Reason::ServerUnavailable | Reason::ServerBusy => CloseCode::Again,
        _ => CloseCode::Policy,
    }
}
