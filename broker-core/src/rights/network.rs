//! What counts as one address.

use std::net::IpAddr;

/// The addresses of one host: an IPv4 address, or the /64 of an IPv6 address, which is what one host or customer has
/// and can choose from at will. An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
///
/// Whatever is counted for each address (connections, requests, absent sessions, turns) is counted for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
            }
            v4 => Self(v4),
        }
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_network() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let network = |text: &str| Network::of(text.parse().unwrap());
            assert_eq!(network(a) == network(b), same, "{a} {b}");
        }
        assert_eq!(Network::of("2001:db8::1".parse().unwrap()).address().to_string(), "2001:db8::");
    }
}
