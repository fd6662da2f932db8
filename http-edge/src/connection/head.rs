//! What a request's head must not be (RFC 9112), where hyper does not say so.

use http::{HeaderMap, HeaderValue, Request, Version, header};
use memchr::memchr;

use super::io::Lengths;
use crate::problem::Problem;

/// Looks at the bytes of a head for what hyper takes away: of `Transfer-Encoding` and `Content-Length` it leaves one.
#[derive(Default)]
pub(crate) struct HeadScan {
    /// How the line begins that is not whole yet.
    line: [u8; LONGEST],
    length: u8,
    /// A line that is not empty came: empty ones before the request line count for nothing.
    begun: bool,
    ended: bool,
    transfer_encoding: bool,
    content_length: bool,
    /// The page that asks, for an answer to what hyper cannot read: it keeps no more of a head than it has understood.
    origin: Option<Box<[u8]>>,
}

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";
const ORIGIN: &[u8] = b"origin:";
/// The longest line with an origin that is kept: 253 bytes of a host, a scheme and a port.
const MAX_ORIGIN_LINE_BYTES: usize = 512;
const LONGEST: usize = TRANSFER_ENCODING.len();

impl HeadScan {
    /// The next bytes of the connection, from the head's first one on; what follows the head is not looked at.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() && self.length == 0 {
                self.note(line);
                continue;
            }
            let free = self.line.get_mut(usize::from(self.length)..).unwrap_or_default();
            let kept = line.len().min(free.len());
            free.iter_mut().zip(line).for_each(|(place, byte)| *place = *byte);
            self.length += kept as u8;
            if end.is_some() {
                let (line, length) = (self.line, usize::from(std::mem::take(&mut self.length)));
                self.note(line.get(..length).unwrap_or_default());
            }
        }
    }

    /// Whether the head had both lengths.
    pub(crate) fn has_two_lengths(&self) -> bool {
        self.transfer_encoding && self.content_length
    }

    /// The origin of the page that asks, if that line came whole.
    pub(crate) fn take_origin(&mut self) -> Option<Box<[u8]>> {
        self.origin.take()
    }

    fn note(&mut self, line: &[u8]) {
        // Most lines are known to be others by where their colon stands.
        let begins_with = |name: &[u8]| {
            line.get(..name.len())
                .is_some_and(|begin| begin.last() == Some(&b':') && begin.eq_ignore_ascii_case(name))
        };
        match line.first() {
            Some(b't' | b'T') => self.transfer_encoding |= begins_with(TRANSFER_ENCODING),
            Some(b'c' | b'C') => self.content_length |= begins_with(CONTENT_LENGTH),
            Some(b'o' | b'O') if line.len() > LONGEST && line.len() <= MAX_ORIGIN_LINE_BYTES => {
                if begins_with(ORIGIN) {
                    self.origin = line.get(ORIGIN.len()..).map(|value| value.trim_ascii().into());
                }
            }
            None | Some(b'\r') => {
                self.ended = self.begun;
                return;
            }
            Some(_) => {}
        }
        self.begun = true;
    }
}

/// Whether a request of HTTP/1 may be answered, and whether the connection is to end after it. One whose target names the server is
/// for that, whatever `Host` says (§3.2.2).
pub(crate) fn check_http1<B>(
    request: &mut Request<B>,
    lengths: impl FnOnce() -> Lengths,
) -> Result<bool, Problem> {
    // One walk costs less than two lookups.
    let (mut host, mut hosts, mut is_chunked) = (None, 0, false);
    for (name, value) in request.headers() {
        if *name == header::HOST {
            (host, hosts) = (Some(value), hosts + 1);
        } else if *name == header::TRANSFER_ENCODING {
            is_chunked = true;
        }
    }
    match host {
        Some(_) if hosts > 1 => {
            return Err(Problem::malformed_request("more than one Host (RFC 9112 §3.2)"));
        }
        Some(host) if !is_authority(host.as_bytes()) => {
            return Err(Problem::malformed_request("a Host that is none (RFC 9112 §3.2)"));
        }
        None if request.version() == Version::HTTP_11 => {
            return Err(Problem::malformed_request("HTTP/1.1 without Host (RFC 9112 §3.2)"));
        }
        _ => {}
    }
    // A proxy before us may have believed the other length, and taken for the next request what was this one's body (§6.1).
    let lengths = if is_chunked { lengths() } else { Lengths::One };
    if lengths == Lengths::Two {
        return Err(Problem::malformed_request("both Content-Length and Transfer-Encoding (RFC 9112 §6.1)"));
    }
    if let Some(host) = authority(request) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(lengths == Lengths::Unknown)
}

/// Whether a request of HTTP/2 may be answered. It has `:authority` in place of `Host`; handlers look at one place.
pub(crate) fn check_http2<B>(request: &mut Request<B>, max_bytes: u32) -> Result<(), Problem> {
    if field_bytes(request.headers()) > max_bytes as usize {
        return Err(Problem::request_head_too_large(max_bytes));
    }
    let Some(named) = authority(request) else { return Ok(()) };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(named.as_bytes())) {
        return Err(Problem::malformed_request("Host and :authority are not the same (RFC 9113 §8.3.1)"));
    }
    request.headers_mut().insert(header::HOST, named);
    Ok(())
}

fn authority<B>(request: &Request<B>) -> Option<HeaderValue> {
    HeaderValue::from_str(request.uri().authority()?.as_str()).ok()
}

/// As RFC 9113 §10.5.1 counts them.
fn field_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// What may stand in a host and a port (RFC 3986 §3.2.2).
fn is_authority(host: &[u8]) -> bool {
    const MAY_STAND: [bool; 256] = {
        let (mut may, mut byte) = ([false; 256], 0);
        while byte < 256 {
            may[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let (marks, mut at) = (b"-._~!$&'()*+,;=:[]%", 0);
        while at < marks.len() {
            may[marks[at] as usize] = true;
            at += 1;
        }
        may
    };
    host.iter().all(|byte| MAY_STAND[usize::from(*byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lengths_are_found_in_any_order_case_and_pieces_and_in_the_head_only() {
        for (bytes, found) in [
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", true),
            ("POST / HTTP/1.1\r\ncontent-length:3\r\nHost: x\r\ntransfer-ENCODING:chunked\r\n\r\n", true),
            ("\r\n\r\nPOST / HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\nTransfer-Encoding: x\n", false),
            ("POST / HTTP/1.1\r\nContent-Lengths: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nX: Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nContent-Length: 3\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
        ] {
            for piece in [1, 2, 5, 17, 18, 19, 1000] {
                let mut scan = HeadScan::default();
                bytes.as_bytes().chunks(piece).for_each(|piece| scan.feed(piece));
                assert_eq!(scan.has_two_lengths(), found, "{bytes:?} {piece}");
            }
        }
    }

    #[test]
    fn a_request_names_one_host_as_its_version_asks() {
        let request = |version, target: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header("host", *host);
            }
            request.body(()).unwrap()
        };
        let (one, old, two) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        for (version, target, hosts, named) in [
            (one, "/", &["a"][..], Ok("a")),
            (one, "/", &[""], Ok("")),
            (one, "/", &[], Err(())),
            (one, "/", &["a", "a"], Err(())),
            (one, "/", &["a b"], Err(())),
            (one, "/", &["a/b"], Err(())),
            (one, "/", &["user@a"], Err(())),
            (one, "http://b:1/", &["a"], Ok("b:1")),
            (one, "http://b:1/", &[], Err(())),
            (old, "/", &[], Ok("")),
            (old, "/", &["a", "b"], Err(())),
            (two, "http://a/", &[], Ok("a")),
            (two, "http://a/", &["A"], Ok("a")),
            (two, "http://a/", &["b"], Err(())),
            (two, "/", &["b"], Ok("b")),
        ] {
            let mut request = request(version, target, hosts);
            let checked = match version {
                Version::HTTP_2 => check_http2(&mut request, 1000),
                _ => check_http1(&mut request, || Lengths::Two).map(drop),
            };
            let host = request.headers().get(header::HOST).map_or("", |host| host.to_str().unwrap());
            let found = checked.map(|()| host).map_err(|problem| assert_eq!(problem.status, 400));
            assert_eq!(found, named, "{version:?} {target} {hosts:?}");
        }
        let mut long = request(two, "http://a/", &[&"a".repeat(1000)]);
        assert_eq!(check_http2(&mut long, 1000).unwrap_err().code, "request_head_too_large");
    }
}
