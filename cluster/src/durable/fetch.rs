//! Reads from the streams, many messages at a time: *direct get* in batches (NATS 2.11), which any copy answers.

use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::{HeaderMap, Request, StatusCode};
use broker_core::Unavailable;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::stream::{Of, SOON, Streams};

/// How long the next message of a batch may take.
const NEXT_TIMEOUT: Duration = Duration::from_secs(2);

const MAX_BATCH_MESSAGES: usize = 256;

const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    /// Its sequence in the stream that it was taken over from.
    pub(crate) source: Option<u64>,
    pub(crate) payload: Bytes,
}

/// Part of what matches, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Stored>,
    /// Whether the copy that was asked has no more.
    pub(crate) is_last: bool,
}

impl Streams {
    /// The next messages that match a subject, from a sequence on, as one of the copies has them.
    pub(crate) async fn batch(&self, of: Of, subject: &str, from: u64) -> Result<Batch, Unavailable> {
        // What does not fit what waits for this side would be lost.
        let room = self.node.settings.max_incoming_messages.saturating_sub(1);
        let batch = MAX_BATCH_MESSAGES.min(room).max(1);
        // A subject is of letters that mean nothing in JSON.
        let question = format!(
            r#"{{"seq":{},"next_by_subj":"{subject}","batch":{batch},"max_bytes":{MAX_BATCH_BYTES}}}"#,
            from.max(1)
        );
        let mut answer = Batch::default();
        let inbox = self.node.client.new_inbox();
        let mut replies = self.node.client.subscribe(inbox.clone()).await.map_err(|_| SOON)?;
        self.ask(of, question, inbox).await?;
        let mut before = None;
        loop {
            let reply = timeout(NEXT_TIMEOUT, replies.next()).await.ok().flatten().ok_or(SOON)?;
            match reply.status {
                None | Some(StatusCode::OK) => {}
                Some(StatusCode::NOT_FOUND) => {
                    answer.is_last = true;
                    return Ok(answer);
                }
                Some(code) if code.as_u16() == 204 => {
                    let left = reply.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
                    answer.is_last = left == Some(0);
                    return Ok(answer);
                }
                Some(_) => return Err(SOON),
            }
            let headers = reply.headers.ok_or(SOON)?;
            let sequence = number(&headers, "Nats-Sequence").ok_or(SOON)?;
            // It says which one of the batch came before: one that was lost on the way is asked for again.
            let said = number(&headers, "Nats-Last-Sequence").filter(|said| *said != 0);
            if said.is_some() && before.is_some() && said != before {
                return if answer.messages.is_empty() { Err(SOON) } else { Ok(answer) };
            }
            before = Some(sequence);
            let source =
                headers.get("Nats-Stream-Source").and_then(|source| source_sequence(source.as_str()));
            let subject =
                headers.get("Nats-Subject").map_or_else(String::new, |subject| subject.as_str().to_owned());
            answer.messages.push(Stored { sequence, subject, source, payload: reply.payload });
        }
    }

    /// One message by its sequence. `None`: the copy that was asked does not have it.
    pub(crate) async fn one(&self, sequence: u64) -> Result<Option<Bytes>, Unavailable> {
        let question = Request::new().payload(format!(r#"{{"seq":{sequence}}}"#).into());
        let subject = format!("$JS.API.DIRECT.GET.{}", self.node.subjects.stream());
        let reply = self.node.client.send_request(subject, question).await.map_err(|_| SOON)?;
        match reply.status {
            None | Some(StatusCode::OK) => Ok(Some(reply.payload)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(_) => Err(SOON),
        }
    }

    async fn ask(&self, of: Of, question: String, inbox: String) -> Result<(), Unavailable> {
        let subjects = &self.node.subjects;
        let stream = match of {
            Of::Kept => subjects.stream(),
            Of::Retained => subjects.retained_stream(),
            Of::Sessions => subjects.session_stream(),
        };
        let request = Request::new().payload(question.into()).inbox(inbox);
        let asked = Context::send_request(&self.context, format!("DIRECT.GET.{stream}"), request);
        timeout(NEXT_TIMEOUT, asked).await.map_err(|_| SOON)?.map_err(|_| SOON)
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// `<stream> <sequence> …`, as the server notes where it has a message from.
fn source_sequence(text: &str) -> Option<u64> {
    text.split(' ').nth(1)?.parse().ok()
}

/// The same numbers as the server republishes what it has stored with.
pub(crate) fn stored_sequence(message: &async_nats::Message) -> Option<u64> {
    number(message.headers.as_ref()?, "Nats-Sequence")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_source_is_read() {
        assert_eq!(source_sequence("fw_H0 17 fw.h.0.r.> > fw.h.0.r.a"), Some(17));
        assert_eq!((source_sequence("fw_H0"), source_sequence("")), (None, None));
    }
}
