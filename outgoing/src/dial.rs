//! From a name to a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{AddressPolicy, Config};
use crate::error::{Error, Phase};

/// How long an address is tried alone before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Connects to a host that the configuration permits.
pub(crate) async fn dial(config: &Config, host: &str, port: u16) -> Result<TcpStream, Error> {
    let limit = config.resolve_timeout;
    let known = timeout(limit, resolve(config, host, port))
        .await
        .map_err(|_| Error::timeout(Phase::Resolve, limit))??;
    let addresses = permitted(known, host, config.addresses.as_deref())?;
    let limit = config.connect_timeout;
    let connected = timeout(limit, first_of(addresses)).await;
    let stream = connected.map_err(|_| Error::timeout(Phase::Connect, limit))?.map_err(Error::Connect)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn resolve(config: &Config, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let unknown = |why: String| Error::Resolve { host: host.to_owned(), why };
    let found = match &config.resolver {
        Some(resolver) => resolver.resolve(host, port).await,
        None => lookup_host((host, port)).await.map(Iterator::collect),
    };
    let mut addresses: Vec<SocketAddr> = found.map_err(|error| unknown(error.to_string()))?;
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() { Err(unknown("the name has none".to_owned())) } else { Ok(addresses) }
}

fn permitted(
    mut addresses: Vec<SocketAddr>,
    host: &str,
    policy: Option<&dyn AddressPolicy>,
) -> Result<Vec<SocketAddr>, Error> {
    let Some(policy) = policy else { return Ok(addresses) };
    let first = addresses.first().map(SocketAddr::ip);
    // An IPv4 address is the same one in an IPv6 address, and shall not be asked about under another name.
    addresses.retain(|address| policy.permits(host, address.ip().to_canonical()));
    match first {
        Some(address) if addresses.is_empty() => Err(Error::Forbidden { host: host.to_owned(), address }),
        _ => Ok(addresses),
    }
}

/// The first connection that comes about. A silent address delays the others by its head start only.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut rest = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match rest.next() {
            Some(address) => drop(attempts.spawn(TcpStream::connect(address))),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let ended = if rest.len() > 0 {
            timeout(HEAD_START, attempts.join_next()).await.ok().flatten()
        } else {
            attempts.join_next().await
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(error)) => failure = io::Error::other(error),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug)]
    struct Public;

    impl AddressPolicy for Public {
        fn permits(&self, _: &str, address: IpAddr) -> bool {
            !address.is_loopback()
        }
    }

    #[test]
    fn a_policy_leaves_what_it_permits_and_sees_ipv4_in_ipv6() {
        let addresses =
            |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = addresses(&["127.0.0.1:1", "192.0.2.7:1", "[::ffff:127.0.0.1]:1", "[::1]:1"]);
        assert_eq!(permitted(mixed, "a", Some(&Public)).unwrap(), addresses(&["192.0.2.7:1"]));
        let inner = addresses(&["[::ffff:127.0.0.1]:1"]);
        assert!(matches!(permitted(inner.clone(), "a", Some(&Public)), Err(Error::Forbidden { .. })));
        assert_eq!(permitted(inner.clone(), "a", None).unwrap(), inner);
    }

    #[tokio::test]
    async fn addresses_in_the_url_and_names_are_refused_before_anything_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Config { addresses: Some(Arc::new(Public)), ..Config::default() };
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            let refused = dial(&config, host, port).await.unwrap_err();
            assert!(matches!(refused, Error::Forbidden { .. }), "{host}: {refused}");
        }
        assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    }

    #[tokio::test]
    async fn a_silent_or_closed_address_does_not_keep_the_next_from_being_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        // A listener whose queue is full answers no SYN.
        let full = TcpListener::from_std({
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket.listen(0).unwrap().into_std().unwrap()
        })
        .unwrap();
        let silent = full.local_addr().unwrap();
        let mut fill = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(silent)).await {
            fill.push(stream);
        }
        let before = std::time::Instant::now();
        let stream = first_of(vec![closed, silent, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
        let refused = first_of(vec![closed]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
