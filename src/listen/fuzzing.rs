//! Whom a proxy speaks for, and what it may say of that.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ppp::v1;

use super::proxies::{ForwardedHeader, Length, TrustedProxies, header_length, source};

/// Lines of a forwarding header, the first byte before them: which. Whoever is found was named in it behind the last
/// one who could have lied, or is the peer itself.
pub fn forwarded(bytes: &[u8]) {
    let Some((&which, lines)) = bytes.split_first() else { return };
    let (header, name) = match which & 1 {
        0 => (ForwardedHeader::XForwardedFor, "x-forwarded-for"),
        _ => (ForwardedHeader::Forwarded, "forwarded"),
    };
    let addresses =
        ["10.0.0.0/8", "::1", "2001:db8::/32"].map(|range| range.parse().expect("a range")).to_vec();
    let proxies = TrustedProxies { addresses, header, ..TrustedProxies::default() };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(name, line);
        }
    }
    let stranger = SocketAddr::from(([203, 0, 113, 1], 5));
    assert_eq!(proxies.origin_of(stranger, &headers).client, stranger);
    let peer = SocketAddr::from(([10, 0, 0, 1], 5));
    let found = proxies.origin_of(peer, &headers).client;
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let elements: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    // The last that is no proxy, if all behind it are.
    let mut expected = peer;
    for element in elements.into_iter().rev() {
        let said = match header {
            ForwardedHeader::XForwardedFor => Some(element),
            ForwardedHeader::Forwarded => element.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
            }),
        };
        let Some(address) = said.and_then(address_of) else { break };
        expected = address;
        if !proxies.has(address.ip()) {
            break;
        }
    }
    assert_eq!(found, expected);
}

fn address_of(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0))
}

/// What a connection begins with. How long a header is is known from a part of it and does not change, and what is read
/// of it is what stands there.
pub fn proxy_header(bytes: &[u8]) {
    let _ = source(bytes);
    match header_length(bytes) {
        Length::Is(length) => {
            let has_v2 = bytes.first() == Some(&0x0d);
            for part in 0..bytes.len().min(length) {
                let begin = bytes.get(..part).unwrap_or_default();
                match header_length(begin) {
                    Length::Unknown => {}
                    Length::Is(same) => assert!(same == length && has_v2),
                    Length::None => panic!("a header is no header after {part} bytes"),
                }
            }
            let Some(header) = bytes.get(..length) else { return };
            let Ok(Some(client)) = source(header) else { return };
            if has_v2 {
                let place = match client {
                    SocketAddr::V4(client) => client.ip().octets().to_vec(),
                    SocketAddr::V6(client) => client.ip().octets().to_vec(),
                };
                assert_eq!(header.get(16..16 + place.len()), Some(&place[..]));
            } else {
                let text = std::str::from_utf8(header).expect("it was parsed");
                let mut words = text.trim_end().split(' ');
                assert_eq!(words.next(), Some(v1::PROTOCOL_PREFIX));
                let (ip, port) = (words.nth(1).expect("an address"), words.nth(1).expect("a port"));
                assert_eq!((ip.parse(), port.parse()), (Ok(client.ip()), Ok(client.port())));
            }
        }
        // Whatever comes behind it.
        Length::None => assert!(matches!(header_length(&[bytes, b"\r\n"].concat()), Length::None)),
        Length::Unknown => assert!(bytes.len() < 107),
    }
}
