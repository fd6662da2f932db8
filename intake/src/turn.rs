//! Many messages of one request, beside the work of others.

/// Lets others have a turn after so many messages of one request: one body may hold a million.
#[derive(Debug)]
pub struct Turn {
    left: u32,
}

/// Messages published in one turn.
const TURN: u32 = 64;

impl Turn {
    /// The first turn of a request.
    pub fn new() -> Self {
        Turn { left: TURN }
    }

    /// To be awaited before each message.
    pub async fn take(&mut self) {
        if self.left == 0 {
            self.left = TURN;
            tokio::task::yield_now().await;
        }
        self.left -= 1;
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}
