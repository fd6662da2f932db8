//! The cookie of a browser (CometD's `browserCookie*`).

use std::time::Duration;

/// The cookie that binds a browser's sessions to it (`browserCookie*`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrowserCookie {
    /// `browserCookieName`; default `BAYEUX_BROWSER`.
    pub name: String,
    /// `browserCookieDomain`; default none.
    pub domain: Option<String>,
    /// `browserCookiePath`; default `/`.
    pub path: String,
    /// `browserCookieMaxAge`; default none: the cookie dies with the browser.
    pub max_age: Option<Duration>,
    /// `browserCookieSecure`; default false. Without it the cookie is so for browsers that are known to have come by
    /// `https` (`http_edge::Https`).
    pub secure: bool,
    /// `browserCookieHttpOnly`; default true.
    pub http_only: bool,
    /// `browserCookieSameSite`: `Strict`, `Lax` or `None`; default none is said.
    pub same_site: Option<String>,
    /// `browserCookiePartitioned`; default false.
    pub partitioned: bool,
}

impl Default for BrowserCookie {
    fn default() -> Self {
        Self {
            name: "BAYEUX_BROWSER".to_owned(),
            domain: None,
            path: "/".to_owned(),
            max_age: None,
            secure: false,
            http_only: true,
            same_site: None,
            partitioned: false,
        }
    }
}
