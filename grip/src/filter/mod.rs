//! Filters: what of a channel's items a client gets, and how they look to it.
//!
//! ```
//! use grip::Meta;
//! use grip::filter::{Context, Filter, Run, Step};
//! let (mut client, mut item) = (Meta::default(), Meta::default());
//! client.set("user", "ann");
//! item.set("sender", "bob");
//! let context = Context::new(&client, &item);
//! let mut run = Run::new(&[Filter::SkipSelf, Filter::VarSubst], "hello %(user)s".into());
//! assert_eq!(run.step(&context), Step::Send("hello ann".into()));
//! ```

mod render;
mod run;

pub use render::{BuildId, MAX_GROWTH};
pub use run::{Call, Context, Dropped, MAX_ANSWER_BYTES, Run, Step, TIMEOUT};

/// What items go through on their way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// Not what the client has sent itself.
    SkipSelf,
    /// Not to those whom the item names.
    SkipUsers,
    /// Only to those who have another subscription too.
    RequireSub,
    /// Ids are put into the content.
    BuildId,
    /// The client's metadata is put into the content.
    VarSubst,
    /// Somebody is asked whether.
    HttpCheck,
    /// Somebody is asked what.
    HttpModify,
}

impl Filter {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SkipSelf,
        Self::SkipUsers,
        Self::RequireSub,
        Self::BuildId,
        Self::VarSubst,
        Self::HttpCheck,
        Self::HttpModify,
    ];

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipSelf => "skip-self",
            Self::SkipUsers => "skip-users",
            Self::RequireSub => "require-sub",
            Self::BuildId => "build-id",
            Self::VarSubst => "var-subst",
            Self::HttpCheck => "http-check",
            Self::HttpModify => "http-modify",
        }
    }

    /// Whether it changes the content of what is sent.
    pub fn changes_content(self) -> bool {
        matches!(self, Self::BuildId | Self::VarSubst | Self::HttpModify)
    }

    /// Whether a content that is meant for the filters `wanted` may go through these: those that change a content are the
    /// same, in the same order. A content without such a wish goes through any.
    pub fn fit(filters: &[Self], wanted: Option<&[String]>) -> bool {
        let Some(wanted) = wanted else { return true };
        let own = filters.iter().filter(|filter| filter.changes_content()).map(|filter| filter.name());
        own.eq(wanted.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_names() {
        for filter in Filter::ALL {
            assert_eq!(Filter::parse(filter.name()), Some(filter));
        }
        assert_eq!(Filter::parse("Skip-Self"), None);
    }

    #[test]
    fn a_content_goes_through_the_filters_that_it_is_meant_for() {
        let fits = |filters: &[Filter], wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            Filter::fit(filters, Some(&wanted))
        };
        let both = [Filter::SkipSelf, Filter::BuildId, Filter::VarSubst];
        assert!(fits(&both, &["build-id", "var-subst"]), "what decides about delivery alone does not count");
        assert!(!fits(&both, &["var-subst", "build-id"]), "the order does");
        assert!(!fits(&both, &["build-id"]) && !fits(&both, &[]));
        assert!(!fits(&[], &["build-id"]) && fits(&[Filter::SkipSelf], &[]));
        assert!(Filter::fit(&both, None) && Filter::fit(&[], None));
    }
}
