//! What the configuration says about clients, as an authenticator.

use broker_core::{AuthError, Authenticated, Authenticator, Credentials, Principal, Rights};

/// Lets clients without credentials in with the rights that the configuration gives them.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    anonymous: Principal,
}

impl BuiltIn {
    /// Clients without credentials get `anonymous`.
    pub fn new(anonymous: Rights) -> Self {
        BuiltIn { anonymous: Principal::anonymous(anonymous) }
    }
}

impl Authenticator for BuiltIn {
    /// Credentials that nothing here can check are refused: who presents some must not be served as nobody. A bare user
    /// name claims nothing that a secret would back, so it stays anonymous.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let presents_secret = credentials.token.is_some() || credentials.password.is_some();
        Box::pin(async move {
            if presents_secret {
                return Err(AuthError::Invalid("no keys or passwords are configured here".to_owned()));
            }
            Ok(self.anonymous.clone())
        })
    }
}
