//! Who publishes by a key of GRIP: a token that it signs, or the key itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Principal, Throttle, unix_ms};
use grip::Key;
use grip::signature::Verifier;
use http_edge::HttpCredentials;
use parking_lot::Mutex;

/// A key by which items may be published.
#[derive(Debug)]
#[non_exhaustive]
pub struct ControlKey {
    /// Who publishes by it.
    pub iss: String,
    key: Key,
    verifier: Verifier,
    principal: Principal,
}

impl ControlKey {
    /// Of a principal that has the rights of the key.
    pub fn new(iss: impl Into<String>, key: Key, verifier: Verifier, principal: Principal) -> Self {
        Self { iss: iss.into(), key, verifier, principal }
    }

    /// The same for so many items a second, and as many at once.
    #[must_use]
    pub fn limited(mut self, items_per_second: u32) -> Self {
        self.principal = self.principal.throttled(Rate::new(items_per_second));
        self
    }

    fn is(&self, shown: &str) -> bool {
        let Ok(shown) = Key::parse(shown) else { return false };
        match (&self.key, &shown) {
            (Key::Secret(own), Key::Secret(shown)) => same(own, shown),
            _ => false,
        }
    }
}

/// Compares all of both, so that the time tells nothing of where they differ.
fn same(own: &[u8], shown: &[u8]) -> bool {
    let differing = own.iter().zip(shown).fold(0, |differing, (own, shown)| differing | (own ^ shown));
    own.len() == shown.len() && std::hint::black_box(differing) == 0
}

/// Whom credentials name, if one of the keys does.
pub(crate) fn find(keys: &[ControlKey], credentials: &HttpCredentials) -> Option<Principal> {
    let found = match (credentials.user.as_deref(), credentials.token.as_deref()) {
        (Some(user), _) => {
            let password = credentials.password.as_deref().and_then(|text| std::str::from_utf8(text).ok());
            let password = password?;
            keys.iter().find(|key| key.iss == user && key.is(password))
        }
        (None, Some(token)) => keys
            .iter()
            .find(|key| key.verifier.verify(token, unix_ms() / 1000).is_ok())
            .or_else(|| keys.iter().find(|key| key.is(token))),
        (None, None) => None,
    };
    found.map(|key| key.principal.clone())
}

/// So many items a second, and as many at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    left: Mutex<(f64, Instant)>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Arc<Self> {
        let per_second = f64::from(per_second);
        Arc::new(Self { per_second, left: Mutex::new((per_second, Instant::now())) })
    }
}

impl Throttle for Rate {
    fn admit(&self, count: u32) -> Result<(), Duration> {
        let mut left = self.left.lock();
        let now = Instant::now();
        let earned = now.duration_since(left.1).as_secs_f64() * self.per_second;
        *left = ((left.0 + earned).min(self.per_second), now);
        // More than a second's worth passes once all of it is there, and the rest is owed.
        let wanted = f64::from(count).min(self.per_second);
        if left.0 < wanted {
            return Err(Duration::from_secs_f64((wanted - left.0) / self.per_second));
        }
        left.0 -= f64::from(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use broker_core::Rights;
    use grip::signature::Signer;

    use super::*;

    #[test]
    fn a_key_is_shown_by_a_token_by_itself_and_with_a_name() {
        let key = Key::parse("base64:c2VjcmV0").unwrap();
        let verifier = Verifier::new(Some("app"), &key).unwrap();
        let token =
            Signer::new("app", &key).unwrap().sign(unix_ms() / 1000, Duration::from_secs(60)).unwrap();
        let foreign =
            Signer::new("other", &key).unwrap().sign(unix_ms() / 1000, Duration::from_secs(60)).unwrap();
        let late = Signer::new("app", &key).unwrap().sign(1000, Duration::from_secs(60)).unwrap();
        let keys = [ControlKey::new("app", key, verifier, Principal::user_with("app", Rights::all()))];
        let shown = |authorization: &str| {
            let request = http::Request::get("/").header("authorization", authorization).body(()).unwrap();
            let parts = request.into_parts().0;
            let credentials = http_edge::credentials_from(&parts, &http_edge::TokenSources::default());
            find(&keys, &credentials).is_some()
        };
        assert!(shown(&format!("Bearer {token}")));
        assert!(shown("Bearer secret") && shown("Bearer base64:c2VjcmV0"));
        assert!(shown("Basic YXBwOnNlY3JldA=="), "app:secret");
        for refused in [
            &*format!("Bearer {foreign}"),
            &format!("Bearer {late}"),
            "Bearer secreT",
            "Bearer x",
            "Basic b3RoZXI6c2VjcmV0",
            "Basic YXBwOg==",
        ] {
            assert!(!shown(refused), "{refused}");
        }
    }

    #[test]
    fn a_rate_is_so_many_at_once_and_comes_back() {
        let rate = Rate::new(10);
        assert!(rate.admit(10).is_ok());
        let wait = rate.admit(5).unwrap_err();
        assert!(wait > Duration::from_millis(300) && wait <= Duration::from_millis(500), "{wait:?}");
        let large = Rate::new(10);
        assert!(large.admit(100).is_ok(), "more than a second's worth at once");
        assert!(large.admit(1).is_err());
    }
}
