//! Numbers of QoS 2 publishes: each stands in its session's row before its message is put into the stream. Whoever has the
//! session next finds out which messages are there, and of those that are not it makes sure that they never will be.

use async_nats::HeaderMap;
use broker_core::{Channel, Filter, Unavailable};
use tokio::time::timeout;

use super::frame::{self, Content, Origin};
use super::row::{Begun, Mark};
use super::stream::{ATTEMPT, SOON, Streams};
use crate::subject::Reach;

impl Streams {
    /// What became of messages that were about to be stored: those numbers that stand for one.
    pub(crate) async fn settle(&self, marks: Vec<Mark>) -> Result<Vec<Mark>, Unavailable> {
        let mut settled = Vec::with_capacity(marks.len());
        for Mark { number, begun } in marks {
            let is_there = match &begun {
                None => true,
                Some(begun) => self.is_stored(begun).await?,
            };
            settled.extend(is_there.then_some(Mark { number, begun: None }));
        }
        Ok(settled)
    }

    async fn is_stored(&self, begun: &Begun) -> Result<bool, Unavailable> {
        // It was written down by a node, which cannot have had another name for it.
        let Ok(channel) = Channel::parse(&begun.channel) else { return Ok(false) };
        let origin = Origin { life: begun.life, number: begun.frame };
        Ok(self.holds(&channel, origin, begun.from).await? || self.is_beaten(&channel, origin).await?)
    }

    /// Whether a frame is in the stream, behind a place there.
    async fn holds(&self, channel: &Channel, origin: Origin, from: u64) -> Result<bool, Unavailable> {
        let last = self.reach().await?.last;
        let mut next = from + 1;
        for subject in self.node.subjects.kept_of_filter(&Filter::from(channel.clone())) {
            while next <= last {
                let batch = self.certain(&subject, next, last).await?;
                let is_it = |payload: &[u8]| {
                    frame::read(payload, 0).is_ok_and(|frame| {
                        frame.origin == origin && !matches!(frame.content, Content::Nothing)
                    })
                };
                if batch.messages.iter().any(|stored| is_it(&stored.payload)) {
                    return Ok(true);
                }
                match batch.messages.last() {
                    Some(newest) if !batch.is_last => next = newest.sequence + 1,
                    _ => break,
                }
            }
        }
        Ok(false)
    }

    /// Puts nothing into the stream under the name of a frame, so that it can come no more; whether it was faster.
    async fn is_beaten(&self, channel: &Channel, origin: Origin) -> Result<bool, Unavailable> {
        let Some(subject) = self.node.subjects.of_kept(channel, Reach::Wanted) else { return Ok(false) };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", origin.name().as_str());
        let sent = self.context.publish_with_headers(subject, headers, frame::nothing(origin).into());
        let stored = async { sent.await?.await };
        let stored = timeout(ATTEMPT, stored).await.map_err(|_| SOON)?.map_err(|_| SOON)?;
        if !stored.duplicate {
            return Ok(false);
        }
        // It was faster; or somebody before has put nothing there.
        let first = self.kept.get_raw_message(stored.sequence);
        let first = timeout(ATTEMPT, first).await.map_err(|_| SOON)?.map_err(|_| SOON)?;
        Ok(!frame::read(&first.payload, 0).is_ok_and(|frame| matches!(frame.content, Content::Nothing)))
    }
}
