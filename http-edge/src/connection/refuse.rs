//! Answers to what no handler sees, because its head cannot be read or breaks a rule of HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, header};
use link::NetStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::response_head::response_head;
use crate::problem::Problem;
use crate::request::{Response, X_REQUEST_ID, read_body};

/// How such requests are answered. Without one, with the problem alone; a server adds the headers without which a page
/// may not read it.
#[derive(Clone, Default)]
pub struct Refuser(Option<Arc<Refuse>>);

type Refuse = dyn Fn(&Problem, &Parts) -> Response + Send + Sync;

impl Refuser {
    /// Answers by `refuse`. Of a request that could not be read its method, path, `Host`, `Origin` and `X-Request-Id`
    /// are there as far as they could be found.
    pub fn new(refuse: impl Fn(&Problem, &Parts) -> Response + Send + Sync + 'static) -> Self {
        Refuser(Some(Arc::new(refuse)))
    }

    pub(crate) fn answer(&self, problem: &Problem, request: &Parts) -> Response {
        let mut response = match &self.0 {
            Some(refuse) => refuse(problem, request),
            None => problem.response(),
        };
        if request.version < http::Version::HTTP_2 {
            let close = const { HeaderValue::from_static("close") };
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}

impl std::fmt::Debug for Refuser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Refuser").field(&self.0.is_some()).finish()
    }
}

/// How much of a head that is too long is looked at for the page that sent it.
const MAX_LOOKED_AT: usize = 64 << 10;

/// How long its rest may take to come.
const PATIENCE: Duration = Duration::from_millis(300);

/// The longest answer: ours are far shorter.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Whether these bytes are all that hyper has to say of a head that it cannot read: a status and no body. Its place in
/// them.
pub(crate) fn canned(bytes: &[u8]) -> Option<usize> {
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    // What an earlier request was answered may stand before it.
    let at = head.windows(8).rposition(|window| window.starts_with(b"HTTP/1."))?;
    let mut lines = head.get(at..)?.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status = lines.next()?.get(9..12)?;
    let is_ours = |line: &[u8]| {
        line == b"content-length: 0" || line == b"connection: close" || line.starts_with(b"date: ")
    };
    let mut fields = 0;
    let all = lines.inspect(|_| fields += 1).all(is_ours);
    (matches!(status, b"400" | b"414" | b"431") && all && fields == 3).then_some(at)
}

/// A head that hyper could not read.
pub(crate) struct Unread {
    /// What it said to that.
    pub(crate) canned: Box<[u8]>,
    /// Bytes came since the last request that it could read: no handler gives this answer.
    pub(crate) is_head: bool,
    /// The page that asks, as it was seen on its way.
    pub(crate) origin: Option<Box<[u8]>>,
}

/// Answers what hyper could not read, of which it has left `read`. Whether the answer was written within `limit`.
pub(crate) async fn refuse_unread(
    stream: &mut NetStream,
    unread: Unread,
    mut read: Vec<u8>,
    refuser: &Refuser,
    max_bytes: u32,
    limit: Duration,
) -> bool {
    let Unread { canned, is_head, origin } = unread;
    let answer = if read.is_empty() && !is_head {
        // A handler's own answer, then, that has no more to say.
        canned.into()
    } else {
        let status = canned.get(9..12).unwrap_or_default();
        if status == b"431" {
            // Its page may stand behind what is too long.
            let _ = timeout(PATIENCE, read_head(stream, &mut read)).await;
        }
        let problem = problem(status, &read, max_bytes);
        let mut request = found(&read);
        let origin = origin.and_then(|origin| HeaderValue::from_bytes(&origin).ok());
        if let (false, Some(origin)) = (request.headers.contains_key(header::ORIGIN), origin) {
            request.headers.insert(header::ORIGIN, origin);
        }
        to_bytes(refuser.answer(&problem, &request), &read).await
    };
    let mut answer = answer;
    while answer.has_remaining() {
        match timeout(limit, stream.write_buf(&mut answer)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return false,
        }
    }
    matches!(timeout(limit, stream.shutdown()).await, Ok(Ok(())))
}

async fn to_bytes(response: Response, read: &[u8]) -> Bytes {
    let (mut parts, body) = response.into_parts();
    let body = read_body(body, MAX_ANSWER_BYTES).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response_head(&parts, if read.starts_with(b"HEAD ") { &[] } else { &body })
}

async fn read_head(stream: &mut NetStream, read: &mut Vec<u8>) -> std::io::Result<()> {
    let mut from = 0;
    while read.len() < MAX_LOOKED_AT {
        if read.get(from..).is_some_and(|new| new.windows(4).any(|end| end == b"\r\n\r\n")) {
            break;
        }
        from = read.len().saturating_sub(3);
        if stream.read_buf(read).await? == 0 {
            break;
        }
    }
    Ok(())
}

fn problem(status: &[u8], read: &[u8], max_bytes: u32) -> Problem {
    match status {
        b"431" => Problem::request_head_too_large(max_bytes),
        b"414" => Problem::uri_too_long(),
        _ => {
            let first = read.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
            let version = first.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            if version.starts_with(b"HTTP/") && !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
                return Problem::version_not_supported();
            }
            Problem::malformed_request("what came is no request of HTTP/1.1")
        }
    }
}

/// What can be known of a request that cannot be read.
fn found(read: &[u8]) -> Parts {
    let mut lines = read.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let mut request = Request::new(());
    if let Some(method) = words.next().and_then(|word| Method::from_bytes(word).ok()) {
        *request.method_mut() = method;
    }
    let path = words.next().and_then(|target| target.split(|byte| *byte == b'?').next());
    if let Some(path) = path.and_then(|path| http::Uri::try_from(path).ok()) {
        *request.uri_mut() = path;
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) =
            line.split_at_checked(line.iter().position(|byte| *byte == b':').unwrap_or(0))
        else {
            continue;
        };
        let wanted: [HeaderName; 3] = [header::HOST, header::ORIGIN, X_REQUEST_ID];
        let name = wanted.into_iter().find(|wanted| name.eq_ignore_ascii_case(wanted.as_str().as_bytes()));
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Some(name), Ok(value)) = (name, value) {
            request.headers_mut().entry(name).or_insert(value);
        }
    }
    request.into_parts().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hyper_says_by_itself_is_told_from_what_handlers_say() {
        let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
        let said =
            format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n{date}\r\n\r\n");
        assert_eq!(canned(said.as_bytes()), Some(0));
        let behind = format!("HTTP/1.1 200 OK\r\n{date}\r\n\r\nhello{said}");
        assert_eq!(canned(behind.as_bytes()), Some(behind.len() - said.len()));
        for other in [
            said.replace("400", "404"),
            said.replace("length: 0", "length: 5"),
            said.replace("date", "x-request-id: 1\r\ndate"),
            format!("{said}x"),
            String::new(),
        ] {
            assert_eq!(canned(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn page_and_path_are_found_in_what_cannot_be_read() {
        for (read, path, origin) in [
            (
                "GET /sse/a?x=y HTTP/9.9\r\nHost: b\r\nORIGIN:http://p\r\n\r\nOrigin: no",
                "/sse/a",
                Some("http://p"),
            ),
            ("GET /a\r\n\r\n", "/a", None),
            ("\u{0}\u{1}", "/", None),
            ("GET / HTTP/1.1\r\nno colon\r\norigin: http://p", "/", Some("http://p")),
            ("", "/", None),
        ] {
            let found = found(read.as_bytes());
            assert_eq!(found.uri.path(), path, "{read:?}");
            assert_eq!(found.headers.get("origin").map(|value| value.to_str().unwrap()), origin, "{read:?}");
        }
    }
}
