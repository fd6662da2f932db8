//! `GET /v1/nodes`: the nodes of a cluster, as they say of themselves, and those that say nothing any more.

use std::time::Duration;

use broker_core::Principal;
use serde::Serialize;

use crate::connections::may_manage_all;
use crate::error::Error;
use crate::nodes::{Elsewhere, Question, Replies, Reply};
use crate::query::no_parameters;
use crate::report::{HeardNode, NodeReport, NodeState, Streams};

/// A node as the answer shows it.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    name: String,
    /// Its life, for who wants to tell two of one name apart.
    id: String,
    /// Whether it is the one that answers.
    here: bool,
    state: &'static str,
    heard_ms: u64,
    /// What it says of itself, unless it says nothing.
    #[serde(flatten)]
    told: Option<Told>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Told {
    version: String,
    connections: u64,
    sent: u64,
    received: u64,
    round_trip_ms: f64,
    streams: Option<Streams>,
}

#[derive(Serialize)]
struct List {
    nodes: Vec<Shown>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl Shown {
    fn told(name: String, report: NodeReport, heard: Duration, here: bool) -> Self {
        let NodeReport { life, version, state, connections, sent, received, round_trip_ms, streams } = report;
        let state = match state {
            NodeState::Ready => "ready",
            NodeState::Degraded => "degraded",
            NodeState::Down => "down",
        };
        let told = Told { version, connections, sent, received, round_trip_ms, streams };
        Self { name, id: format!("{life:x}"), here, state, heard_ms: millis(heard), told: Some(told) }
    }

    fn silent(HeardNode { name, life, ago, is_gone }: HeardNode) -> Self {
        let state = if is_gone { "gone" } else { "silent" };
        Self { name, id: format!("{life:x}"), here: false, state, heard_ms: millis(ago), told: None }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// All nodes by their names. Without a cluster there is no such resource.
pub(crate) async fn answer(
    elsewhere: &Elsewhere,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    no_parameters(query)?;
    may_manage_all(principal)?;
    let (Some(name), Some(own)) = (elsewhere.own_name(), elsewhere.own()) else {
        return Err(Error::NotFound);
    };
    let mut nodes = vec![Shown::told(name.to_owned(), own, Duration::ZERO, true)];
    let answers = elsewhere.ask(&Question::Report).await?;
    let Replies { replies, is_whole } = answers.unwrap_or(Replies { replies: Vec::new(), is_whole: false });
    let mut heard = elsewhere.heard();
    for (name, reply) in replies {
        let Reply::Report(report) = reply else { continue };
        let before = heard.iter().position(|one| one.life == report.life);
        let ago = before.map_or(Duration::ZERO, |at| heard.swap_remove(at).ago);
        nodes.push(Shown::told(name, *report, ago, false));
    }
    nodes.extend(heard.into_iter().map(Shown::silent));
    nodes.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    Ok(serde_json::to_vec(&List { nodes, partial: !is_whole }).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::StreamState;

    #[test]
    fn what_a_node_says_is_read_also_where_it_says_less() {
        let mut report = NodeReport { life: 7, connections: 3, ..NodeReport::default() };
        report.streams = Some(Streams::new(StreamState::There, StreamState::Lost));
        let Ok(Reply::Report(read)) =
            serde_json::from_slice(&Reply::Report(Box::new(report.clone())).write())
        else {
            panic!()
        };
        assert_eq!(*read, report);
        let short: Reply = serde_json::from_str(r#"{"report":{"life":9,"more":1}}"#).unwrap();
        assert!(matches!(short, Reply::Report(report) if report.life == 9 && report.streams.is_none()));
    }

    #[test]
    fn who_says_nothing_is_shown_with_what_is_known() {
        let heard = HeardNode::new("n2".to_owned(), 255, Duration::from_millis(1_500), false);
        let shown = serde_json::to_value(Shown::silent(heard.clone())).unwrap();
        let expected = serde_json::json!({
            "name": "n2", "id": "ff", "here": false, "state": "silent", "heard_ms": 1500
        });
        assert_eq!(shown, expected);
        let gone = HeardNode { is_gone: true, ..heard };
        assert_eq!(Shown::silent(gone).state, "gone");
    }
}
