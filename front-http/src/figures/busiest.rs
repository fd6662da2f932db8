//! Which channels are published to most, found in the log: publishers pay nothing for it.
//!
//! Each second the newest messages that were recorded since the last look are read, at most [`SAMPLE`], and counted by
//! channel. Where more came, each that was read stands for as many as were recorded for one read. Channels that are not
//! recorded are not seen.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use broker_core::{Broker, Channel, Filter, HistoryQuery, MessageId, Order, Position};
use envelope::write_string;

/// Messages read in one second.
const SAMPLE: usize = 2_000;
/// Over how long channels are compared.
const WINDOW: Duration = Duration::from_secs(10);
/// Channels that are named.
const SHOWN: usize = 20;

#[derive(Default)]
pub(super) struct Busiest {
    /// Up to where the log was read.
    after: Option<(Position, Instant)>,
    looks: VecDeque<Look>,
}

/// What one look found.
struct Look {
    began: Instant,
    recorded: u64,
    seen: u64,
    channels: HashMap<Channel, Traffic>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Traffic {
    messages: f64,
    bytes: f64,
}

impl Busiest {
    /// Reads on. The first call only notes where the log ends.
    pub(super) fn look(&mut self, broker: &Broker, now: Instant) {
        let Ok(all) = Filter::parse("#") else { return };
        let Some((after, began)) = self.after else {
            self.after = Some((broker.position_of([&all]), now));
            return;
        };
        let mut query = HistoryQuery::default();
        query.after = Some(after);
        query.limit = SAMPLE;
        query.order = Order::Newest;
        let history = broker.history(&all, query);
        let mut channels = HashMap::<Channel, Traffic>::new();
        for message in &history.messages {
            let traffic = channels.entry(message.channel().clone()).or_default();
            traffic.messages += 1.0;
            traffic.bytes += message.payload().len() as f64;
        }
        let seen = history.messages.len() as u64;
        // Below the bound all were read that can be: what has expired, or lies on a channel that wildcards do not reach, is
        // nobody else's.
        let is_sample = seen >= SAMPLE as u64;
        let recorded = if is_sample { between(after, history.last) } else { seen };
        self.looks.push_back(Look { began, recorded, seen, channels });
        self.after = Some((history.last, now));
        while self.looks.front().is_some_and(|look| now.saturating_duration_since(look.began) > WINDOW) {
            self.looks.pop_front();
        }
    }

    /// `{"seconds","recorded","seen","channels":[{"channel","messages","bytes"}]}`, the last two per second.
    pub(super) fn write(&self, now: Instant, out: &mut Vec<u8>) {
        let began = self.looks.front().map_or(now, |look| look.began);
        let seconds = now.saturating_duration_since(began).as_secs_f64();
        let sum = |of: fn(&Look) -> u64| self.looks.iter().map(of).sum::<u64>();
        let (recorded, seen) = (sum(|look| look.recorded), sum(|look| look.seen));
        let head =
            format!("{{\"seconds\":{seconds:.1},\"recorded\":{recorded},\"seen\":{seen},\"channels\":[");
        out.extend_from_slice(head.as_bytes());
        for (number, (channel, traffic)) in self.ranked().into_iter().enumerate() {
            out.extend_from_slice(if number == 0 { b"{\"channel\":" } else { b",{\"channel\":" });
            write_string(channel.as_str(), out);
            // Without a look there is no channel, so that this divides by no zero.
            let (messages, bytes) = (traffic.messages / seconds, traffic.bytes / seconds);
            out.extend_from_slice(format!(",\"messages\":{messages:.2},\"bytes\":{bytes:.1}}}").as_bytes());
        }
        out.extend_from_slice(b"]}");
    }

    fn ranked(&self) -> Vec<(&Channel, Traffic)> {
        let mut all = HashMap::<&Channel, Traffic>::new();
        for look in &self.looks {
            // Whatever was not read is taken to be like what was.
            let share = if look.seen == 0 { 1.0 } else { look.recorded as f64 / look.seen as f64 };
            for (channel, found) in &look.channels {
                let traffic = all.entry(channel).or_default();
                traffic.messages += found.messages * share;
                traffic.bytes += found.bytes * share;
            }
        }
        let mut ranked: Vec<_> = all.into_iter().collect();
        ranked.sort_unstable_by(|(name, one), (other_name, other)| {
            other.messages.total_cmp(&one.messages).then_with(|| name.cmp(other_name))
        });
        ranked.truncate(SHOWN);
        ranked
    }
}

/// Messages recorded from one position to another, over all logs.
fn between(from: Position, to: Position) -> u64 {
    let of_log = |id: MessageId| id.offset().saturating_sub(from.in_epoch(id.epoch()).unwrap_or(0));
    to.ids().map(of_log).sum()
}

#[cfg(test)]
mod tests {
    use broker_core::{Config, Publish};

    use super::*;

    fn publish(broker: &Broker, channel: &str, count: usize) {
        for _ in 0..count {
            broker.publish(Publish::new(Channel::parse(channel).unwrap(), "12345")).unwrap();
        }
    }

    fn shown(busiest: &Busiest, now: Instant) -> String {
        let mut out = Vec::new();
        busiest.write(now, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn channels_are_ranked_by_what_came_in_the_last_seconds() {
        let broker = Broker::new(Config::default());
        publish(&broker, "before", 9);
        let (mut busiest, start) = (Busiest::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        busiest.look(&broker, at(0));
        assert_eq!(shown(&busiest, at(0)), r#"{"seconds":0.0,"recorded":0,"seen":0,"channels":[]}"#);
        publish(&broker, "quiet", 1);
        publish(&broker, "busy", 4);
        busiest.look(&broker, at(1));
        busiest.look(&broker, at(2));
        let expected = r#"{"seconds":2.0,"recorded":5,"seen":5,"channels":[{"channel":"busy","messages":2.00,"bytes":10.0},{"channel":"quiet","messages":0.50,"bytes":2.5}]}"#;
        assert_eq!(shown(&busiest, at(2)), expected);
        busiest.look(&broker, at(20));
        assert!(shown(&busiest, at(20)).ends_with("\"channels\":[]}"), "what is long ago counts no more");
    }

    #[tokio::test]
    async fn of_more_than_can_be_read_a_part_stands_for_all() {
        let broker = Broker::new(Config::default());
        let (mut busiest, start) = (Busiest::default(), Instant::now());
        busiest.look(&broker, start);
        for _ in 0..SAMPLE {
            publish(&broker, "a", 3);
            publish(&broker, "b", 1);
        }
        busiest.look(&broker, start + Duration::from_secs(1));
        let ranked = busiest.ranked();
        let messages = |at: usize| (ranked[at].0.as_str(), ranked[at].1.messages.round() as usize);
        assert_eq!((messages(0), messages(1)), (("a", 3 * SAMPLE), ("b", SAMPLE)));
    }

    #[tokio::test]
    async fn only_so_many_channels_are_named() {
        let broker = Broker::new(Config::default());
        let (mut busiest, start) = (Busiest::default(), Instant::now());
        busiest.look(&broker, start);
        for number in 0..100 {
            publish(&broker, &format!("c/{number}"), 1);
        }
        busiest.look(&broker, start + Duration::from_secs(1));
        assert_eq!(busiest.ranked().len(), SHOWN);
    }
}
