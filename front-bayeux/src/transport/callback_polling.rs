//! GET with `jsonp`: the answer is a script that calls the page back.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, header};
use http_edge::{Body, Response};

use super::answer::Answer;
use crate::codec::message::ParseError;
use crate::error::RequestFault;
use crate::sessions::unwritten::carrying;

/// A function name that is safe to write into a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Callback(String);

const DEFAULT_CALLBACK: &str = "jsonpcallback";
const MAX_CALLBACK_BYTES: usize = 64;

/// The function to call and the JSON texts of a GET.
pub(super) fn messages(parts: &Parts, max: usize) -> Result<(Callback, Vec<Bytes>), RequestFault> {
    let query = parts.uri.query().unwrap_or_default();
    let (mut callback, mut texts) = (None, Vec::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "jsonp" => callback = Some(value.into_owned()),
            "message" if texts.len() >= max => {
                return Err(RequestFault::Parse(ParseError::TooMany { max }));
            }
            "message" => texts.push(Bytes::from(value.into_owned())),
            _ => {}
        }
    }
    if texts.is_empty() {
        return Err(RequestFault::NoMessage);
    }
    let callback = callback.unwrap_or_else(|| DEFAULT_CALLBACK.to_owned());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if callback.is_empty() || callback.len() > MAX_CALLBACK_BYTES || !callback.bytes().all(legal) {
        return Err(RequestFault::BadCallback);
    }
    Ok((Callback(callback), texts))
}

/// The script. The comment in front keeps the answer from being read as another kind of file
/// (CVE-2014-4671); U+2028 and U+2029 ended lines in old scripts.
pub(super) fn wrap(answer: Answer, Callback(callback): &Callback) -> Response {
    let json = answer.body;
    let mut script = Vec::with_capacity(json.len() + callback.len() + 8);
    script.extend_from_slice(b"/**/");
    script.extend_from_slice(callback.as_bytes());
    script.push(b'(');
    let mut rest = &json[..];
    while let Some(at) = rest.windows(3).position(|three| matches!(three, [0xe2, 0x80, 0xa8 | 0xa9])) {
        let (head, tail) = rest.split_at(at);
        script.extend_from_slice(head);
        script.extend_from_slice(if tail.get(2) == Some(&0xa8) { b"\\u2028" } else { b"\\u2029" });
        rest = tail.get(3..).unwrap_or_default();
    }
    script.extend_from_slice(rest);
    script.extend_from_slice(b");");
    let mut response = answer.head;
    *response.body_mut() = Body::full(carrying(script, answer.unwritten));
    if !json.is_empty() || response.status().is_success() {
        let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    } else {
        *response.body_mut() = Body::empty();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<(Callback, Vec<Bytes>), RequestFault> {
        messages(&http::Request::get(format!("/cometd/connect?{query}")).body(()).unwrap().into_parts().0, 2)
    }

    #[test]
    fn callbacks_are_plain_names() {
        let long = "x".repeat(64);
        for (name, legal) in [
            ("jQuery_1.cb-2", true),
            (&*long, true),
            (&*format!("{long}x"), false),
            ("", false),
            ("alert(1)//", false),
            ("a b", false),
            ("a[0]", false),
            ("é", false),
        ] {
            let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            assert_eq!(read(&format!("jsonp={encoded}&message=%7B%7D")).is_ok(), legal, "{name}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_the_name_has_a_default() {
        let (callback, texts) = read("message=%7B%22a%22%3A+1%7D&message=[]&_=5").unwrap();
        assert_eq!(callback, Callback("jsonpcallback".into()));
        assert_eq!(texts, ["{\"a\": 1}", "[]"]);
        assert!(matches!(read("jsonp=x"), Err(RequestFault::NoMessage)));
        let three = read("message={}&message={}&message={}");
        assert!(matches!(three, Err(RequestFault::Parse(ParseError::TooMany { max: 2 }))));
    }

    #[test]
    fn line_separators_are_escaped() {
        let answer = Answer::new("[\"a\u{2028}b\u{2029}\"]".into(), Vec::new());
        let response = wrap(answer, &Callback("f".into()));
        assert_eq!(format!("{:?}", response.body()), "Body(26 bytes)");
    }
}
