//! What another broker keeps, taken over.

use std::sync::Arc;

use super::Broker;
use crate::clock::steady_ms;
use crate::message::Publish;

impl Broker {
    /// Takes what another broker keeps as a channel's retained message, published there at `time_ms` in milliseconds since
    /// 1970; false if this one keeps one that was published then or later, has no place for it, or has an engine that keeps
    /// the channel. Nobody is sent it but who subscribes later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use broker_core::{Broker, Channel, Config, Publish};
    /// # let broker = Broker::new(Config::default());
    /// let lamp = || Publish::new(Channel::parse("lamp").unwrap(), "on");
    /// assert!(broker.adopt_retained(lamp(), 17));
    /// assert!(!broker.adopt_retained(lamp(), 17));
    /// # Ok(()) }
    /// ```
    pub fn adopt_retained(&self, publish: Publish, time_ms: u64) -> bool {
        let shared = self.shared();
        let publish = publish.retain(true);
        if publish.payload().is_empty()
            || shared.engine_of(publish.channel()).is_some()
            || shared.check(&publish).is_err()
        {
            return false;
        }
        let now = steady_ms();
        let message = Arc::new(publish.into_message_at(shared.log.epoch(), time_ms, now));
        shared.retained.set_newer(message, now).is_ok()
    }
}
