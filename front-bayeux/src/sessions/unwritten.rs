//! When a connect's reply was written: only from then on is its client's time to come again counted.

use std::sync::Weak;

use bytes::Bytes;

use super::mailbox::Mailbox;

/// A connect's reply on its way. It is dropped when the reply was written, or will never be.
#[derive(Debug)]
pub(crate) struct UnwrittenReply {
    mailbox: Weak<Mailbox>,
    token: u64,
}

impl UnwrittenReply {
    pub(super) fn new(mailbox: Weak<Mailbox>, token: u64) -> Self {
        Self { mailbox, token }
    }
}

impl Drop for UnwrittenReply {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.reply_written(self.token);
        }
    }
}

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
