//! What a request's head must not be (RFC 9112), where hyper does not say so.

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::ext::Protocol;

use super::scan::Lengths;
use crate::problem::Problem;

/// The `:protocol` of a WebSocket (RFC 8441 §5).
pub(crate) const WEBSOCKET: &str = "websocket";

/// Whether a request of HTTP/1 may be answered, and whether the connection is to end after it. One whose target names
/// the server is for that, whatever `Host` says (§3.2.2).
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
    // A proxy before us may have believed the other length, and taken for the next request what was this one's body
    // (§6.1).
    let lengths = if is_chunked { lengths() } else { Lengths::One };
    if lengths == Lengths::Two {
        return Err(Problem::malformed_request("both Content-Length and Transfer-Encoding (RFC 9112 §6.1)"));
    }
    if let Some(host) = authority(request) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(lengths == Lengths::Unknown)
}

/// Whether a request of HTTP/2 may be answered. It has `:authority` in place of `Host`; handlers look at one place. A
/// CONNECT that is one, as to a proxy, has no path; an extended one has (RFC 8441 §4), and says what it wants to speak.
pub(crate) fn check_http2<B>(request: &mut Request<B>, max_bytes: u32) -> Result<(), Problem> {
    if *request.method() == Method::CONNECT {
        let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
        if protocol != Some(WEBSOCKET) {
            return Err(Problem::protocol_not_supported(protocol));
        }
    }
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
