//! Which web pages may use which credentials.

use fanwire::auth::Access;
use fanwire::edge::OriginPolicy;
use fanwire::{Action, Filter, Rights, Rule};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::attempts::{everything, key};
use crate::support::http::request;
use crate::support::{TestServer, within};

const APP: &str = "https://app.example";
const ADMIN: &str = "https://admin.example";
const EVIL: &str = "https://evil.example";

/// Pages of `APP` may use what is there; `ADMIN` is for one key only.
async fn server() -> TestServer {
    let mut given = key("admin", "the admin's key", everything());
    given.origins = Some(vec![ADMIN.to_owned()]);
    let admin = given;
    let anonymous =
        Rights::none().allow(Rule::new([Action::Publish, Action::Subscribe], Filter::parse("open").unwrap()));
    let mut access = Access::default();
    access.anonymous = Some(anonymous);
    access.keys = vec![admin, key("backend", "the backend's key", everything())];
    access.allowed_origins = Some(vec![APP.to_owned()]);
    TestServer::with(move |config| {
        config.authenticator = std::sync::Arc::new(fanwire::auth::BuiltIn::with(access).unwrap());
        let origins = OriginPolicy::List(vec![APP.to_owned(), ADMIN.to_owned()]);
        config.api.origins = origins.clone();
        config.sse.origins = origins.clone();
        config.mqtt_front.origins = origins.clone();
        config.bayeux.origins = origins;
    })
    .await
}

#[tokio::test]
async fn a_page_uses_only_the_credentials_that_are_for_it() {
    let server = server().await;
    let own = format!("http://{}", server.http);
    for (secret, origin, status) in [
        (None, None, 200),
        (None, Some(&*own), 200),
        (None, Some(APP), 200),
        (None, Some(ADMIN), 403),
        (None, Some(EVIL), 403),
        (Some("the admin's key"), None, 200),
        (Some("the admin's key"), Some(&*own), 200),
        (Some("the admin's key"), Some(ADMIN), 200),
        (Some("the admin's key"), Some(APP), 403),
        (Some("the backend's key"), Some(APP), 200),
        (Some("the backend's key"), Some(ADMIN), 403),
        (Some("the backend's key"), Some(EVIL), 403),
        (Some("the backend's key"), Some("null"), 403),
    ] {
        let bearer = secret.map(|secret| format!("Bearer {secret}"));
        let mut headers = Vec::new();
        headers.extend(bearer.as_ref().map(|bearer| ("authorization", &**bearer)));
        headers.extend(origin.map(|origin| ("origin", origin)));
        let answer = request(server.http, "POST", "/v1/publish/open", &headers, "x").await;
        assert_eq!(answer.status, status, "{secret:?} {origin:?}");
        if status == 403 {
            assert_eq!(answer.code(), "origin_not_allowed", "{secret:?} {origin:?}");
        }
        let stream = request(server.http, "HEAD", "/sse/open", &headers, "").await;
        assert_eq!(stream.status, status, "{secret:?} {origin:?}");
        assert_ne!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

#[tokio::test]
async fn a_websocket_of_a_foreign_page_is_refused() {
    let server = server().await;
    for path in ["/mqtt", "/cometd"] {
        for (origin, allowed) in [(APP, true), (EVIL, false)] {
            let mut upgrade = format!("ws://{}{path}", server.http).into_client_request().unwrap();
            upgrade.headers_mut().insert("origin", origin.parse().unwrap());
            let opened = within(tokio_tungstenite::connect_async(upgrade)).await;
            assert_eq!(opened.is_ok(), allowed, "{path} {origin}");
        }
    }
}
