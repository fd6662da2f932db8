//! `POST /v1/revocations`: whoever was let in as a user is to come back and be judged anew.

use broker_core::{Broker, CloseCause, Principal};

use crate::connections::{may_manage_all, of_user};
use crate::error::Error;
use crate::nodes::{Elsewhere, Question, Replies, Reply};
use crate::stats::Counters;

/// Most bytes of one.
pub(crate) const MAX_BYTES: usize = 16 << 10;

/// Closes all connections of a user, each in the terms in which its protocol asks to reconnect; in a cluster those of all
/// nodes.
pub(crate) async fn revoke(
    broker: &Broker,
    counters: &Counters,
    elsewhere: &Elsewhere,
    principal: &Principal,
    body: &[u8],
) -> Result<Vec<u8>, Error> {
    may_manage_all(principal)?;
    let user = user_of(body).ok_or(Error::Revocation)?;
    let mut closed = revoke_here(broker, counters, &user).await;
    let mut partial = "";
    if let Some(Replies { replies, mut is_whole }) =
        elsewhere.ask(&Question::Revoke { user: (&user).into() }).await?
    {
        for (_, reply) in replies {
            match reply {
                Reply::Closed(number) => closed += number,
                _ => is_whole = false,
            }
        }
        if !is_whole {
            partial = ",\"partial\":true";
        }
    }
    Ok(format!("{{\"closed\":{closed}{partial}}}").into_bytes())
}

/// Those of this node; how many.
pub(crate) async fn revoke_here(broker: &Broker, counters: &Counters, user: &str) -> usize {
    let connections = of_user(broker, user).await;
    for connection in &connections {
        connection.close(&CloseCause::RightsChanged);
        Counters::add(&counters.closed_connections);
    }
    connections.len()
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
