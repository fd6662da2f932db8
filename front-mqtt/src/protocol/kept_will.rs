//! A will as it is recorded with its session, so that it outlives the server.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Accepted, Action, Ends, Principal, Publish, Rights, Rule, Source, SourceKind, Welcome};

use super::end::{PendingWill, Will};
use super::record::{Input, put_text};

/// A will and in whose name it is published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KeptWill {
    message: Box<[u8]>,
    delay_secs: u32,
    /// In milliseconds since 1970; 0: its client is here.
    due_ms: u64,
    nonce: u128,
    who: Who,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Who {
    kind: u8,
    name: Box<str>,
    user: Option<Box<str>>,
    trust: u64,
    version: u64,
    /// A policy has let it in.
    is_welcomed: bool,
}

/// So long clients have to come back after a crash before their wills are published.
const GRACE: Duration = Duration::from_secs(30);

/// By their numbers in records.
const KINDS: [SourceKind; 6] = [
    SourceKind::Anonymous,
    SourceKind::Key,
    SourceKind::Token,
    SourceKind::Password,
    SourceKind::Certificate,
    SourceKind::Other,
];

impl KeptWill {
    pub(crate) fn of(will: &PendingWill, principal: &Principal) -> Self {
        let mut message = Vec::new();
        Accepted::write_unpublished(&will.publish, &mut message);
        let source = principal.source();
        let kind = KINDS.iter().position(|kind| *kind == source.kind).unwrap_or_default();
        Self {
            message: message.into(),
            delay_secs: will.delay_secs,
            due_ms: will.due_ms,
            nonce: will.nonce,
            who: Who {
                kind: u8::try_from(kind).unwrap_or_default(),
                name: (*source.name).into(),
                user: principal.user().map(Box::from),
                trust: source.trust,
                version: source.version,
                is_welcomed: principal.welcome().is_some(),
            },
        }
    }

    /// What is to be published; `None`: it has no time to live, or is none.
    pub(crate) fn read(&self) -> Option<Will> {
        let publish = Accepted::read_unpublished(&self.message).ok().flatten()?;
        let principal = self.who.principal(&publish)?;
        Some(Will { publish, principal, key: Some(key(self.nonce)), session: None })
    }

    /// Whether it is published when its client comes back elsewhere; `closes`: that closes its last connection.
    pub(crate) fn is_published_at(&self, now_ms: u64, closes: bool) -> bool {
        if self.due_ms > 0 { self.due_ms <= now_ms } else { closes && self.delay_secs == 0 }
    }

    /// When it is published if its client does not come back: while that is here, so long after the next start.
    pub(crate) fn due(&self, expiry_secs: u32) -> Ends {
        if self.due_ms > 0 {
            return Ends::At(self.due_ms);
        }
        let after = GRACE.max(Duration::from_secs(u64::from(self.delay_secs)));
        let session = Duration::from_secs(u64::from(expiry_secs));
        Ends::After(if expiry_secs == u32::MAX { after } else { after.min(session) })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&u32::try_from(self.message.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.message);
        out.extend_from_slice(&self.delay_secs.to_be_bytes());
        out.extend_from_slice(&self.due_ms.to_be_bytes());
        out.extend_from_slice(&self.nonce.to_be_bytes());
        let Who { kind, name, user, trust, version, is_welcomed } = &self.who;
        out.extend_from_slice(&[*kind, u8::from(user.is_some()), u8::from(*is_welcomed)]);
        put_text(out, name);
        put_text(out, user.as_deref().unwrap_or_default());
        out.extend_from_slice(&trust.to_be_bytes());
        out.extend_from_slice(&version.to_be_bytes());
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let message = input.bytes()?.into();
        let delay_secs = u32::from_be_bytes(input.take()?);
        let due_ms = u64::from_be_bytes(input.take()?);
        let nonce = u128::from_be_bytes(input.take()?);
        let [kind, has_user, is_welcomed] = input.take()?;
        let (name, user) = (input.text()?, input.text()?);
        let who = Who {
            kind,
            name,
            user: (has_user == 1).then_some(user),
            trust: u64::from_be_bytes(input.take()?),
            version: u64::from_be_bytes(input.take()?),
            is_welcomed: is_welcomed == 1,
        };
        Some(Self { message, delay_secs, due_ms, nonce, who })
    }
}

impl Who {
    /// With the right that it had when it connected, or it would not have been let in with this will; whoever knows more
    /// of it by now is asked before it is published.
    fn principal(&self, publish: &Publish) -> Option<Principal> {
        let mut source = Source::default();
        source.kind = *KINDS.get(usize::from(self.kind))?;
        source.name = (*self.name).into();
        (source.trust, source.version) = (self.trust, self.version);
        let rights = Rights::none().allow(Rule::new([Action::Publish], publish.channel().clone().into()));
        let principal = Principal::new(self.user.as_deref(), Arc::new(rights)).from_source(source);
        Some(if self.is_welcomed { principal.welcomed(Welcome::default()) } else { principal })
    }
}

/// What a will is known by, so that it is published once.
pub(super) fn key(nonce: u128) -> String {
    format!("mqtt will {nonce:032x}")
}

#[cfg(test)]
mod tests {
    use broker_core::{Channel, Qos};

    use super::*;

    #[test]
    fn a_will_is_in_the_name_of_its_client_and_allowed_as_it_was() {
        let mut source = Source::default();
        (source.kind, source.trust) = (SourceKind::Token, 7);
        let principal = Principal::user_with("ann", Rights::all()).from_source(source.clone());
        let publish = Publish::new(Channel::parse("a/b").unwrap(), "gone")
            .qos(Qos::AtLeastOnce)
            .retain(true)
            .ttl(Duration::from_secs(5));
        let pending = |publish| PendingWill { publish, delay_secs: 40, due_ms: 0, nonce: 9 };
        let kept = KeptWill::of(&pending(publish), &principal);
        let will = kept.read().unwrap();
        assert_eq!(will.key.as_deref(), Some(&*key(9)));
        assert_eq!(KeptWill::of(&pending(will.publish), &will.principal), kept);
        assert_eq!((will.principal.user(), will.principal.source()), (Some("ann"), &source));
        let allows = |topic: &str| will.principal.allows(Action::Publish, &Channel::parse(topic).unwrap());
        assert!(allows("a/b") && !allows("a/c"));
        for (delay_secs, expiry_secs, after_secs) in
            [(0, 100, 30), (40, 100, 40), (40, 10, 10), (0, 1, 1), (40, u32::MAX, 40)]
        {
            let kept = KeptWill { delay_secs, ..kept.clone() };
            assert_eq!(kept.due(expiry_secs), Ends::After(Duration::from_secs(after_secs)));
        }
        assert_eq!(KeptWill { due_ms: 5, ..kept }.due(10), Ends::At(5));
    }
}
