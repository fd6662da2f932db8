//! Text that stands for the replies to connects in it, until it is written.

use bytes::Bytes;

use super::mailbox::UnwrittenReply;

/// Text with the replies that it contains. Whoever writes it lets go of it once it is written.
struct Carrier<T> {
    text: T,
    _replies: Vec<UnwrittenReply>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Carrier<T> {
    fn as_ref(&self) -> &[u8] {
        self.text.as_ref()
    }
}

/// The text as bytes that stand for these replies.
pub(crate) fn carrying<T>(text: T, replies: Vec<UnwrittenReply>) -> Bytes
where
    T: AsRef<[u8]> + Into<Bytes> + Send + 'static,
{
    if replies.is_empty() { text.into() } else { Bytes::from_owner(Carrier { text, _replies: replies }) }
}
