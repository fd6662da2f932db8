//! One item on its way through the filters of one client.

use std::time::Duration;

use bytes::Bytes;

use super::Filter;
use super::render::{self, BuildId};
use crate::meta::Meta;

/// How long somebody who is asked may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the content may be that somebody answers, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What filters look at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    client: &'a Meta,
    item: &'a Meta,
    last_ids: &'a [(&'a str, &'a str)],
    is_subscribed: &'a dyn Fn(&str) -> bool,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This is sent.
    Send(Bytes),
    /// Nothing is.
    Drop(Dropped),
    /// Somebody has to be asked; then comes [`Run::answered`], and another step.
    Ask(Call),
}

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// A filter has done its work.
    By(Filter),
    /// A filter could not.
    Failed(Filter, String),
}

/// What is asked: a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Where, relative to the address of the client's request.
    pub url: String,
    /// The header `Sub-Meta`, JSON.
    pub sub_meta: String,
    /// The header `Pub-Meta`, JSON.
    pub pub_meta: String,
    /// The values of the header `Grip-Last`.
    pub last: Vec<String>,
    /// The body.
    pub body: Bytes,
}

/// An item on its way.
#[derive(Clone, Debug)]
pub struct Run {
    /// Those before it, from the last to the first.
    filters: Vec<Filter>,
    content: Bytes,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("client", self.client)
            .field("item", self.item)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// With the metadata of a client and of an item; the client has no subscription but this one, and knows no id.
    pub fn new(client: &'a Meta, item: &'a Meta) -> Self {
        Self { client, item, last_ids: &[], is_subscribed: &|_| false }
    }

    /// With the last ids that the client has of its channels.
    pub fn with_ids(self, last_ids: &'a [(&'a str, &'a str)]) -> Self {
        Self { last_ids, ..self }
    }

    /// With all that it is subscribed to.
    pub fn subscribed(self, is_subscribed: &'a dyn Fn(&str) -> bool) -> Self {
        Self { is_subscribed, ..self }
    }
}

impl Dropped {
    /// For a metric: the filter's name, or `error`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::By(filter) => filter.name(),
            Self::Failed(..) => "error",
        }
    }
}

impl Run {
    /// A content that goes through these, in this order.
    pub fn new(filters: &[Filter], content: Bytes) -> Self {
        Self { filters: filters.iter().rev().copied().collect(), content }
    }

    /// As far as nobody has to be asked.
    pub fn step(&mut self, context: &Context<'_>) -> Step {
        while let Some(filter) = self.filters.last().copied() {
            let failed = |why: String| Step::Drop(Dropped::Failed(filter, why));
            let user = context.client.get("user").unwrap_or_default();
            let meta = |name: &str| context.item.get(name).unwrap_or_default();
            let passes = match filter {
                Filter::SkipSelf => user.is_empty() || user != meta("sender"),
                Filter::SkipUsers => {
                    user.is_empty() || !meta("skip_users").split(',').any(|skipped| skipped.trim() == user)
                }
                Filter::RequireSub => {
                    let required = meta("require_sub");
                    required.is_empty() || (context.is_subscribed)(required)
                }
                Filter::BuildId => {
                    let building = BuildId::new(context.client, context.last_ids.iter().copied());
                    match building.and_then(|building| building.whole(&self.content)) {
                        Ok(content) => self.content = content,
                        Err(why) => return failed(why),
                    }
                    true
                }
                Filter::VarSubst => {
                    let value = |name: &str| context.client.get(name).map(str::to_owned);
                    match render::filled(&self.content, &|place| render::named(place, value)) {
                        Ok(content) => self.content = content,
                        Err(why) => return failed(why),
                    }
                    true
                }
                Filter::HttpCheck | Filter::HttpModify => {
                    return match context.client.get("url") {
                        Some(url) => Step::Ask(self.call(filter, url, context)),
                        None => failed("there is no `url`".to_owned()),
                    };
                }
            };
            if !passes {
                return Step::Drop(Dropped::By(filter));
            }
            self.filters.pop();
        }
        Step::Send(self.content.clone())
    }

    fn call(&self, filter: Filter, url: &str, context: &Context<'_>) -> Call {
        let last = context.last_ids.iter().map(|(channel, id)| crate::link::last(channel, id));
        let body = if filter == Filter::HttpModify { self.content.clone() } else { Bytes::new() };
        Call {
            url: url.to_owned(),
            sub_meta: context.client.to_json(),
            pub_meta: context.item.to_json(),
            last: last.collect(),
            body,
        }
    }

    /// What was answered: the status, the header `Action`, and the body.
    ///
    /// # Errors
    /// The item is dropped.
    pub fn answered(&mut self, status: u16, action: Option<&str>, body: Bytes) -> Result<(), Dropped> {
        let Some(filter) = self.filters.last().copied() else { return Ok(()) };
        match status {
            _ if body.len() > MAX_ANSWER_BYTES => {
                return Err(Dropped::Failed(filter, "the answer is too long".to_owned()));
            }
            200 | 204 if action.is_some_and(|action| action.trim().eq_ignore_ascii_case("drop")) => {
                return Err(Dropped::By(filter));
            }
            200 if filter == Filter::HttpModify => self.content = body,
            200 | 204 => {}
            status => return Err(Dropped::Failed(filter, format!("it was answered with status {status}"))),
        }
        self.filters.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(pairs: &[(&str, &str)]) -> Meta {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn step(filter: Filter, client: &[(&str, &str)], item: &[(&str, &str)], content: &'static str) -> Step {
        let (client, item) = (meta(client), meta(item));
        let context = Context::new(&client, &item).with_ids(&[("a", "1")]);
        Run::new(&[filter], content.into()).step(&context.subscribed(&|channel| channel == "vip"))
    }

    #[test]
    fn what_a_client_has_sent_itself_is_skipped() {
        let sent = Step::Send("x".into());
        let dropped = Step::Drop(Dropped::By(Filter::SkipSelf));
        assert_eq!(step(Filter::SkipSelf, &[("user", "ann")], &[("sender", "ann")], "x"), dropped);
        assert_eq!(step(Filter::SkipSelf, &[("user", "ann")], &[("sender", "bob")], "x"), sent);
        assert_eq!(step(Filter::SkipSelf, &[], &[], "x"), sent);
        assert_eq!(step(Filter::SkipSelf, &[("user", "ann")], &[], "x"), sent);
    }

    #[test]
    fn those_who_are_named_are_skipped() {
        let skipped = |user: &str, list: &str| {
            let step = step(Filter::SkipUsers, &[("user", user)], &[("skip_users", list)], "x");
            step == Step::Drop(Dropped::By(Filter::SkipUsers))
        };
        assert!(skipped("ann", "bob, ann ") && skipped("ann", "ann"));
        assert!(!skipped("ann", "anna,bob") && !skipped("", ",") && !skipped("ann", ""));
    }

    #[test]
    fn another_subscription_may_be_required() {
        let dropped = Step::Drop(Dropped::By(Filter::RequireSub));
        assert_eq!(step(Filter::RequireSub, &[], &[("require_sub", "other")], "x"), dropped);
        assert_eq!(step(Filter::RequireSub, &[], &[("require_sub", "vip")], "x"), Step::Send("x".into()));
        assert_eq!(step(Filter::RequireSub, &[], &[], "x"), Step::Send("x".into()));
    }

    #[test]
    fn contents_are_filled_and_what_fails_is_dropped() {
        let sent = step(Filter::VarSubst, &[("user", "ann")], &[], "%(user)s 100%%");
        assert_eq!(sent, Step::Send("ann 100%".into()));
        let failed = step(Filter::VarSubst, &[], &[], "%(user)s");
        let Step::Drop(dropped) = failed else { panic!("{failed:?}") };
        assert_eq!(dropped, Dropped::Failed(Filter::VarSubst, "\"user\" has no value".into()));
        assert_eq!(dropped.reason(), "error");
        let sent = step(Filter::BuildId, &[("id_format", "%(a)s")], &[], "id: %I");
        assert_eq!(sent, Step::Send("id: 1".into()));
        assert!(matches!(step(Filter::BuildId, &[], &[], "x"), Step::Drop(Dropped::Failed(..))));
    }

    #[test]
    fn filters_follow_each_other_around_a_question() {
        let (client, item) = (meta(&[("user", "ann"), ("url", "/ask")]), meta(&[("sender", "bob")]));
        let ids = [("a;b", "1\"2"), ("c", "3")];
        let context = Context::new(&client, &item).with_ids(&ids);
        let filters = [Filter::VarSubst, Filter::HttpModify, Filter::HttpCheck, Filter::VarSubst];
        let mut run = Run::new(&filters, "%(user)s".into());
        let Step::Ask(call) = run.step(&context) else { panic!("somebody is asked") };
        assert_eq!(call.url, "/ask");
        assert_eq!(call.sub_meta, r#"{"url":"/ask","user":"ann"}"#);
        assert_eq!(call.pub_meta, r#"{"sender":"bob"}"#);
        assert_eq!(call.last, [r#""a;b"; last-id="1\"2""#, "c; last-id=3"]);
        assert_eq!(call.body, "ann");
        run.answered(200, None, "for %(user)s".into()).unwrap();
        let Step::Ask(call) = run.step(&context) else { panic!("somebody is asked") };
        assert!(call.body.is_empty(), "only whether");
        run.answered(200, Some("accept"), "is not taken".into()).unwrap();
        assert_eq!(run.step(&context), Step::Send("for ann".into()));
    }

    #[test]
    fn answers_drop_leave_or_fail() {
        let asked = |filter, status, action, body: &'static str| {
            let mut run = Run::new(&[filter], "x".into());
            run.answered(status, action, body.into())?;
            let none = Meta::default();
            Ok(run.step(&Context::new(&none, &none)))
        };
        let dropped = Err(Dropped::By(Filter::HttpCheck));
        assert_eq!(asked(Filter::HttpCheck, 200, Some("Drop"), ""), dropped);
        assert_eq!(asked(Filter::HttpCheck, 204, Some(" drop"), ""), dropped);
        assert_eq!(asked(Filter::HttpModify, 204, None, "y"), Ok(Step::Send("x".into())));
        assert_eq!(asked(Filter::HttpModify, 200, None, ""), Ok(Step::Send("".into())));
        assert!(matches!(asked(Filter::HttpCheck, 500, None, ""), Err(Dropped::Failed(..))));
        let long: &'static str = "a".repeat(MAX_ANSWER_BYTES + 1).leak();
        assert!(matches!(asked(Filter::HttpModify, 200, None, long), Err(Dropped::Failed(..))));
        assert!(matches!(step(Filter::HttpCheck, &[], &[], "x"), Step::Drop(Dropped::Failed(..))), "no url");
    }
}
