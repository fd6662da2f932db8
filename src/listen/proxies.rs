//! Whose word counts for where a client comes from: proxies that are trusted, by the PROXY protocol and by the
//! headers of HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use ppp::{v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Addresses that count as one: `10.0.0.0/8`, `2001:db8::/32`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IP address, or a range of them like 10.0.0.0/8, is needed")]
pub struct NoRange;

impl FromStr for AddressRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NoRange)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoRange)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        if bits > all { Err(NoRange) } else { Ok(AddressRange { address, bits }) }
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl AddressRange {
    /// Whether an address is in it. IPv4 that is written as IPv6 is IPv4.
    pub fn has(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, all: u32| {
            let beyond = all - u32::from(self.bits).min(all);
            one.checked_shr(beyond).unwrap_or(0) == other.checked_shr(beyond).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                same(u32::from(range).into(), u32::from(address).into(), 32)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => same(range.into(), address.into(), 128),
            _ => false,
        }
    }
}

/// Which header of HTTP says where a request came from. Only one, as a proxy that sets one lets the other pass as its
/// client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Whether trusted proxies begin a connection with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// They do not, and what looks like one is none.
    Off,
    /// They may.
    #[default]
    Optional,
    /// They must; a connection without one is closed.
    Required,
}

/// Proxies whose word counts, and how they give it. The default trusts nobody.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrustedProxies {
    /// Where they are.
    pub addresses: Vec<AddressRange>,
    /// What they set on requests.
    pub header: ForwardedHeader,
    /// What they begin connections with.
    pub protocol: ProxyProtocol,
}

/// The longest header of version 1, and of version 2 what is read of one: addresses, and room for what else stands
/// there.
const MAX_V1: usize = 107;
const MAX_V2: usize = 4 << 10;
const V2_START: usize = 16;

/// How soon a proxy is asked again that has sent a part of its header.
const PAUSE: Duration = Duration::from_millis(5);

impl TrustedProxies {
    /// Whether this address is one of theirs.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.has(address))
    }

    /// Where a request came from that a connection from `peer` brought: of the addresses that it was passed on for,
    /// the last that is no proxy of ours. What is in front of that may be anybody's invention.
    pub(crate) fn origin_of(&self, peer: SocketAddr, headers: &HeaderMap) -> RequestOrigin {
        if self.addresses.is_empty() || !self.has(peer.ip()) {
            return RequestOrigin { client: peer, https: false };
        }
        let (name, node): (&str, fn(&str) -> Option<SocketAddr>) = match self.header {
            ForwardedHeader::XForwardedFor => ("x-forwarded-for", node_of),
            ForwardedHeader::Forwarded => ("forwarded", node_of_forwarded),
        };
        let mut origin = RequestOrigin { client: peer, https: false };
        for element in last_first(headers, name) {
            // A name that hides one, or nonsense: what is known ends here.
            let Some(address) = node(element) else { break };
            origin.client = address;
            if self.header == ForwardedHeader::Forwarded {
                // Said by the same proxy of the same client.
                origin.https = parameter(element, "proto").is_some_and(is_https);
            }
            if !self.has(address.ip()) {
                break;
            }
        }
        if self.header == ForwardedHeader::XForwardedFor {
            // The last one is the word of the proxy that is asked here.
            origin.https = last_first(headers, "x-forwarded-proto").next().is_some_and(is_https);
        }
        origin
    }

    /// Reads the header of the PROXY protocol that a connection begins with: whose it is, `None` if it says nothing
    /// of that.
    ///
    /// # Errors
    /// There is none and must be one, or it is none that can be read.
    pub(crate) async fn read_header(&self, stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
        if self.protocol == ProxyProtocol::Off {
            return Ok(None);
        }
        let mut start = [0; MAX_V1];
        loop {
            let seen = stream.peek(&mut start).await?;
            let start = start.get(..seen).unwrap_or_default();
            let length = match header_length(start) {
                Length::None if self.protocol == ProxyProtocol::Required => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Length::None => return Ok(None),
                Length::Unknown if seen == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // It waits in the socket, where there would be no event to wait for.
                Length::Unknown => {
                    sleep(PAUSE).await;
                    continue;
                }
                Length::Is(length) if length <= MAX_V2 => length,
                Length::Is(_) => return Err(io::ErrorKind::InvalidData.into()),
            };
            let mut whole = vec![0; length];
            stream.read_exact(&mut whole).await?;
            return source(&whole);
        }
    }
}

/// What is known of where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestOrigin {
    pub(crate) client: SocketAddr,
    /// A proxy says that it was inside of TLS.
    pub(crate) https: bool,
}

/// The elements of all lines of a header, the last one first.
fn last_first<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

fn is_https(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https")
}

pub(super) enum Length {
    /// It is no header.
    None,
    /// That cannot be told yet.
    Unknown,
    Is(usize),
}

pub(super) fn header_length(start: &[u8]) -> Length {
    let (v1, v2) = (v1::PROTOCOL_PREFIX.as_bytes(), v2::PROTOCOL_PREFIX);
    let begins = |with: &[u8]| start.starts_with(with) || with.starts_with(start);
    if begins(v2) {
        return match start.get(V2_START - 2..V2_START) {
            Some(&[high, low]) => Length::Is(V2_START + usize::from(u16::from_be_bytes([high, low]))),
            _ => Length::Unknown,
        };
    }
    if !begins(v1) {
        return Length::None;
    }
    // However much of it is there: what ends later is none.
    match start.get(..MAX_V1).unwrap_or(start).windows(2).position(|end| end == b"\r\n") {
        Some(at) => Length::Is(at + 2),
        None if start.len() >= MAX_V1 => Length::None,
        None => Length::Unknown,
    }
}

pub(super) fn source(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header).map_err(|_| wrong(()))?;
        return Ok(match (header.command, header.addresses) {
            // A question of the proxy's own: whether we are there.
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
            (_, v2::Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
            (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        });
    }
    let header = v1::Header::try_from(header).map_err(|_| wrong(()))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

/// An address, perhaps with a port, perhaps in brackets. Without a port it is 0.
fn node_of(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Some(address),
        (_, Ok(address)) => Some((address, 0).into()),
        _ => None,
    }
}

/// The `for` of one element: `for="[2001:db8::1]:4711";proto=https`.
fn node_of_forwarded(element: &str) -> Option<SocketAddr> {
    parameter(element, "for").and_then(node_of)
}

fn parameter<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        let addresses = ["10.0.0.0/8", "::1", "2001:db8::/32"].map(|range| range.parse().unwrap()).to_vec();
        TrustedProxies { addresses, header, ..TrustedProxies::default() }
    }

    #[test]
    fn ranges_have_what_they_say() {
        for (range, address, has) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "2001:db8::1", true),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert_eq!(range.has(address.parse().unwrap()), has, "{range} {address}");
        }
        for wrong in ["", "10.0.0.0/33", "::1/129", "10.0.0/8", "a.example", "10.0.0.0/-1", "10.0.0.0/"] {
            assert_eq!(wrong.parse::<AddressRange>(), Err(NoRange), "{wrong}");
        }
    }

    #[test]
    fn the_client_is_the_last_one_that_no_proxy_of_ours_is() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        for (which, peer, lines, expected) in [
            (XForwardedFor, "10.0.0.1:5", &["203.0.113.9"][..], "203.0.113.9:0"),
            (XForwardedFor, "10.0.0.1:5", &["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9:0"),
            (XForwardedFor, "10.0.0.1:5", &["1.1.1.1", "203.0.113.9", "10.0.0.2"], "203.0.113.9:0"),
            (XForwardedFor, "10.0.0.1:5", &["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            (XForwardedFor, "10.0.0.1:5", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2:0"),
            (XForwardedFor, "10.0.0.1:5", &["nonsense"], "10.0.0.1:5"),
            (XForwardedFor, "10.0.0.1:5", &["203.0.113.9:77"], "203.0.113.9:77"),
            (XForwardedFor, "[::1]:5", &["2002::1"], "[2002::1]:0"),
            (XForwardedFor, "203.0.113.1:5", &["1.1.1.1"], "203.0.113.1:5"),
            (XForwardedFor, "10.0.0.1:5", &[], "10.0.0.1:5"),
            (Forwarded, "10.0.0.1:5", &["for=1.1.1.1, For=\"[2002::7]:4711\";proto=https"], "[2002::7]:4711"),
            (Forwarded, "10.0.0.1:5", &["proto=https;for=203.0.113.9;by=x, for=10.1.1.1"], "203.0.113.9:0"),
            (Forwarded, "10.0.0.1:5", &["for=1.1.1.1, for=_hidden"], "10.0.0.1:5"),
        ] {
            let name = if which == Forwarded { "forwarded" } else { "x-forwarded-for" };
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(name, line.parse().unwrap());
            }
            // The other one is whatever the client sent.
            let other = if which == Forwarded { "x-forwarded-for" } else { "forwarded" };
            headers.append(other, "for=6.6.6.6".parse().unwrap());
            let client = proxies(which).origin_of(peer.parse().unwrap(), &headers).client;
            assert_eq!(client.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn that_a_request_came_by_https_is_the_last_word_of_a_proxy_of_ours() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        let proto = "x-forwarded-proto";
        for (which, peer, lines, https) in [
            (XForwardedFor, "10.0.0.1:5", &[(proto, "https")][..], true),
            (XForwardedFor, "10.0.0.1:5", &[(proto, "http, HTTPS")], true),
            (XForwardedFor, "10.0.0.1:5", &[(proto, "https"), (proto, "http")], false),
            (XForwardedFor, "10.0.0.1:5", &[("x-forwarded-for", "203.0.113.9")], false),
            (XForwardedFor, "203.0.113.1:5", &[(proto, "https")], false),
            // Not what the proxy sets, so that the client may have.
            (XForwardedFor, "10.0.0.1:5", &[("forwarded", "for=203.0.113.9;proto=https")], false),
            (Forwarded, "10.0.0.1:5", &[(proto, "https"), ("forwarded", "for=203.0.113.9")], false),
            (Forwarded, "10.0.0.1:5", &[("forwarded", "Proto=\"https\";for=203.0.113.9")], true),
            (
                Forwarded,
                "10.0.0.1:5",
                &[("forwarded", "for=203.0.113.9;proto=https, for=10.1.1.1;proto=http")],
                true,
            ),
            (
                Forwarded,
                "10.0.0.1:5",
                &[("forwarded", "for=6.6.6.6;proto=https, for=203.0.113.9;proto=http")],
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(proxies(which).origin_of(peer.parse().unwrap(), &headers).https, https, "{lines:?}");
        }
    }

    #[test]
    fn the_header_of_a_connection_has_a_length_before_it_is_whole() {
        let v2 =
            [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0, 12], &[192, 0, 2, 1, 10, 0, 0, 1, 1, 0, 2, 0]].concat();
        let v1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 256 512\r\n".to_vec();
        for header in [v1, v2] {
            let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert!(matches!(header_length(&followed), Length::Is(length) if length == header.len()));
            assert_eq!(source(&header).unwrap(), Some(([192, 0, 2, 1], 256).into()));
            assert!(matches!(header_length(&header[..1]), Length::Unknown));
            assert!(matches!(header_length(&header[..5]), Length::Unknown));
        }
        for other in [&b"GET / HTTP/1.1"[..], b"PRI * HTTP/2.0\r\n", b"\x10\x0c\x00\x04MQTT", b"POST /"] {
            assert!(matches!(header_length(other), Length::None));
        }
        assert_eq!(source(b"PROXY UNKNOWN\r\n").unwrap(), None);
        assert!(source(b"PROXY TCP4 nobody\r\n").is_err());
        let local = [v2::PROTOCOL_PREFIX, &[0x20, 0, 0, 0]].concat();
        assert_eq!(source(&local).unwrap(), None);
    }
}
