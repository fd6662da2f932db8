//! `POST /v1/revocations`: whoever was let in as a user is to come back and be judged anew.

use broker_core::{Broker, CloseCause, Principal};

use crate::connections::{may_manage_all, of_user};
use crate::error::Error;
use crate::stats::Counters;

/// Most bytes of one.
pub(crate) const MAX_BYTES: usize = 16 << 10;

/// Closes all connections of a user, each in the terms in which its protocol asks to reconnect.
pub(crate) async fn revoke(
    broker: &Broker,
    counters: &Counters,
    principal: &Principal,
    body: &[u8],
) -> Result<Vec<u8>, Error> {
    may_manage_all(principal)?;
    let user = user_of(body).ok_or(Error::Revocation)?;
    let connections = of_user(broker, &user).await;
    for connection in &connections {
        connection.close(&CloseCause::RightsChanged);
        Counters::add(&counters.closed_connections);
    }
    Ok(format!("{{\"closed\":{}}}", connections.len()).into_bytes())
}

fn user_of(body: &[u8]) -> Option<String> {
    let mut revocation: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    match (revocation.remove("user")?, revocation.is_empty()) {
        (serde_json::Value::String(user), true) => Some(user),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_and_nothing_else() {
        for (body, user) in [
            (r#"{"user": "ann"}"#, Some("ann")),
            (r#"{"user": "ann", "more": 1}"#, None),
            (r#"{"more": 1, "user": "ann"}"#, None),
            (r#"{"user": 7}"#, None),
            ("{}", None),
            ("ann", None),
        ] {
            assert_eq!(user_of(body.as_bytes()).as_deref(), user, "{body}");
        }
    }
}
