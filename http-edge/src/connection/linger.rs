//! The end of a connection whose client may still be sending.

use std::time::Duration;

use link::NetStream;
use tokio::time::timeout;

/// Longest time that a client is listened to after the last answer.
pub(crate) const MAX_LINGER: Duration = Duration::from_secs(10);

/// Longest silence while it is.
const MAX_LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Reads what a client still sends after the last answer, and forgets it. Closing the socket over it would reset the
/// connection, and the client lose an answer that it has not read yet: the 413 to a body that it is still sending.
pub(crate) async fn linger(stream: &NetStream) {
    while let Ok(Ok(())) = timeout(MAX_LINGER_SILENCE, stream.readable()).await {
        let mut forgotten = [0; 8 << 10];
        match stream.try_read(&mut forgotten) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
