//! Users with a password: argon2, which is slow by design, and what keeps that from stopping everybody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Rate;
use crate::turns::{TooMany, Turns};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use broker_core::{AuthError, Principal, RightsTemplate};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// A user as it is configured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct User {
    /// The name, as MQTT CONNECT and HTTP Basic send it.
    pub name: Arc<str>,
    /// The password's argon2 hash in PHC form, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    pub password_hash: String,
    /// What the user may do.
    pub rights: RightsTemplate,
    /// How often all connections of the user may act together; `None`: no limit.
    pub rate: Option<Rate>,
}

impl User {
    /// Who may act as often as it likes.
    pub fn new(name: impl Into<Arc<str>>, password_hash: impl Into<String>, rights: RightsTemplate) -> Self {
        Self { name: name.into(), password_hash: password_hash.into(), rights, rate: None }
    }
}

/// Bounds of checking passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordLimits {
    /// Checks at a time; each takes a core for tens of milliseconds and, with argon2's defaults, 19 MiB. Default: half
    /// the cores, at least one.
    pub max_concurrent: usize,
    /// Checks that may wait for their turn, in a queue for each address; with one more, the last of the address that
    /// has most of them is told to try again. Default 1,000.
    pub max_waiting: usize,
    /// How long a password that was right is known to be so without another check. Only a keyed hash of it is kept, in
    /// memory. Default 5 min; 0 checks each time.
    pub remember: Duration,
    /// Passwords that are remembered; beyond them those whose time is nearly over are forgotten. Default 10,000.
    pub max_remembered: usize,
}

impl Default for PasswordLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_concurrent: (cores / 2).max(1),
            max_waiting: 1000,
            remember: Duration::from_secs(300),
            max_remembered: 10_000,
        }
    }
}

/// What is configured of a user, ready to be checked.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) password_hash: String,
    pub(super) principal: Principal,
}

/// Hashes a password with argon2id and a random salt, in PHC form.
///
/// # Errors
/// The system gives no random numbers.
pub fn hash_password(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

/// Memory beyond which a configured hash is refused, in KiB: 1 GiB for one check is a mistake.
const MAX_MEMORY_KIB: u32 = 1 << 20;

/// Whether a hash can be checked at all.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_hash(text: &str) -> Result<(), String> {
    const HELP: &str = "`fanwire key hash-password` makes one";
    let hash = PasswordHash::new(text).map_err(|error| format!("not an argon2 hash ({error}); {HELP}"))?;
    let params = argon2::Params::try_from(&hash).map_err(|error| format!("{error}; {HELP}"))?;
    if argon2::Algorithm::try_from(hash.algorithm.as_str()).is_err() || hash.hash.is_none() {
        return Err(format!("not an argon2 hash; {HELP}"));
    }
    if params.m_cost() > MAX_MEMORY_KIB {
        return Err(format!("m={} is more than {MAX_MEMORY_KIB} KiB", params.m_cost()));
    }
    Ok(())
}

/// Checks passwords, few at a time, and remembers those that were right.
#[derive(Debug)]
pub(super) struct Checker {
    limits: PasswordLimits,
    turns: Turns,
    remembered: Mutex<HashMap<[u8; 32], (Principal, Instant)>>,
    /// Makes the remembered hashes worthless outside this process.
    pepper: [u8; 32],
    /// Checked where there is no such user, so that the time does not tell who exists.
    nobody: String,
}

impl Checker {
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new(limits: PasswordLimits) -> Result<Self, String> {
        let mut pepper = [0; 32];
        getrandom::fill(&mut pepper).map_err(|error| error.to_string())?;
        Ok(Self {
            limits,
            turns: Turns::new(limits.max_concurrent, limits.max_waiting),
            remembered: Mutex::default(),
            pepper,
            nobody: hash_password(&pepper).map_err(|error| error.to_string())?,
        })
    }

    /// The account's principal, if the password is its own. `from` is where it comes from: each address waits for
    /// itself.
    pub(super) async fn check(
        &self,
        name: &str,
        password: &[u8],
        account: Option<&Account>,
        from: Option<IpAddr>,
    ) -> Result<Principal, AuthError> {
        let digest = self.digest(name, password);
        if let Some(known) = account.and_then(|_| self.recall(&digest)) {
            return Ok(known);
        }
        let busy = |TooMany| AuthError::Busy { retry_after: Duration::from_secs(1) };
        let turn = self.turns.acquire(from).await.map_err(busy)?;
        // Of a thousand connections with one password the first is checked while the others wait.
        if let Some(known) = account.and_then(|_| self.recall(&digest)) {
            return Ok(known);
        }
        let hash = account.map_or(&self.nobody, |account| &account.password_hash).clone();
        let password = password.to_vec();
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        match (checked.await.map_err(|_| unavailable())?, account) {
            (true, Some(account)) => {
                self.remember(digest, &account.principal);
                Ok(account.principal.clone())
            }
            _ => Err(AuthError::Invalid("wrong user name or password".to_owned())),
        }
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(self.pepper);
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update(password);
        // The pepper stands behind too, so that nothing can be appended to a known hash.
        hash.update(self.pepper);
        hash.finalize().into()
    }

    fn recall(&self, digest: &[u8; 32]) -> Option<Principal> {
        let remembered = self.remembered.lock();
        let (principal, until) = remembered.get(digest)?;
        (*until > Instant::now()).then(|| principal.clone())
    }

    fn remember(&self, digest: [u8; 32], principal: &Principal) {
        let PasswordLimits { remember, max_remembered, .. } = self.limits;
        let now = Instant::now();
        let Some(until) = now.checked_add(remember).filter(|until| *until > now) else { return };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= max_remembered {
            // Half at once, so that a full memory is not searched for each new one.
            let limit = now + remember / 2;
            remembered.retain(|_, (_, until)| *until > limit);
        }
        if remembered.len() < max_remembered {
            remembered.insert(digest, (principal.clone(), until));
        }
    }
}

fn unavailable() -> AuthError {
    AuthError::Unavailable("passwords cannot be checked now".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::Rights;

    fn cheap(password: &[u8]) -> String {
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(password).unwrap().to_string()
    }

    fn account(password: &str) -> Account {
        let principal = Principal::user_with("ann", Rights::all());
        Account { password_hash: cheap(password.as_bytes()), principal }
    }

    #[tokio::test]
    async fn only_the_right_password_passes_also_from_memory() {
        let checker = Checker::new(PasswordLimits::default()).unwrap();
        let ann = account("secret");
        for _ in 0..2 {
            assert_eq!(checker.check("ann", b"secret", Some(&ann), None).await.unwrap().user(), Some("ann"));
            assert!(checker.check("ann", b"Secret", Some(&ann), None).await.is_err());
            assert!(
                checker.check("anns", b"ecret", Some(&ann), None).await.is_err(),
                "no confusion of the two"
            );
            assert!(checker.check("ann", b"secret", None, None).await.is_err(), "the account is gone");
        }
        assert_eq!(checker.remembered.lock().len(), 1);
    }

    #[tokio::test]
    async fn memory_and_waiting_are_bounded() {
        let limits = PasswordLimits { max_remembered: 2, max_waiting: 1, ..PasswordLimits::default() };
        let checker = Checker::new(limits).unwrap();
        for password in ["a", "b", "c", "d"] {
            checker.check("ann", password.as_bytes(), Some(&account(password)), None).await.unwrap();
        }
        assert_eq!(checker.remembered.lock().len(), 2);
        let mut turns = Vec::new();
        for _ in 0..limits.max_concurrent {
            turns.push(checker.turns.acquire(None).await.unwrap());
        }
        let ann = account("x");
        let first = checker.check("ann", b"x", Some(&ann), None);
        tokio::pin!(first);
        assert!(tokio::time::timeout(Duration::from_millis(10), first.as_mut()).await.is_err(), "it waits");
        let second = checker.check("ann", b"x", Some(&ann), None).await;
        assert!(matches!(second, Err(AuthError::Busy { .. })), "{second:?}");
    }

    #[test]
    fn what_is_no_argon2_hash_is_said_at_once() {
        assert_eq!(check_hash(&cheap(b"x")), Ok(()));
        assert_eq!(check_hash(&hash_password(b"x").unwrap()), Ok(()));
        for wrong in [
            "",
            "secret",
            "$2b$10$abc",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ",
            "$pbkdf2$i=1$c2FsdHNhbHQ$aGFzaGhhc2g",
        ] {
            assert!(check_hash(wrong).is_err(), "{wrong}");
        }
    }
}
