//! Other nodes, as the API asks them: what is asked, what is answered, and how several answers become one.
//!
//! A question is one line of JSON, and behind it the body of a direct message. Who asks has looked at the rights.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker_core::{Answer, SubscriberKey};
use bytes::Bytes;
use http::StatusCode;
use http_edge::Problem;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::report::{HeardNode, NodeReport};
use crate::shown::{Member, Shown};

/// Other nodes of a cluster: given to [`Front::join`](crate::Front::join).
pub trait Nodes: Send + Sync {
    /// What this node is called.
    fn name(&self) -> &str;

    /// Asks all other nodes, and waits a bounded time for each of them, or until `is_enough` says of an answer that it is
    /// enough. There [`Front::answer_node`](crate::Front::answer_node) answers.
    fn ask(&self, question: Vec<u8>, is_enough: fn(&[u8]) -> bool) -> Answer<'static, Answered>;

    /// How this node is.
    fn own(&self) -> NodeReport;

    /// The others that this node has heard of: those that are there, and those that are gone, for some time.
    fn heard(&self) -> Vec<HeardNode>;
}

/// What other nodes answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// What each node that answered is called, and its answer.
    pub answers: Vec<(String, Bytes)>,
    /// Whether all have answered that there are.
    pub is_whole: bool,
    /// The most bytes of a question, if this one had more and was not asked.
    pub too_large_for: Option<usize>,
}

impl Answered {
    /// These answers, and whether all nodes have answered.
    pub fn new(answers: Vec<(String, Bytes)>, is_whole: bool) -> Self {
        Self { answers, is_whole, too_large_for: None }
    }

    /// Nobody was asked, as a question has so many bytes at most.
    pub fn too_large_for(max: usize) -> Self {
        Self { too_large_for: Some(max), ..Self::default() }
    }
}

/// What one node asks others.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question<'a> {
    List {
        user: Option<Cow<'a, str>>,
        channel: Option<Cow<'a, str>>,
        after: Option<String>,
        limit: usize,
    },
    Show {
        id: Cow<'a, str>,
    },
    Close {
        id: Cow<'a, str>,
        reason: Option<Cow<'a, str>>,
    },
    Send {
        id: Cow<'a, str>,
        channel: Cow<'a, str>,
        content_type: Option<Cow<'a, str>>,
        event: Option<Cow<'a, str>>,
        ttl_ms: Option<u64>,
    },
    Subscribe {
        id: Cow<'a, str>,
        filter: Cow<'a, str>,
    },
    Unsubscribe {
        id: Cow<'a, str>,
        filter: Cow<'a, str>,
    },
    Revoke {
        user: Cow<'a, str>,
    },
    Presence {
        channel: Cow<'a, str>,
        after: Option<String>,
        limit: usize,
    },
    /// How it is.
    Report,
}

/// What a node answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The connection is not there.
    Gone,
    Done,
    Shown(Box<Shown>),
    Page {
        connections: Vec<Shown>,
        more: bool,
    },
    Queued {
        bytes: u64,
    },
    Closed(usize),
    Present {
        connections: u64,
        users: Vec<String>,
        /// Users that are not named, as there are too many.
        more_users: u64,
        members: Vec<Member>,
        more: bool,
    },
    Report(Box<NodeReport>),
    Refused {
        status: u16,
        code: String,
        detail: String,
        retry_after_ms: Option<u64>,
    },
}

/// What a connection that is not there is answered with.
const GONE: &[u8] = b"\"gone\"";

impl Question<'_> {
    pub(crate) fn write(&self, body: &[u8]) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).unwrap_or_default();
        if !body.is_empty() {
            out.push(b'\n');
            out.extend_from_slice(body);
        }
        out
    }

    /// The question, and the body behind it. `None` for what no node of this version asks.
    pub(crate) fn read(question: &Bytes) -> Option<(Question<'static>, Bytes)> {
        let end = memchr::memchr(b'\n', question).unwrap_or(question.len());
        let asked = serde_json::from_slice(question.get(..end)?).ok()?;
        Some((asked, question.slice((end + 1).min(question.len())..)))
    }
}

impl Reply {
    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn refused(error: Error) -> Self {
        let problem = Problem::from(error);
        Reply::Refused {
            status: problem.status.as_u16(),
            code: problem.code.to_owned(),
            detail: problem.detail.into_owned(),
            retry_after_ms: problem
                .retry_after
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Codes with which another node refuses what it is asked.
const CODES: &[&str] = &[
    "buffer_full",
    "filters_full",
    "inexpressible",
    "invalid_channel",
    "invalid_filter",
    "message_too_large",
    "not_subscribed",
    "policy_unavailable",
    "shutting_down",
    "store_unavailable",
    "too_many_channels",
    "too_many_levels",
    "too_many_subscriptions",
];

/// What another node refused, in its words. A code that is not known here becomes `forbidden`.
fn refused(status: u16, code: &str, detail: String, retry_after_ms: Option<u64>) -> Problem {
    let known = CODES.iter().find(|known| **known == code);
    let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
    let (Some(code), Some(status)) = (known, status) else { return Problem::forbidden(detail) };
    let problem = Problem::new(status, code, detail);
    match retry_after_ms {
        Some(wait) => problem.retry_after(Duration::from_millis(wait)),
        None => problem,
    }
}

/// The answers of all nodes that gave one.
pub(crate) struct Replies {
    pub(crate) replies: Vec<(String, Reply)>,
    pub(crate) is_whole: bool,
}

/// The other nodes, if there are any.
#[derive(Default)]
pub(crate) struct Elsewhere(OnceLock<Arc<dyn Nodes>>);

impl Elsewhere {
    /// The first one counts.
    pub(crate) fn join(&self, nodes: Arc<dyn Nodes>) {
        _ = self.0.set(nodes);
    }

    /// What this node is called among them; `None` without a cluster.
    pub(crate) fn own_name(&self) -> Option<&str> {
        self.0.get().map(|nodes| nodes.name())
    }

    /// How this node is; `None` without a cluster.
    pub(crate) fn own(&self) -> Option<NodeReport> {
        self.0.get().map(|nodes| nodes.own())
    }

    /// The others that were heard of.
    pub(crate) fn heard(&self) -> Vec<HeardNode> {
        self.0.get().map(|nodes| nodes.heard()).unwrap_or_default()
    }

    async fn ask_until(
        &self,
        question: &Question<'_>,
        body: &[u8],
        is_enough: fn(&[u8]) -> bool,
    ) -> Result<Option<Replies>, Error> {
        let Some(nodes) = self.0.get() else { return Ok(None) };
        let Answered { answers, mut is_whole, too_large_for } =
            nodes.ask(question.write(body), is_enough).await;
        if let Some(max) = too_large_for {
            return Err(Error::TooLargeForNodes { max });
        }
        let mut replies = Vec::with_capacity(answers.len());
        for (node, answer) in answers {
            match serde_json::from_slice(&answer) {
                Ok(reply) => replies.push((node, reply)),
                // Of another version: it is as if it had said nothing.
                Err(_) => is_whole = false,
            }
        }
        Ok(Some(Replies { replies, is_whole }))
    }

    /// Asks all; `None` without a cluster.
    pub(crate) async fn ask(&self, question: &Question<'_>) -> Result<Option<Replies>, Error> {
        self.ask_until(question, &[], |_| false).await
    }

    /// Asks for a connection that is not here. Whoever has it answers.
    ///
    /// # Errors
    /// [`Error::Gone`] if nobody has it; [`Error::NodeSilent`] if one who may have it did not answer; what it refuses.
    pub(crate) async fn ask_whoever_has_it(
        &self,
        question: &Question<'_>,
        body: &[u8],
    ) -> Result<(String, Reply), Error> {
        let Some(Replies { replies, is_whole }) =
            self.ask_until(question, body, |answer| answer != GONE).await?
        else {
            return Err(Error::Gone);
        };
        for (node, reply) in replies {
            match reply {
                Reply::Gone => {}
                Reply::Refused { status, code, detail, retry_after_ms } => {
                    return Err(Error::Elsewhere(refused(status, &code, detail, retry_after_ms)));
                }
                reply => return Ok((node, reply)),
            }
        }
        Err(if is_whole { Error::Gone } else { Error::NodeSilent })
    }
}

/// A page of one node, and whether that has more behind it.
pub(crate) type Page<T> = (Vec<(SubscriberKey, T)>, bool);

/// Pages of several nodes as one of at most `limit`.
pub(crate) fn merged<T>(pages: Vec<Page<T>>, limit: usize) -> Page<T> {
    // Behind the end of a page that is not its node's last one, somebody may be missing.
    let ends = pages.iter().filter(|(_, more)| *more).filter_map(|(page, _)| page.last());
    let end = ends.map(|(key, _)| *key).min();
    let mut all: Vec<_> = pages.into_iter().flat_map(|(page, _)| page).collect();
    all.sort_by_key(|(key, _)| *key);
    if let Some(end) = end {
        all.retain(|(key, _)| *key <= end);
    }
    let more = end.is_some() || all.len() > limit;
    all.truncate(limit);
    (all, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read() {
        let question = Question::Send {
            id: "1f".into(),
            channel: "a\nb".into(),
            content_type: None,
            event: Some("e".into()),
            ttl_ms: Some(7),
        };
        let (read, body) = Question::read(&question.write(b"x\ny").into()).unwrap();
        assert_eq!((read, &body[..]), (question, &b"x\ny"[..]));
        let (_, body) = Question::read(&Question::Revoke { user: "ann".into() }.write(b"").into()).unwrap();
        assert!(body.is_empty());
        for wrong in ["", "\n", "{}", "{\"else\":1}", "{\"show\":{}}"] {
            assert!(Question::read(&Bytes::from(wrong)).is_none(), "{wrong}");
        }
        assert_eq!(Reply::Gone.write(), GONE);
    }

    #[test]
    fn what_another_node_refuses_is_refused_in_its_words() {
        let Reply::Refused { status, code, detail, retry_after_ms } =
            Reply::refused(broker_core::SendError::Full.into())
        else {
            panic!()
        };
        let problem = refused(status, &code, detail, retry_after_ms);
        assert_eq!((problem.status.as_u16(), problem.code), (429, "buffer_full"));
        assert!(problem.retry_after.is_some());
        for (status, code) in [(200, "buffer_full"), (400, "new_code"), (9, "gone")] {
            assert_eq!(refused(status, code, String::new(), None).code, "forbidden");
        }
    }

    #[test]
    fn pages_are_merged_and_nobody_is_passed_over() {
        let key = |number: u128| SubscriberKey::from_u128(number);
        let page = |numbers: &[u128], more| (numbers.iter().map(|n| (key(*n), *n)).collect::<Vec<_>>(), more);
        let merge = |pages, limit| {
            let (all, more) = merged::<u128>(pages, limit);
            (all.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), more)
        };
        assert_eq!(merge(vec![page(&[1, 4], false), page(&[2, 3], false)], 9), (vec![1, 2, 3, 4], false));
        assert_eq!(merge(vec![page(&[1, 4], false), page(&[2, 3], true)], 9), (vec![1, 2, 3], true));
        assert_eq!(merge(vec![page(&[1, 4], false), page(&[2], false)], 2), (vec![1, 2], true));
        assert_eq!(merge(vec![page(&[], false), page(&[], false)], 2), (vec![], false));
    }
}
