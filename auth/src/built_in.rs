//! The authenticator that a configuration makes.

use std::sync::Arc;

use broker_core::{Authenticated, Authenticator, Credentials, Principal, Rights};
use parking_lot::RwLock;

use crate::access::Answers;
use crate::{Access, AccessError, UsedRate};

/// Answers by what an [`Access`] says, which can be replaced at any time. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct BuiltIn(Arc<RwLock<Arc<Answers>>>);

impl BuiltIn {
    /// Clients without credentials get `anonymous`; there are no others.
    pub fn new(anonymous: Rights) -> Self {
        let access = Access { anonymous: Some(anonymous), ..Access::default() };
        let answers = Answers::new(access, None);
        Self(Arc::new(RwLock::new(Arc::new(
            answers.expect("nothing but rights can be wrong with an access"),
        ))))
    }

    /// By all that `access` says.
    ///
    /// # Errors
    /// What is wrong with it: a file that cannot be read, a key of the wrong type, the same name twice.
    pub fn with(access: Access) -> Result<Self, AccessError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(Answers::new(access, None)?)))))
    }

    /// Goes on with another one. Rates keep what was used of them, fetched keys stay. Whoever is connected is not
    /// touched: ask [`still_holds`](Authenticator::still_holds).
    ///
    /// # Errors
    /// As [`BuiltIn::with`]; the old one stays.
    pub fn replace(&self, access: Access) -> Result<(), AccessError> {
        let before = self.answers();
        let answers = Answers::new(access, Some(&before))?;
        *self.0.write() = Arc::new(answers);
        Ok(())
    }

    /// What was used of the rates of keys and users since this was asked last: for other nodes, whose
    /// [`used_elsewhere`](Self::used_elsewhere) takes it out of the same rates there. Users of issuers are counted from the
    /// first time on, 16,384 of each at a time.
    pub fn take_used_rates(&self) -> Vec<UsedRate> {
        self.answers().take_used_rates()
    }

    /// Somebody has used so much of a rate on another node: it is taken out of that rate here as soon as there is something
    /// to take, and until then nothing of it is left for anybody. At most a minute of the rate is taken in advance.
    pub fn used_elsewhere(&self, used: &UsedRate) {
        self.answers().used_elsewhere(used);
    }

    fn answers(&self) -> Arc<Answers> {
        Arc::clone(&self.0.read())
    }
}

impl Authenticator for BuiltIn {
    /// Credentials that nothing here can check are refused: who presents some must not be served as nobody.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let answers = self.0.read();
        if let Some(answer) = answers.at_once(&credentials) {
            return Authenticated::now(answer);
        }
        let answers = Arc::clone(&answers);
        Authenticated::later(async move { answers.authenticate(credentials).await })
    }

    fn still_holds(&self, principal: &Principal) -> bool {
        self.answers().still_holds(principal)
    }

    fn renewed(&self, principal: &Principal) -> Option<Principal> {
        self.answers().renewed(principal)
    }
}
