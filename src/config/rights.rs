//! `[anonymous]`: what clients without credentials may do.

use broker_core::{Action, Rights, Rule};
use serde::{Deserialize, Serialize};

use super::units::FilterText;

/// What anonymous clients may do: nothing that no `allow` grants, and nothing that a `deny` names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Anonymous {
    allow: Vec<Grant>,
    deny: Vec<Grant>,
}

/// Actions on channels.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    actions: Vec<ActionName>,
    channels: Vec<FilterText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Publish,
    Subscribe,
    History,
    Presence,
    Manage,
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Publish => Action::Publish,
            ActionName::Subscribe => Action::Subscribe,
            ActionName::History => Action::History,
            ActionName::Presence => Action::Presence,
            ActionName::Manage => Action::Manage,
        }
    }
}

impl Anonymous {
    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    pub(super) fn rights(&self) -> Rights {
        let rights = self.allow.iter().flat_map(Grant::rules).fold(Rights::none(), Rights::allow);
        self.deny.iter().flat_map(Grant::rules).fold(rights, Rights::deny)
    }
}

impl Grant {
    fn rules(&self) -> impl Iterator<Item = Rule> {
        let actions = self.actions.iter().copied().map(Action::from);
        self.channels.iter().map(move |filter| Rule::new(actions.clone(), filter.0.clone()))
    }
}
