//! SCRAM-SHA-256 (RFC 7677) as a mechanism for enhanced authentication, on `rsasl`.
//!
//! The server keeps a salted hash; the password never crosses the wire, and the client learns in turn that
//! the server knows the hash.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use broker_core::{AuthError, Principal};
use hmac::{Hmac, Mac};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::prelude::{Mechname, SASLConfig, SASLServer, Session, SessionError, State, Validation};
use rsasl::property::{AuthId, AuthzId};
use rsasl::validate::{Validate, ValidationError};
use sha2::{Digest, Sha256};

use crate::auth::{Exchange, Mechanism, Step, Stepping};

/// The name clients put into the authentication method.
const NAME: &str = "SCRAM-SHA-256";

/// Where the users are. Asked once for each exchange, from the connection's task: it must not block.
pub trait ScramUsers: Send + Sync + 'static {
    /// The user of that name.
    fn find(&self, user: &str) -> Option<ScramUser>;
}

/// What the server keeps of a user instead of a password.
#[derive(Clone)]
#[non_exhaustive]
pub struct ScramUser {
    /// Rounds of PBKDF2; RFC 7677 asks for 4,096 at least.
    pub iterations: u32,
    /// Random, different for each user.
    pub salt: Vec<u8>,
    /// Checks the client's proof.
    pub stored_key: [u8; 32],
    /// Makes the server's proof.
    pub server_key: [u8; 32],
    /// Who the user is once the proof was right.
    pub principal: Principal,
}

impl ScramUser {
    /// Of keys that were derived before, by [`from_password`](Self::from_password) or elsewhere.
    pub fn from_keys(
        iterations: u32,
        salt: Vec<u8>,
        stored_key: [u8; 32],
        server_key: [u8; 32],
        principal: Principal,
    ) -> Self {
        Self { iterations, salt, stored_key, server_key, principal }
    }

    /// Derives the keys from a password (RFC 5802 §3). Slow by design: do it once and keep the result.
    pub fn from_password(password: &str, salt: Vec<u8>, iterations: u32, principal: Principal) -> Self {
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations);
        let key = |label: &[u8]| -> [u8; 32] {
            // HMAC takes keys of any length, so there is no other case.
            Hmac::<Sha256>::new_from_slice(&salted)
                .map_or([0; 32], |mac| mac.chain_update(label).finalize().into_bytes().into())
        };
        let stored_key = Sha256::digest(key(b"Client Key")).into();
        Self { iterations, salt, stored_key, server_key: key(b"Server Key"), principal }
    }
}

impl fmt::Debug for ScramUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramUser").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// The mechanism `SCRAM-SHA-256`; give it to [`Front::with_mechanism`](crate::Front::with_mechanism).
pub struct ScramSha256(Arc<SASLConfig>);

impl ScramSha256 {
    /// For these users.
    ///
    /// # Errors
    /// The library was built without the mechanism.
    pub fn new(users: Arc<dyn ScramUsers>) -> Result<Self, AuthError> {
        let lookup = Lookup { users, decoy: RandomState::new() };
        SASLConfig::builder()
            .with_defaults()
            .with_callback(lookup)
            .map(Self)
            .map_err(|error| AuthError::Unavailable(error.to_string()))
    }
}

impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramSha256")
    }
}

impl Mechanism for ScramSha256 {
    fn name(&self) -> &str {
        NAME
    }

    fn begin(&self, _: &str) -> Box<dyn Exchange> {
        let session = Mechname::parse(NAME.as_bytes())
            .ok()
            .and_then(|name| SASLServer::<Known>::new(self.0.clone()).start_suggested(name).ok());
        Box::new(Scram { session, expects: Message::First })
    }
}

/// What a finished exchange has found out.
struct Known;

impl Validation for Known {
    type Value = Principal;
}

struct Scram {
    session: Option<Session<Known>>,
    expects: Message,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Message {
    First,
    Final,
}

impl Message {
    /// Whether it is a list of attributes at all (RFC 5802 §7). The library looks at the first two bytes of
    /// each without asking whether they are there.
    fn has_shape(self, data: &[u8]) -> bool {
        let mut parts = data.split(|byte| *byte == b',');
        let is_attribute = |part: &[u8]| part.len() >= 2 && part.get(1) == Some(&b'=');
        match self {
            Self::First => {
                let flag =
                    parts.next().is_some_and(|flag| matches!(flag, [b'n'] | [b'y']) || is_attribute(flag));
                let other_user = parts.next().is_some_and(|part| part.is_empty() || is_attribute(part));
                flag && other_user && parts.clone().count() >= 2 && parts.all(is_attribute)
            }
            Self::Final => parts.clone().count() >= 3 && parts.all(is_attribute),
        }
    }
}

impl Scram {
    fn advance(&mut self, data: &[u8]) -> Step {
        let failed = |why: &str| Step::Failed(AuthError::Invalid(why.into()));
        let Some(session) = &mut self.session else {
            return Step::Failed(AuthError::Unavailable("the mechanism is not there".into()));
        };
        if !std::mem::replace(&mut self.expects, Message::Final).has_shape(data) {
            return failed("not a SCRAM message");
        }
        let mut answer = Vec::new();
        match session.step(Some(data), &mut answer) {
            Ok(State::Running) => Step::Continue(answer),
            // A wrong proof finishes the exchange too, but validates nobody.
            Ok(State::Finished(_)) => match session.validation() {
                Some(principal) => Step::Done { principal, data: answer },
                None => failed("wrong user or password"),
            },
            Err(_) => failed("not a SCRAM message"),
        }
    }
}

impl Exchange for Scram {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> Stepping<'a> {
        let step = self.advance(data);
        Box::pin(async { step })
    }
}

/// Answers the library's questions.
struct Lookup {
    users: Arc<dyn ScramUsers>,
    decoy: RandomState,
}

impl Lookup {
    /// An unknown user gets a salt that stays the same, as a known one's does, and keys nobody can prove:
    /// from outside the two look alike.
    fn find_or_decoy(&self, user: &str) -> ScramUser {
        self.users.find(user).unwrap_or_else(|| {
            let bytes = |label: &str| self.decoy.hash_one((label, user)).to_be_bytes();
            let salt = [bytes("salt"), bytes("more salt")].concat();
            let key = |label| Sha256::digest(bytes(label)).into();
            ScramUser {
                iterations: 4096,
                salt,
                stored_key: key("stored"),
                server_key: key("server"),
                principal: Principal::anonymous(broker_core::Rights::none()),
            }
        })
    }
}

impl SessionCallback for Lookup {
    fn callback(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        if request.is::<ScramStoredPassword<'static>>() {
            let user = self.find_or_decoy(&plain(context.get_ref::<AuthId>()));
            request.satisfy::<ScramStoredPassword<'static>>(&ScramStoredPassword::new(
                user.iterations,
                &user.salt,
                &user.stored_key,
                &user.server_key,
            ))?;
        }
        Ok(())
    }

    fn validate(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let user = plain(context.get_ref::<AuthId>());
        // Nobody may act as somebody else.
        let other = plain(context.get_ref::<AuthzId>());
        let acts_as_itself = other.is_empty() || other == user;
        if let Some(known) = self.users.find(&user).filter(|_| acts_as_itself) {
            validate.finalize::<Known>(known.principal);
        }
        Ok(())
    }
}

/// A name as it was before it was escaped for the wire (RFC 5802 §5.1).
fn plain(name: Option<&str>) -> String {
    name.unwrap_or_default().replace("=2C", ",").replace("=3D", "=")
}

#[cfg(test)]
mod tests {
    use broker_core::Rights;
    use rsasl::prelude::SASLClient;

    use super::*;

    struct OneUser(ScramUser);

    impl ScramUsers for OneUser {
        fn find(&self, user: &str) -> Option<ScramUser> {
            (user == "user").then(|| self.0.clone())
        }
    }

    fn mechanism() -> ScramSha256 {
        let principal = Principal::user_with("user", Rights::all());
        let user = ScramUser::from_password("pencil", b"W22ZaJ0SNY7soEsUEjb6gQ".to_vec(), 4096, principal);
        ScramSha256::new(Arc::new(OneUser(user))).unwrap()
    }

    /// RFC 7677 §3: the keys of its example.
    #[test]
    fn keys_are_derived_as_the_standard_says() {
        let salt =
            [0x5B, 0x6D, 0x99, 0x68, 0x9D, 0x12, 0x35, 0x8E, 0xEC, 0xA0, 0x4B, 0x14, 0x12, 0x36, 0xFA, 0x81];
        let nobody = Principal::anonymous(Rights::none());
        let user = ScramUser::from_password("pencil", salt.to_vec(), 4096, nobody);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
                       r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                       c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = Hmac::<Sha256>::new_from_slice(&user.server_key).unwrap().chain_update(message);
        // v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=
        assert_eq!(signature.finalize().into_bytes()[..4], [0xEA, 0xBA, 0xE2, 0x4D]);
    }

    #[tokio::test]
    async fn the_right_password_is_let_in_and_no_other() {
        let mechanism = mechanism();
        for (user, password, let_in) in
            [("user", "pencil", true), ("user", "pen", false), ("nobody", "pencil", false)]
        {
            let config = SASLConfig::with_credentials(None, user.into(), password.into()).unwrap();
            let offered = [Mechname::parse(NAME.as_bytes()).unwrap()];
            let mut client = SASLClient::new(config).start_suggested(&offered).unwrap();
            let mut server = mechanism.begin("c");
            let mut said = Vec::new();
            client.step(None, &mut said).unwrap();
            let Step::Continue(challenge) = server.step(&said).await else {
                panic!("no challenge for {user}")
            };
            said.clear();
            client.step(Some(&challenge), &mut said).unwrap();
            match server.step(&said).await {
                Step::Done { principal, data } => {
                    assert!(let_in, "{user} {password}");
                    assert_eq!(principal.user(), Some("user"));
                    said.clear();
                    client.step(Some(&data), &mut said).unwrap();
                }
                Step::Failed(_) => assert!(!let_in, "{user} {password}"),
                Step::Continue(_) => panic!("one step too many"),
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_user_looks_like_a_known_one() {
        let mechanism = mechanism();
        let mut salts = Vec::new();
        for _ in 0..2 {
            let mut server = mechanism.begin("c");
            let Step::Continue(challenge) = server.step(b"n,,n=nobody,r=abcdefgh").await else {
                panic!("refused")
            };
            let challenge = String::from_utf8(challenge).unwrap();
            salts.push(challenge.split_once(",s=").unwrap().1.to_owned());
        }
        assert_eq!(salts[0], salts[1]);
    }

    #[tokio::test]
    async fn noise_is_refused() {
        let mechanism = mechanism();
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut noise = move |seed: &[u8]| {
            let mut out = seed.to_vec();
            for _ in 0..random % 4 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = random as usize % out.len();
                out[at] = b",=nry\0ac\xFF"[(random >> 32) as usize % 9];
                let cut = (random >> 40) as usize % 3;
                out.truncate(out.len().saturating_sub(cut).max(1));
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            out
        };
        for _ in 0..20_000 {
            let mut server = mechanism.begin("c");
            if let Step::Continue(_) = server.step(&noise(b"n,,n=nobody,r=abcdefgh")).await {
                let last = server
                    .step(&noise(b"c=biws,r=abcdefgh,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
                    .await;
                assert!(matches!(last, Step::Failed(_)));
            }
        }
        for short in [&b""[..], b"n", b"n,,", b"n,,n=,r=", b"n,a,n=x,r=y", b"p=tls-unique,,n=user,r=abc"] {
            let mut server = mechanism.begin("c");
            _ = server.step(short).await;
        }
    }
}
