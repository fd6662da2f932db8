//! The header fields that fronts look for, found in one walk.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::peer::Https;

/// The first value of each field that fronts look for in every request. Programs send three to six fields, so one walk
/// over them costs a quarter of a lookup for each of these.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Fields<'a> {
    /// `Authorization`
    pub authorization: Option<&'a HeaderValue>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'a HeaderValue>,
    /// `Content-Type`
    pub content_type: Option<&'a HeaderValue>,
    /// `Host`
    pub host: Option<&'a HeaderValue>,
    /// `Idempotency-Key`
    pub idempotency_key: Option<&'a HeaderValue>,
    /// `Origin`
    pub origin: Option<&'a HeaderValue>,
    /// The page that asks without `Origin`: as a script, image or frame of its own a page of another site may load
    /// anything that is had by `GET`, and browsers then say so in `Sec-Fetch-Site` alone. Here is its `Referer`, or
    /// `null` if the page hides it.
    pub embedder: Option<&'a HeaderValue>,
    /// Whether the request is known to have come inside of TLS. Found for pages only, to which alone it matters.
    pub https: bool,
    /// `X-API-Key`
    pub x_api_key: Option<&'a HeaderValue>,
    /// `X-EventSource-Event`
    pub x_eventsource_event: Option<&'a HeaderValue>,
    /// `X-Request-Id`
    pub x_request_id: Option<&'a HeaderValue>,
    /// A field of these that stands there more than once, though it has one value: to take either would be a guess.
    /// Repeats of `X-Request-Id`, which proxies add to, do not count.
    pub repeated: Option<&'a HeaderName>,
}

/// A page that does not say where it comes from.
static HIDDEN: HeaderValue = HeaderValue::from_static("null");

impl<'a> From<&'a HeaderMap> for Fields<'a> {
    fn from(headers: &'a HeaderMap) -> Self {
        let mut fields = Fields::default();
        let (mut referer, mut site, mut mode) = (None, None, None);
        for (name, value) in headers {
            let field = match name.as_str() {
                "authorization" => &mut fields.authorization,
                "content-encoding" => &mut fields.content_encoding,
                "content-type" => &mut fields.content_type,
                "host" => &mut fields.host,
                "idempotency-key" => &mut fields.idempotency_key,
                "origin" => &mut fields.origin,
                "referer" => {
                    referer = Some(value);
                    continue;
                }
                "sec-fetch-mode" => {
                    mode = Some(value);
                    continue;
                }
                "sec-fetch-site" => {
                    site = Some(value);
                    continue;
                }
                "x-api-key" => &mut fields.x_api_key,
                "x-eventsource-event" => &mut fields.x_eventsource_event,
                "x-request-id" => &mut fields.x_request_id,
                _ => continue,
            };
            if field.is_none() {
                *field = Some(value);
            } else if name.as_str() != "x-request-id" {
                fields.repeated = Some(name);
            }
        }
        // Who follows a link reads the answer himself; the page with the link does not.
        let is_elsewhere = site.is_some_and(|site| site == "cross-site" || site == "same-site");
        if fields.origin.is_none() && is_elsewhere && mode.is_none_or(|mode| mode != "navigate") {
            fields.embedder = referer.or(Some(&HIDDEN));
        }
        fields
    }
}

impl<'a> Fields<'a> {
    /// Of a request whose answer a page may run as a script (JSONP), so that it reads it wherever it comes from. Who
    /// says neither `Origin` nor `Sec-Fetch-Site`, as browsers over plain HTTP, is known by `Referer` alone, and hides
    /// without.
    #[must_use]
    pub fn of_script(self, headers: &'a HeaderMap) -> Self {
        let is_known = self.origin.is_some() || self.embedder.is_some();
        if is_known || headers.contains_key("sec-fetch-site") {
            return self;
        }
        Fields { embedder: headers.get(http::header::REFERER).or(Some(&HIDDEN)), ..self }
    }
}

impl<'a> From<&'a Parts> for Fields<'a> {
    fn from(parts: &'a Parts) -> Self {
        let mut fields = Fields::from(&parts.headers);
        if fields.origin.is_some() || fields.embedder.is_some() {
            fields.https = Https::is_known(&parts.extensions);
        }
        fields
    }
}

impl<'a> From<&Fields<'a>> for Fields<'a> {
    fn from(fields: &Fields<'a>) -> Self {
        *fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_as_a_lookup_finds_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "1"),
            ("authorization", "2"),
            ("x-api-key", "3"),
            ("authorization", "4"),
            ("origin", "5"),
            ("x-request-id", "6"),
            ("host", "7"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = Fields::from(&headers);
        assert_eq!(found.authorization, headers.get("authorization"));
        assert_eq!(found.x_api_key, headers.get("x-api-key"));
        assert_eq!(found.origin, headers.get("origin"));
        assert_eq!(found.x_request_id, headers.get("x-request-id"));
        assert_eq!(found.host, headers.get("host"));
        assert_eq!(found.repeated, Some(&http::header::AUTHORIZATION));
        let none =
            [found.content_encoding, found.content_type, found.idempotency_key, found.x_eventsource_event];
        assert_eq!(none, [None; 4]);
        headers.remove("authorization");
        headers.append("x-request-id", HeaderValue::from_static("8"));
        headers.append("accept", HeaderValue::from_static("9"));
        assert_eq!(Fields::from(&headers).repeated, None);

        let mut headers = HeaderMap::new();
        for name in ["content-encoding", "content-type", "idempotency-key", "x-eventsource-event"] {
            headers.append(name, HeaderValue::from_static(name));
        }
        let found = Fields::from(&headers);
        assert_eq!(found.content_encoding, headers.get("content-encoding"));
        assert_eq!(found.content_type, headers.get("content-type"));
        assert_eq!(found.idempotency_key, headers.get("idempotency-key"));
        assert_eq!(found.x_eventsource_event, headers.get("x-eventsource-event"));
    }

    #[test]
    fn what_a_page_of_another_site_embeds_is_known_without_an_origin() {
        let page = "http://evil.example/page";
        for (lines, expected) in [
            (&[("sec-fetch-site", "cross-site"), ("referer", page)][..], Some(page)),
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")], Some("null")),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], None),
            (&[("sec-fetch-site", "same-origin"), ("referer", page)], None),
            (&[("sec-fetch-site", "none")], None),
            (&[("sec-fetch-site", "cross-site"), ("origin", page)], None),
            (&[("referer", page)], None),
        ] {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let found = Fields::from(&headers).embedder.map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
