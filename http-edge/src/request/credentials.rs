//! Where a request carries its credentials.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::{AuthError, Authenticated, Authenticator, Credentials, Filter, RequestHead, SubscriberKey};
use http::HeaderValue;
use http::request::Parts;

use super::cookies::cookies as cookies_named;
use super::fields::Fields;
use super::origin::{Cookies, cross_origin};
use super::peer::{ClientCertificate, Peer};
use super::tokens::TokenSources;

/// What a request presents. At most one of `token` and `user` with `password` is set.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct HttpCredentials<'a> {
    /// User name of `Authorization: Basic`.
    pub user: Option<Cow<'a, str>>,
    /// Password of `Authorization: Basic`.
    pub password: Option<Cow<'a, [u8]>>,
    /// A key or JWT: `Authorization: Bearer` (or `OAuth`, or `Token`), `X-API-Key`, the cookie or the query parameter.
    pub token: Option<Cow<'a, str>>,
    /// The tokens of more cookies of the same name. One may be a leftover of another path, so that each is tried.
    pub more_tokens: Vec<Cow<'a, str>>,
    /// Whom the [`ClientCertificate`] extension names.
    pub certificate: Option<&'a str>,
    /// The address of the [`Peer`] extension.
    pub remote: Option<SocketAddr>,
    /// The `Origin` of a page that does not come from this server.
    pub cross_origin: Option<&'a str>,
    /// The request itself, for an embedding service that looks for something else in it.
    pub request: Option<&'a Parts>,
    /// Becomes true once an authenticator looks at the request.
    pub asked: Option<&'a AtomicBool>,
    /// What the front adds: see [`Credentials`].
    pub transport: &'static str,
    /// What the client wants to be subscribed to at once.
    pub filters: &'a [Filter],
    /// Its name in the core, if it has one already.
    pub key: Option<SubscriberKey>,
}

impl HttpCredentials<'_> {
    /// The same in the form that an `Authenticator` takes. `protocol` names the front, e.g. `sse`.
    pub fn for_protocol(&self, protocol: &'static str) -> Credentials<'_> {
        let mut credentials = Credentials::default();
        credentials.user = self.user.as_deref();
        credentials.password = self.password.as_deref();
        credentials.token = self.token.as_deref();
        credentials.certificate = self.certificate;
        credentials.remote = self.remote;
        credentials.cross_origin = self.cross_origin;
        credentials.protocol = protocol;
        credentials.request = self.request.map(|parts| match self.asked {
            Some(asked) => RequestHead::new(parts).noting(asked),
            None => RequestHead::new(parts),
        });
        (credentials.transport, credentials.filters, credentials.key) =
            (self.transport, self.filters, self.key);
        credentials
    }

    /// Asks `authenticator` who this is: by the token, then by the other ones, as long as they are none that it knows.
    pub fn authenticate<'a>(
        &'a self,
        authenticator: &'a dyn Authenticator,
        protocol: &'static str,
    ) -> Authenticated<'a> {
        let first = authenticator.authenticate(self.for_protocol(protocol));
        if self.more_tokens.is_empty() {
            return first;
        }
        Authenticated::later(async move {
            let mut outcome = first.await;
            for token in &self.more_tokens {
                let Err(AuthError::Invalid(_)) = outcome else { break };
                let mut next = self.for_protocol(protocol);
                next.token = Some(token);
                outcome = authenticator.authenticate(next).await;
            }
            outcome
        })
    }
}

impl std::fmt::Debug for HttpCredentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpCredentials")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("more_tokens", &self.more_tokens.len())
            .field("remote", &self.remote)
            .field("cross_origin", &self.cross_origin)
            .finish()
    }
}

/// Cookies of one name that are tried after the first: each may cost the check of a signature.
const MAX_MORE_TOKENS: usize = 3;

/// Schemes of `Authorization` whose rest is the token: what RFC 6750 names, what Salesforce's clients send, and what
/// frameworks for HTTP APIs do.
const TOKEN_SCHEMES: [&str; 3] = ["bearer", "oauth", "token"];

/// What the headers present: `Authorization` (Bearer, OAuth, Token or Basic), else `X-API-Key`.
///
/// An `Authorization` that cannot be read is handed on whole as the token. No authenticator will know it, so the
/// client hears that its credentials are wrong instead of being served as nobody.
pub fn credentials(parts: &Parts) -> HttpCredentials<'_> {
    let remote = Peer::of(&parts.extensions).map(|peer| peer.0);
    let certificate = ClientCertificate::of(&parts.extensions);
    let found = credentials_found(&Fields::from(parts), remote);
    HttpCredentials { certificate, request: Some(parts), ..found }
}

/// As [`credentials`], where the fields are found already.
pub fn credentials_found<'a>(fields: &Fields<'a>, remote: Option<SocketAddr>) -> HttpCredentials<'a> {
    HttpCredentials { remote, ..presented(fields) }
}

/// What [`credentials`] finds, else what the other allowed `sources` hold: the cookie, then the query parameter.
pub fn credentials_from<'a>(parts: &'a Parts, sources: &TokenSources) -> HttpCredentials<'a> {
    let remote = Peer::of(&parts.extensions).map(|peer| peer.0);
    credentials_among(&Fields::from(parts), parts, remote, sources)
}

/// As [`credentials_from`], where the request's `fields` are found already, and `remote` known.
pub fn credentials_among<'a>(
    fields: &Fields<'a>,
    parts: &'a Parts,
    remote: Option<SocketAddr>,
    sources: &TokenSources,
) -> HttpCredentials<'a> {
    credentials_with(fields, parts, remote, sources, Cookies::Include)
}

/// As [`credentials_among`], for a request whose cookies may not count
/// ([`OriginPolicy::cookies_of`](crate::OriginPolicy::cookies_of)): with [`Cookies::Omit`] neither they nor the request
/// itself, in which somebody could look for them, are shown.
pub fn credentials_with<'a>(
    fields: &Fields<'a>,
    parts: &'a Parts,
    remote: Option<SocketAddr>,
    sources: &TokenSources,
    cookies: Cookies,
) -> HttpCredentials<'a> {
    let mut found = presented(fields);
    (found.remote, found.certificate) = (remote, ClientCertificate::of(&parts.extensions));
    found.request = (cookies == Cookies::Include).then_some(parts);
    if found.token.is_some() || found.user.is_some() {
        return found;
    }
    let Some(places) = sources.places() else { return found };
    if let Some(name) = &places.cookie
        && cookies == Cookies::Include
    {
        // A value that is not UTF-8 becomes a token that no authenticator knows, so that it is refused, as an
        // `Authorization` that cannot be read is.
        let mut tokens = cookies_named(&parts.headers, name).map(String::from_utf8_lossy);
        found.token = tokens.next();
        found.more_tokens = tokens.take(MAX_MORE_TOKENS).collect();
    }
    if found.token.is_none() && places.query {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        found.token =
            form_urlencoded::parse(query).find(|(key, _)| key == "access_token").map(|(_, value)| value);
    }
    found
}

fn presented<'a>(fields: &Fields<'a>) -> HttpCredentials<'a> {
    let text = |value: &'a HeaderValue| String::from_utf8_lossy(value.as_bytes());
    let found = match fields.authorization {
        Some(value) => authorization(text(value)),
        None => HttpCredentials { token: fields.x_api_key.map(text), ..HttpCredentials::default() },
    };
    HttpCredentials { cross_origin: cross_origin(fields), ..found }
}

fn authorization(value: Cow<'_, str>) -> HttpCredentials<'_> {
    let (scheme, rest) = value.split_once(' ').unwrap_or((&value, ""));
    let rest = rest.trim();
    if TOKEN_SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) && !rest.is_empty() {
        let token = match &value {
            Cow::Borrowed(text) => Cow::Borrowed(text.split_once(' ').map_or("", |(_, token)| token.trim())),
            Cow::Owned(_) => Cow::Owned(rest.to_owned()),
        };
        return HttpCredentials { token: Some(token), ..HttpCredentials::default() };
    }
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = STANDARD.decode(rest)
        && let Some(colon) = pair.iter().position(|byte| *byte == b':')
        && let (user, [_, password @ ..]) = pair.split_at(colon)
        && let Ok(user) = std::str::from_utf8(user)
    {
        return HttpCredentials {
            user: Some(Cow::Owned(user.to_owned())),
            password: Some(Cow::Owned(password.to_owned())),
            ..HttpCredentials::default()
        };
    }
    HttpCredentials { token: Some(value), ..HttpCredentials::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use broker_core::{Principal, Rights};
    use http::header;

    use super::*;
    use crate::request::TokenPlaces;

    fn parts(uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn headers_come_first_and_unreadable_ones_are_not_nobody() {
        let sources = TokenSources::from(TokenPlaces { cookie: Some("fw".into()), query: true });
        let all = [("cookie", "a=b; fw=\"C\""), ("x-api-key", "K"), ("authorization", "bearer  T ")];
        let cases = [
            ("/", &all[..], Some("T")),
            ("/", &all[..2], Some("K")),
            ("/?access_token=Q", &all[..1], Some("C")),
            ("/?access_token=Q%2B", &[], Some("Q+")),
            ("/", &[], None),
            ("/", &[("authorization", "OAuth 00D!T")], Some("00D!T")),
            ("/", &[("authorization", "token T")], Some("T")),
            ("/", &[("authorization", "OAuth")], Some("OAuth")),
            ("/", &[("authorization", "Digest x")], Some("Digest x")),
            ("/", &[("authorization", "Bearer")], Some("Bearer")),
            ("/", &[("authorization", "Basic !!")], Some("Basic !!")),
            ("/", &[("authorization", "")], Some("")),
        ];
        for (uri, lines, expected) in cases {
            let parts = parts(uri, lines);
            assert_eq!(credentials_from(&parts, &sources).token.as_deref(), expected, "{uri} {lines:?}");
        }
    }

    #[test]
    fn a_cookie_that_is_no_text_is_not_nobody_and_not_the_next_place() {
        let sources = TokenSources::from(TokenPlaces { cookie: Some("fw".into()), query: true });
        let mut parts = parts("/?access_token=Q", &[("cookie", "first=1")]);
        let unreadable = HeaderValue::from_bytes(b"fw=\xFC").unwrap();
        parts.headers.append(header::COOKIE, unreadable);
        assert_eq!(credentials_from(&parts, &sources).token.as_deref(), Some("\u{FFFD}"));
    }

    #[tokio::test]
    async fn each_cookie_of_the_name_is_tried_until_one_is_known() {
        /// Knows one token, and counts the questions.
        struct Knows(&'static str, AtomicUsize);
        impl Authenticator for Knows {
            fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
                self.1.fetch_add(1, Relaxed);
                Authenticated::now(match credentials.token {
                    Some(token) if token == self.0 => Ok(Principal::anonymous(Rights::all())),
                    _ => Err(AuthError::Invalid("no such key".to_owned())),
                })
            }
        }
        let sources = TokenSources::from(TokenPlaces { cookie: Some("fw".into()), query: false });
        for (cookie, known, asked) in [
            ("fw=RIGHT", true, 1),
            ("fw=RIGHT; fw=old", true, 1),
            ("fw=old; fw=RIGHT", true, 2),
            ("fw=a; fw=b; fw=c; fw=RIGHT", true, 4),
            ("fw=a; fw=b; fw=c; fw=d; fw=RIGHT", false, 4),
            ("fw=a", false, 1),
        ] {
            let parts = parts("/", &[("cookie", cookie)]);
            let authenticator = Knows("RIGHT", AtomicUsize::new(0));
            let found = credentials_from(&parts, &sources);
            let outcome = found.authenticate(&authenticator, "http").await;
            assert_eq!(outcome.is_ok(), known, "{cookie}");
            assert_eq!(authenticator.1.load(Relaxed), asked, "{cookie}");
        }
    }

    #[test]
    fn cookie_and_query_are_off_until_they_are_set() {
        let parts = parts("/?access_token=Q", &[("cookie", "fw=C")]);
        let sources = TokenSources::default();
        let handle = sources.clone();
        assert_eq!(credentials_from(&parts, &sources).token, None);
        handle.set(TokenPlaces { cookie: None, query: true });
        assert_eq!(credentials_from(&parts, &sources).token.as_deref(), Some("Q"));
        assert!(!sources.reads_cookie());
        handle.set(TokenPlaces { cookie: Some("fw".into()), query: false });
        assert_eq!(credentials_from(&parts, &sources).token.as_deref(), Some("C"));
        assert!(sources.reads_cookie());
        handle.set(TokenPlaces::default());
        assert_eq!(credentials_from(&parts, &sources).token, None);
    }

    #[test]
    fn the_request_is_there_unless_its_cookies_do_not_count() {
        let mut parts = parts("/?access_token=Q", &[("cookie", "fw=C")]);
        parts.extensions.insert(7_u8);
        let sources = TokenSources::from(TokenPlaces { cookie: Some("fw".into()), query: true });
        for (cookies, token, extension) in
            [(Cookies::Include, Some("C"), Some(7)), (Cookies::Omit, Some("Q"), None)]
        {
            let fields = Fields::from(&parts.headers);
            let found = credentials_with(&fields, &parts, None, &sources, cookies);
            assert_eq!(found.token.as_deref(), token);
            let request = found.for_protocol("http").request::<Parts>();
            assert_eq!(request.and_then(|parts| parts.extensions.get::<u8>()).copied(), extension);
        }
    }

    #[test]
    fn basic_splits_at_the_first_colon() {
        let parts = parts("/", &[("authorization", "Basic dTpwOnE=")]);
        let found = credentials(&parts);
        let given = found.for_protocol("http");
        assert_eq!((given.user, given.password), (Some("u"), Some(&b"p:q"[..])));
        assert!(!format!("{found:?}").contains("112"), "a password never reaches a log");
    }
}
