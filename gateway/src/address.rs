//! Where the broker may connect to, when others choose the address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use outgoing::AddressPolicy;

/// A range of addresses, `10.0.0.0/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    address: IpAddr,
    bits: u8,
}

impl Range {
    const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(first: u16, second: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether an address lies in it. An IPv4 address lies in no range of IPv6, and the other way round.
    pub fn has(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u32::from(own) ^ u32::from(other)).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (u128::from(own) ^ u128::from(other)).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Range {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| NotARange)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotARange)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(NotARange) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A text that is no address and no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an address nor a range such as 10.0.0.0/8")]
pub struct NotARange;

/// What is refused unless it is listed: networks that only machines inside can reach, and what is no single machine.
/// IANA's registries of special-purpose addresses have the reasons.
const CLOSED: &[(Range, &str)] = &[
    (Range::v4(0, 0, 0, 0, 8), "this network"),
    (Range::v4(10, 0, 0, 0, 8), "a private network"),
    (Range::v4(100, 64, 0, 0, 10), "a carrier's network"),
    (Range::v4(127, 0, 0, 0, 8), "this machine"),
    (Range::v4(169, 254, 0, 0, 16), "the local link, with a cloud's metadata"),
    (Range::v4(172, 16, 0, 0, 12), "a private network"),
    (Range::v4(192, 0, 0, 0, 24), "reserved"),
    (Range::v4(192, 0, 2, 0, 24), "documentation"),
    (Range::v4(192, 88, 99, 0, 24), "reserved"),
    (Range::v4(192, 168, 0, 0, 16), "a private network"),
    (Range::v4(198, 18, 0, 0, 15), "benchmarks"),
    (Range::v4(198, 51, 100, 0, 24), "documentation"),
    (Range::v4(203, 0, 113, 0, 24), "documentation"),
    (Range::v4(224, 0, 0, 0, 4), "multicast"),
    (Range::v4(240, 0, 0, 0, 4), "reserved"),
    (Range::v6(0x0064, 0xff9b, 32), "a translated address that is no single one"),
    (Range::v6(0x0100, 0, 16), "reserved"),
    (Range::v6(0x2001, 0, 23), "reserved"),
    (Range::v6(0x2001, 0x0db8, 32), "documentation"),
    (Range::v6(0x3fff, 0, 20), "documentation"),
    (Range::v6(0x5f00, 0, 16), "reserved"),
    (Range::v6(0xfc00, 0, 7), "a private network"),
    (Range::v6(0xfe80, 0, 10), "the local link"),
    (Range::v6(0xfec0, 0, 10), "a private network"),
    (Range::v6(0xff00, 0, 8), "multicast"),
];

/// The IPv4 address that an IPv6 address carries in itself: mapped (`::ffff:0:0/96`), compatible (`::/96`), 6to4
/// (`2002::/16`), NAT64 (`64:ff9b::/96`).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => from(high, low),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

/// Why an address may not be connected to, whatever is listed; `None`: it is one of the public ones.
fn closed(address: IpAddr) -> Option<&'static str> {
    if let IpAddr::V6(inner) = address {
        if inner == Ipv6Addr::LOCALHOST {
            return Some("this machine");
        }
        // What it carries is where it leads to.
        if let Some(inner) = carried(inner) {
            return closed(IpAddr::V4(inner));
        }
    }
    CLOSED.iter().find(|(range, _)| range.has(address)).map(|(_, why)| *why)
}

/// Which addresses, names and ports may be connected to, for URLs that come from outside the configuration.
///
/// Judged is the address that is dialled, after a name was resolved and at each connection, so that a name that leads
/// somewhere else a moment later makes no difference.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Addresses {
    /// Ranges that are open although they are not public.
    pub allow: Vec<Range>,
    /// Names that may lead anywhere; `*.example.org` is every name below it.
    pub allow_hosts: Vec<String>,
    /// Names that lead nowhere, the same way. They win.
    pub deny_hosts: Vec<String>,
    /// Ports beside 80 and 443.
    pub allow_ports: Vec<u16>,
}

/// Why something may not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// The address.
    #[error("{0} is {1}; gateway.allow_addresses can open it")]
    Address(IpAddr, &'static str),
    /// The name.
    #[error("{0} is one of gateway.deny_hosts")]
    Host(String),
    /// The port.
    #[error("port {0} is neither 80 nor 443; gateway.allow_ports can open it")]
    Port(u16),
}

impl Addresses {
    /// Whether `host` may be connected to at `address`.
    ///
    /// # Errors
    /// Which rule denies it, and which setting would allow it.
    pub fn judge(&self, host: &str, address: IpAddr) -> Result<(), Denied> {
        let host = plain(host);
        if self.deny_hosts.iter().any(|pattern| names(pattern, &host)) {
            return Err(Denied::Host(host));
        }
        if self.allow_hosts.iter().any(|pattern| names(pattern, &host)) {
            return Ok(());
        }
        let inner = match address {
            IpAddr::V6(outer) => carried(outer).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let is_listed = |address| self.allow.iter().any(|range| range.has(address));
        match closed(address) {
            Some(why) if !is_listed(address) && !is_listed(inner) => Err(Denied::Address(address, why)),
            _ => Ok(()),
        }
    }

    /// Whether it is certain already that a URL may not be connected to: its port, a name that is denied, an address in
    /// whatever form, a name of this machine. The one question that is asked of every URL that comes over an API.
    ///
    /// # Errors
    /// Which rule denies it, and which setting would allow it.
    pub fn judge_url(&self, url: &http::Uri) -> Result<(), Denied> {
        self.judge_port(url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 }))?;
        let host = plain(url.host().unwrap_or_default());
        if self.deny_hosts.iter().any(|pattern| names(pattern, &host)) {
            return Err(Denied::Host(host));
        }
        match literal(&host) {
            Some(address) => self.judge(&host, address),
            None if is_of_this_machine(&host) => {
                let at = |address: IpAddr| self.judge(&host, address);
                at(Ipv4Addr::LOCALHOST.into())
                    .or_else(|denied| at(Ipv6Addr::LOCALHOST.into()).map_err(|_| denied))
            }
            None => Ok(()),
        }
    }

    /// Whether a port may be connected to.
    ///
    /// # Errors
    /// [`Denied::Port`].
    pub fn judge_port(&self, port: u16) -> Result<(), Denied> {
        if matches!(port, 80 | 443) || self.allow_ports.contains(&port) {
            Ok(())
        } else {
            Err(Denied::Port(port))
        }
    }
}

impl AddressPolicy for Addresses {
    fn permits(&self, host: &str, address: IpAddr) -> bool {
        self.judge(host, address).is_ok()
    }
}

/// The address that a host is, in any of the forms that the URL standard knows: `127.1` and `0x7f000001` are `127.0.0.1`.
fn literal(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(address);
    }
    let number = |part: &str| {
        let (digits, radix) = match part.as_bytes() {
            [b'0', b'x', ..] => (part.get(2..)?, 16),
            [b'0', _, ..] => (part.get(1..)?, 8),
            _ => (part, 10),
        };
        if digits.is_empty() && radix == 16 { Some(0) } else { u64::from_str_radix(digits, radix).ok() }
    };
    let parts: Vec<u64> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let room = 4_u32.checked_sub(u32::try_from(first.len()).ok()?).filter(|room| *room > 0)?;
    if first.iter().any(|part| *part > 255) || *last >= 1 << (8 * room) {
        return None;
    }
    let high = (0..).zip(first).map(|(at, part)| part << (24 - 8 * at)).sum::<u64>();
    u32::try_from(high + last).ok().map(|address| IpAddr::V4(address.into()))
}

/// `localhost` and what is below it lead to this machine, whoever is asked (RFC 6761 §6.3). A [plain] name.
fn is_of_this_machine(host: &str) -> bool {
    names("localhost", host) || names("*.localhost", host)
}

/// A name without the full stop that only says that it is whole, in small letters.
fn plain(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn names(pattern: &str, host: &str) -> bool {
    let pattern = plain(pattern);
    match pattern.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_refused_at_once_where_it_is_certain() {
        let rules = Addresses { deny_hosts: vec!["*.bad.example".to_owned()], ..Addresses::default() };
        let judged = |url: &str| rules.judge_url(&url.parse().expect("a URL"));
        for url in [
            "https://a.example/",
            "http://1.1.1.1/",
            "https://16843009/",
            "https://0.example:443/",
            "https://localhost.example/",
            "https://notlocalhost/",
        ] {
            assert_eq!(judged(url), Ok(()), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://0x7F.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://169.254.169.254/latest",
            "http://0/",
            "http://localhost/",
            "http://LOCALHOST./",
            "https://app.localhost/",
        ] {
            assert!(matches!(judged(url), Err(Denied::Address(..))), "{url}");
        }
        for opened in ["127.0.0.0/8", "::1"] {
            let rules = Addresses { allow: vec![opened.parse().unwrap()], ..Addresses::default() };
            assert_eq!(rules.judge_url(&"http://localhost/".parse().unwrap()), Ok(()), "{opened}");
        }
        let rules = Addresses { allow_hosts: vec!["*.localhost".to_owned()], ..Addresses::default() };
        assert_eq!(rules.judge_url(&"http://app.localhost/".parse().unwrap()), Ok(()));
        assert!(rules.judge_url(&"http://localhost/".parse().unwrap()).is_err());
        assert_eq!(judged("http://a.example:8080/"), Err(Denied::Port(8080)));
        assert_eq!(judged("http://x.BAD.example./"), Err(Denied::Host("x.bad.example".to_owned())));
    }

    fn judged(rules: &Addresses, text: &str) -> Result<(), Denied> {
        rules.judge("some.example", text.parse().expect("an address"))
    }

    #[test]
    fn only_public_addresses_are_open_in_whatever_form_they_come() {
        let rules = Addresses::default();
        for open in [
            "1.1.1.1",
            "100.63.255.255",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(judged(&rules, open), Ok(()), "{open}");
        }
        let closed = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254 \
            172.16.0.1 172.31.255.255 192.0.0.192 192.168.1.1 198.19.0.1 224.0.0.1 239.1.1.1 240.0.0.1 \
            255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 \
            64:ff9b:1::a00:1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:5ef5:79fd::1 2001:db8::1 fc00::1 fd00:ec2::254 \
            fe80::1 febf::1 fec0::1 ff02::1";
        for closed in closed.split_whitespace() {
            assert!(matches!(judged(&rules, closed), Err(Denied::Address(..))), "{closed}");
        }
    }

    #[test]
    fn what_is_listed_is_open_and_what_is_denied_is_not() {
        let rules = Addresses {
            allow: vec![
                "10.1.0.0/16".parse().unwrap(),
                "fd00::/8".parse().unwrap(),
                "127.0.0.1".parse().unwrap(),
            ],
            allow_hosts: vec!["hooks.internal".to_owned(), "*.Trusted.example".to_owned()],
            deny_hosts: vec!["*.bad.trusted.example".to_owned()],
            allow_ports: vec![8080],
        };
        for open in ["10.1.255.255", "fd12::1", "127.0.0.1", "::ffff:10.1.0.1"] {
            assert_eq!(judged(&rules, open), Ok(()), "{open}");
        }
        for closed in ["10.2.0.0", "127.0.0.2", "fc00::1"] {
            assert!(judged(&rules, closed).is_err(), "{closed}");
        }
        let inside = "10.9.9.9".parse().unwrap();
        for host in ["hooks.internal", "HOOKS.internal.", "a.trusted.example", "a.b.trusted.example"] {
            assert_eq!(rules.judge(host, inside), Ok(()), "{host}");
        }
        for host in ["xhooks.internal", "trusted.example", "atrusted.example", "evil.example"] {
            assert!(rules.judge(host, inside).is_err(), "{host}");
        }
        let public = "1.1.1.1".parse().unwrap();
        assert_eq!(
            rules.judge("a.bad.trusted.example", public),
            Err(Denied::Host("a.bad.trusted.example".into()))
        );
        assert_eq!((rules.judge_port(443), rules.judge_port(8080)), (Ok(()), Ok(())));
        assert_eq!(rules.judge_port(22), Err(Denied::Port(22)));
    }

    #[test]
    fn ranges_are_read_and_shown() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "1.2.3.4/32"] {
            assert_eq!(text.parse::<Range>().map(|range| range.to_string()), Ok(text.to_owned()));
        }
        let all: Range = "0.0.0.0/0".parse().unwrap();
        assert!(all.has("255.0.0.1".parse().unwrap()) && !all.has("::1".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
