//! Rates of keys and users: what one node admits the others take out of the same rates.
//!
//! ```text
//! kind, 1 byte | count, 4 | bytes of the issuer, 2 | issuer | bytes of the name, 2 | name
//! ```

use std::sync::Arc;
use std::time::Duration;

use auth::{BuiltIn, RateOf, UsedRate};
use bytes::Bytes;
use cluster::{Cluster, Peer, Service};
use tokio::time::{MissedTickBehavior, interval};

/// What nodes tell each other of rates.
const RATES: &str = "rates";

/// How often it is told what was used: so long others do not know of it.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Has keys and users who come to several nodes of a cluster share one rate: each node tells the others once a second what
/// it has admitted, and they take that out of theirs. Until the cluster is dropped.
pub fn share_rates(cluster: &Arc<Cluster>, authenticator: BuiltIn) {
    let control = cluster.control();
    control.serve(RATES, Arc::new(Heard(authenticator.clone())));
    let cluster = Arc::downgrade(cluster);
    tokio::spawn(async move {
        let mut beats = interval(TELL_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while cluster.strong_count() > 0 {
            beats.tick().await;
            // What is lost is what this node alone counts.
            control.tell_each(RATES, None, &authenticator.take_used_rates(), write).await;
        }
    });
}

/// What other nodes tell.
struct Heard(BuiltIn);

impl Service for Heard {
    fn hear(&self, _: &Peer, notice: Bytes) {
        let mut rest = &notice[..];
        while let Some((used, behind)) = read(rest) {
            self.0.used_elsewhere(&used);
            rest = behind;
        }
    }
}

/// One whose names are too long is not told.
fn write(used: &UsedRate, out: &mut Vec<u8>) {
    let (kind, issuer) = match &used.of {
        RateOf::Key => (1, ""),
        RateOf::User => (2, ""),
        RateOf::Issued(None) => (3, ""),
        RateOf::Issued(Some(issuer)) => (4, &**issuer),
        _ => return,
    };
    let lengths = (u16::try_from(issuer.len()), u16::try_from(used.name.len()));
    let (Ok(issuer_bytes), Ok(name_bytes)) = lengths else { return };
    out.push(kind);
    out.extend_from_slice(&used.count.to_be_bytes());
    out.extend_from_slice(&issuer_bytes.to_be_bytes());
    out.extend_from_slice(issuer.as_bytes());
    out.extend_from_slice(&name_bytes.to_be_bytes());
    out.extend_from_slice(used.name.as_bytes());
}

fn read(bytes: &[u8]) -> Option<(UsedRate, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (issuer, rest) = read_text(rest)?;
    let (name, rest) = read_text(rest)?;
    let of = match kind {
        1 => RateOf::Key,
        2 => RateOf::User,
        3 => RateOf::Issued(None),
        4 => RateOf::Issued(Some(issuer.into())),
        _ => return None,
    };
    Some((UsedRate::new(of, name, u32::from_be_bytes(*count)), rest))
}

fn read_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read() {
        let all = [
            UsedRate::new(RateOf::Key, "k1", 7),
            UsedRate::new(RateOf::User, "ann", u32::MAX),
            UsedRate::new(RateOf::Issued(None), "", 1),
            UsedRate::new(RateOf::Issued(Some("https://a".into())), "böb", 2),
        ];
        let mut told = Vec::new();
        write(&UsedRate::new(RateOf::Key, &"x".repeat(70_000), 1), &mut told);
        assert!(told.is_empty());
        all.iter().for_each(|one| write(one, &mut told));
        let (mut rest, mut found) = (&told[..], Vec::new());
        while let Some((one, behind)) = read(rest) {
            found.push(one);
            rest = behind;
        }
        assert!(found == all && rest.is_empty(), "{found:?}");
        for length in 0..all[0].name.len() + 9 {
            assert!(read(&told[..length]).is_none(), "{length}");
        }
        assert!(read(&[9, 0, 0, 0, 1, 0, 0, 0, 0]).is_none());
    }
}
