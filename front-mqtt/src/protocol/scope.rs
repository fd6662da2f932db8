//! Whose client identifiers are one name space: what a session is found by.

use std::sync::Arc;

use broker_core::{Principal, SourceKind};

use crate::config::ClientIdScope;

/// What a session is found by: its client identifier, behind its user where users have names of their own. No part of
/// a packet can hold the U+0000 between them.
pub(crate) fn session_key(scope: ClientIdScope, principal: &Principal, client_id: &Arc<str>) -> Arc<str> {
    match (scope, owner(principal)) {
        (ClientIdScope::User, Some(owner)) => format!("{owner}\0{client_id}").into(),
        _ => client_id.clone(),
    }
}

/// The client identifier in a session's key.
pub(crate) fn client_id_of(key: &str) -> &str {
    key.rsplit_once('\0').map_or(key, |(_, client_id)| client_id)
}

/// Who a principal is, among all who can be told apart; `None` for those who cannot. One name that two issuers vouch
/// for is two users, and so is one that a password and a token vouch for.
pub(crate) fn owner(principal: &Principal) -> Option<Box<str>> {
    let source = principal.source();
    let kind = match source.kind {
        SourceKind::Anonymous => return None,
        SourceKind::Other if principal.user().is_none() => return None,
        SourceKind::Other => 'o',
        SourceKind::Key => 'k',
        SourceKind::Token => 't',
        SourceKind::Password => 'p',
        SourceKind::Certificate => 'c',
    };
    let (by, user) = (&source.name, principal.user().unwrap_or_default());
    // With its length, so that no name can look like the end of another and a user.
    Some(format!("{kind}{}:{by}{user}", by.len()).into())
}

/// Whether a session of `held` would go to another user with `principal`.
pub(crate) fn is_another(scope: ClientIdScope, held: &Principal, principal: &Principal) -> bool {
    scope != ClientIdScope::Shared && owner(held) != owner(principal)
}

#[cfg(test)]
mod tests {
    use broker_core::{Rights, Source};

    use super::*;

    fn of(kind: SourceKind, name: &str, user: Option<&str>) -> Principal {
        let mut source = Source::default();
        source.kind = kind;
        source.name = name.into();
        Principal::new(user, Arc::new(Rights::all())).from_source(source)
    }

    #[test]
    fn everybody_who_can_be_told_apart_has_a_name_space() {
        use SourceKind::*;
        let different = [
            of(Anonymous, "", None),
            of(Other, "", Some("ann")),
            of(Other, "", Some("bob")),
            of(Password, "ann", Some("ann")),
            of(Key, "ann", Some("ann")),
            of(Key, "annann", Some("")),
            of(Token, "", Some("ann")),
            of(Token, "a", Some("nn")),
            of(Token, "an", Some("n")),
            of(Token, "a", None),
            of(Token, "a", Some("x\0c")),
        ];
        let id: Arc<str> = "c".into();
        let mut keys: Vec<_> =
            different.iter().map(|who| session_key(ClientIdScope::User, who, &id)).collect();
        assert!(keys.iter().all(|key| client_id_of(key) == "c"), "{keys:?}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), different.len());
        for scope in [ClientIdScope::Exclusive, ClientIdScope::Shared] {
            assert!(different.iter().all(|who| session_key(scope, who, &id) == id));
        }
        assert_eq!(
            session_key(ClientIdScope::User, &of(Other, "", None), &id),
            id,
            "as nobody in particular"
        );
    }
}
