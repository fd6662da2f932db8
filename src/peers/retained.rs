//! Retained messages that other nodes have and this one, which has just started, has not.
//!
//! A question is the channel behind which a page begins, or nothing. A page is the channel behind which the next one begins,
//! or nothing, and messages, each behind its length in four bytes.

use std::time::Duration;

use broker_core::{Accepted, Answer, Broker, Channel, Filter};
use bytes::Bytes;
use cluster::{Cluster, Control, Peer, Service};
use tokio::time::{Instant, sleep};

/// What nodes ask each other for retained messages.
const RETAINED: &str = "retained";

/// Messages of one page, and their bytes.
const PAGE_MESSAGES: usize = 512;
const PAGE_BYTES: usize = 256 * 1024;

/// How long it is waited for another node to be heard of.
const DISCOVERY: Duration = Duration::from_millis(300);

/// How long all of it may take; then this node begins with what it has.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Nodes that are asked one after the other until one has answered to the end.
const MAX_ASKED: usize = 3;

/// Answers other nodes from now on.
pub(super) fn serve(cluster: &Cluster, broker: &Broker) {
    // Weakly: a broker that has the cluster as its engine is not to be kept by it.
    cluster.control().serve(RETAINED, std::sync::Arc::new(Kept(broker.downgrade())));
}

/// Takes what another node has, if there is one.
pub(super) async fn fetch(control: &Control, broker: &Broker) {
    let began = Instant::now();
    while control.peers().is_empty() {
        if began.elapsed() >= DISCOVERY || !control.is_connected() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    for peer in control.peers().iter().take(MAX_ASKED) {
        if fetch_from(control, broker, peer, began).await.is_some() {
            return;
        }
    }
    tracing::warn!("retained messages of other nodes could not be had: they come as they are published");
}

/// `None` if it has not answered to the end.
async fn fetch_from(control: &Control, broker: &Broker, peer: &Peer, began: Instant) -> Option<()> {
    let mut after = Bytes::new();
    loop {
        if began.elapsed() >= MAX_TIME {
            return None;
        }
        let answer = control.ask_one(RETAINED, peer, &after).await.ok()??;
        let (next, records) = take(&answer)?;
        let mut rest = records;
        while !rest.is_empty() {
            let (record, behind) = take(&rest)?;
            // One that is over meanwhile, or of another version, is none.
            if let Ok(Some((publish, time_ms))) = Accepted::read_relayed(&record) {
                broker.adopt_retained(publish, time_ms);
            }
            rest = behind;
        }
        if next.is_empty() {
            return Some(());
        }
        after = next;
    }
}

/// What stands behind its length, and the rest.
fn take(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let length = bytes.first_chunk::<4>()?;
    let end = usize::try_from(u32::from_be_bytes(*length)).ok()?.checked_add(4)?;
    (end <= bytes.len()).then(|| (bytes.slice(4..end), bytes.slice(end..)))
}

fn put(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length);
    }
}

/// What this node keeps.
struct Kept(broker_core::WeakBroker);

impl Service for Kept {
    fn answer(&self, _: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        let Some(broker) = self.0.upgrade() else { return Answer::now(None) };
        Answer::later(async move { page(&broker, &question).await })
    }
}

async fn page(broker: &Broker, question: &[u8]) -> Option<Vec<u8>> {
    let after = std::str::from_utf8(question).ok()?;
    let after = if after.is_empty() { None } else { Some(Channel::parse(after).ok()?) };
    let messages = broker.retained_page(&Filter::parse("#").ok()?, after.as_ref(), PAGE_MESSAGES).await;
    let mut is_last = messages.len() < PAGE_MESSAGES;
    let (mut records, mut next) = (Vec::new(), None);
    for message in &messages {
        // One that is too large for a page of its own is passed over.
        if message.weight() <= Control::MAX_ANSWER_BYTES / 2 {
            if records.len() + message.weight() > PAGE_BYTES && !records.is_empty() {
                is_last = false;
                break;
            }
            put(&mut records, |out| Accepted::write_relayed(message, out));
        }
        next = Some(message.channel());
    }
    let next = next.filter(|_| !is_last).map_or("", Channel::as_str);
    let mut answer = Vec::with_capacity(4 + next.len() + records.len());
    put(&mut answer, |out| out.extend_from_slice(next.as_bytes()));
    answer.append(&mut records);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use broker_core::{Config, Publish};

    use super::*;

    fn pages(answer: Vec<u8>) -> (String, Vec<String>) {
        let (next, mut rest) = take(&answer.into()).unwrap();
        let mut channels = Vec::new();
        while !rest.is_empty() {
            let (record, behind) = take(&rest).unwrap();
            let (publish, _) = Accepted::read_relayed(&record).unwrap().unwrap();
            channels.push(publish.channel().to_string());
            rest = behind;
        }
        (String::from_utf8(next.to_vec()).unwrap(), channels)
    }

    #[tokio::test]
    async fn pages_have_all_messages_once_and_pass_over_what_is_too_large() {
        let broker = Broker::new(Config::default());
        let mut expected = Vec::new();
        for number in 0..700 {
            let channel = Channel::parse(&format!("a/{number:03}")).unwrap();
            let bytes = if number == 7 { Control::MAX_ANSWER_BYTES } else { 1_000 };
            if number != 7 {
                expected.push(channel.to_string());
            }
            broker.publish(Publish::new(channel, vec![b'x'; bytes]).retain(true)).unwrap();
        }
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let answer = page(&broker, after.as_bytes()).await.unwrap();
            assert!(answer.len() <= Control::MAX_ANSWER_BYTES);
            let (next, mut channels) = pages(answer);
            found.append(&mut channels);
            if next.is_empty() {
                break;
            }
            after = next;
        }
        assert_eq!(found, expected);
        assert!(page(&broker, b"\xff").await.is_none());
        assert!(take(&Bytes::from_static(b"\0\0\0\x05abcd")).is_none());
    }
}
