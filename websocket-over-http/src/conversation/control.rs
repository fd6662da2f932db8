//! What an origin says of its client beside messages, and what that does with time.

use std::time::{Duration, Instant};

use broker_core::{Channel, Filter, steady_ms};
use grip::control::Control;
use grip::instruct::KeepAliveMode;

use super::Conversation;

/// No timer is set further ahead.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Messages that may be delayed at a time, and their bytes.
const MAX_DELAYED: usize = 100;
const MAX_DELAYED_BYTES: usize = 256 << 10;
/// What may be known of one client, in bytes.
const MAX_META_BYTES: usize = 16 << 10;

impl Conversation {
    pub(super) async fn control(&mut self, control: Control) -> Result<(), String> {
        match control {
            Control::Subscribe { channel, filters } => {
                let filter = self.filter(&channel)?;
                if !filters.is_empty() {
                    self.member.frames.backlog.take_all(true);
                }
                let tag = self.channels.add(&channel, filters);
                let subscribed = self.member.subscribe(&filter, tag).map(|_| ());
                subscribed.map_err(|error| error.to_string())?;
                let settled = self.hub.broker.settled(&filter).await;
                settled.map_err(|error| error.to_string())?;
            }
            Control::Unsubscribe { channel } => {
                let filter = self.filter(&channel)?;
                self.member.subscriber.unsubscribe_all(&filter);
                self.channels.remove(&channel);
            }
            Control::Detach => self.exchange.detach(),
            Control::SetMeta { name, value } => {
                self.channels.meta.set(name, value);
                if self.channels.meta.bytes() > MAX_META_BYTES {
                    return Err(format!("more than {MAX_META_BYTES} bytes of metadata"));
                }
            }
            Control::KeepAlive(wanted) => {
                self.keep_alive = wanted.map(|kept| {
                    let due = Instant::now() + kept.timeout;
                    (kept, due)
                });
            }
            Control::SendDelayed(delayed) => {
                let bytes: usize = self.delayed.iter().map(|(_, one)| one.message.content.len()).sum();
                let is_over = bytes + delayed.message.content.len() > MAX_DELAYED_BYTES;
                if self.delayed.len() >= MAX_DELAYED || is_over {
                    return Err("too much is delayed".to_owned());
                }
                self.delayed.push_back((Instant::now() + delayed.timeout, delayed));
            }
            Control::FlushDelayed => {
                for (_, one) in std::mem::take(&mut self.delayed) {
                    self.send(one.message.kind, &one.message.content);
                }
            }
            // Connections are what they are here: a client that comes again is another one.
            _ => {}
        }
        Ok(())
    }

    fn filter(&self, channel: &str) -> Result<Filter, String> {
        let name = format!("{}{channel}", self.rules.channel_prefix);
        let channel = Channel::parse(&name).map_err(|error| error.to_string())?;
        Ok(Filter::literal(channel))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let kept = self.keep_alive.as_ref().map(|(_, due)| *due);
        let delayed = self.delayed.iter().map(|(due, _)| *due).min();
        let due = [self.exchange.poll_timeout(), kept, delayed].into_iter().flatten().min()?;
        Some(due.min(Instant::now() + MAX_WAIT))
    }

    pub(super) fn handle_timeout(&mut self) {
        let now = Instant::now();
        if let Some((kept, due)) = &mut self.keep_alive
            && *due <= now
        {
            let idle = Duration::from_millis(steady_ms().saturating_sub(self.member.frames.last_sent_ms()));
            let left = match kept.mode {
                KeepAliveMode::Interval => Duration::ZERO,
                KeepAliveMode::Idle => kept.timeout.saturating_sub(idle),
            };
            if left.is_zero() {
                *due = now + kept.timeout;
                let message = kept.message.clone();
                self.send(message.kind, &message.content);
            } else {
                *due = now + left;
            }
        }
        for (due, one) in std::mem::take(&mut self.delayed) {
            if due <= now {
                self.send(one.message.kind, &one.message.content);
            } else {
                self.delayed.push_back((due, one));
            }
        }
    }
}
