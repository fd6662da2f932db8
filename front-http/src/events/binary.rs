//! The binary mode: attributes in headers, data in the body (CloudEvents HTTP Protocol Binding 1.0 §3.1).

use std::borrow::Cow;

use broker_core::ContentType;
use bytes::Bytes;
use envelope::{JsonValue, classify, write_string};
use http::{HeaderMap, header};
use intake::Error;
use percent_encoding::percent_decode;

/// The same event in the JSON format, attributes in the order of the headers.
pub(super) fn to_structured(headers: &HeaderMap, body: &Bytes) -> Result<Vec<u8>, Error> {
    let mut out = vec![b'{'];
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        if matches!(attribute, "data" | "data_base64" | "datacontenttype") {
            return Err(Error::Event(format!("`{name}` is not an attribute of the binary mode")));
        }
        let value = unquoted(value.as_bytes());
        let Ok(text) = percent_decode(&value).decode_utf8() else {
            return Err(Error::Event(format!("`{name}` is not UTF-8 once it is percent-decoded")));
        };
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(attribute, &mut out);
        out.push(b':');
        write_string(&text, &mut out);
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(content_type) = content_type {
        out.extend_from_slice(b",\"datacontenttype\":");
        write_string(content_type, &mut out);
    }
    if !body.is_empty() {
        // In the JSON format data without a type is JSON, so what is not says that it is text or bytes.
        let value = classify(body, content_type.map(ContentType::new).as_ref());
        let member: &[u8] = match &value {
            JsonValue::Raw(_) | JsonValue::Text(_) => b",\"data\":",
            JsonValue::Base64(_) => b",\"data_base64\":",
        };
        out.extend_from_slice(member);
        value.write_to(&mut out);
    }
    out.push(b'}');
    Ok(out)
}

/// A value in double quotes is what stands between them, without the backslash before an escaped character. That comes
/// before percent-decoding (§3.1.3.2).
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => *bytes.next().unwrap_or(byte),
            other => *other,
        });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn structured(content_type: Option<&'static str>, body: &'static [u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", HeaderValue::from_static("a%20b%22"));
        headers.insert("host", HeaderValue::from_static("x"));
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        String::from_utf8(to_structured(&headers, &Bytes::from_static(body)).unwrap()).unwrap()
    }

    #[test]
    fn headers_are_decoded_and_data_keeps_its_text() {
        assert_eq!(structured(None, b""), r#"{"id":"a b\""}"#);
        let json = structured(Some("application/json"), b"{\"n\": 1e400}");
        assert_eq!(json, r#"{"id":"a b\"","datacontenttype":"application/json","data":{"n": 1e400}}"#);
        assert!(structured(Some("text/plain"), b"1").ends_with(r#""data":"1"}"#));
        assert!(structured(Some("image/png"), b"\xff").ends_with(r#""data_base64":"/w=="}"#));
    }

    #[test]
    fn a_quoted_value_is_unquoted_before_it_is_decoded() {
        for (sent, read) in [
            (r#""quo ted""#, "quo ted"),
            (r#""a\"b\\c%22""#, r#"a"b\c%22"#),
            (r#""""#, ""),
            (r#"a"b""#, r#"a"b""#),
            (r#"""#, r#"""#),
        ] {
            assert_eq!(unquoted(sent.as_bytes()), read.as_bytes(), "{sent}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("ce-subject", HeaderValue::from_static(r#""a%20\"b\"""#));
        let event = to_structured(&headers, &Bytes::new()).unwrap();
        assert_eq!(event, br#"{"subject":"a \"b\""}"#);
    }

    #[test]
    fn headers_that_are_no_attributes_are_refused() {
        for (name, value) in
            [("ce-data", &b"x"[..]), ("ce-id", b"%ff"), ("ce-datacontenttype", b"text/plain")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
            assert!(to_structured(&headers, &Bytes::new()).is_err(), "{name}");
        }
    }
}
