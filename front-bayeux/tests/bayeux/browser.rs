use std::time::Duration;

use serde_json::json;

use crate::support::{Poller, Server, last, ms, quick};

#[tokio::test]
async fn a_session_belongs_to_its_browser() {
    let server = Server::start(quick()).await;
    let poller = server.poller().await;
    for cookie in [None, Some("BAYEUX_BROWSER=stolen".to_owned())] {
        let mut thief = poller.clone();
        thief.browser.cookie = cookie;
        let reply = thief.connect().await;
        assert_eq!(last(&reply)["error"], "402::session_unknown");
        assert_eq!(last(&reply)["advice"]["reconnect"], "handshake");
    }
}

#[tokio::test]
async fn a_browser_is_known_whatever_cookies_stand_beside_its_own() {
    let server = Server::start(quick()).await;
    let others =
        ["name=J\u{fc}rgen; OWN", "OWN; name=J\u{fc}rgen", "BAYEUX_BROWSER=x; OWN", "OWN; BAYEUX_BROWSER=x"];
    for cookies in others {
        let mut poller = server.poller().await;
        let own = poller.browser.cookie.clone().unwrap();
        poller.browser.cookie = Some(cookies.replace("OWN", &own));
        let connect = json!({"channel": "/meta/connect", "advice": {"timeout": 0}});
        assert_eq!(last(&poller.send(connect).await)["successful"], true, "{cookies}");
        // Another session of the same browser needs no other cookie, and can be used.
        let types = ["long-polling"];
        let handshake = json!([{"channel": "/meta/handshake", "supportedConnectionTypes": types}]);
        let answer = poller.browser.post(&handshake.to_string()).await;
        assert_eq!(answer.header("set-cookie"), None, "{cookies}");
        poller.id = answer.messages()[0]["clientId"].as_str().unwrap().to_owned();
        assert_eq!(
            last(&poller.send(json!({"channel": "/meta/connect"})).await)["successful"],
            true,
            "{cookies}"
        );
    }
}

#[tokio::test]
async fn trust_is_an_option() {
    let mut config = quick();
    config.trust_client_session = true;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.browser.cookie = None;
    assert_eq!(last(&poller.connect().await)["successful"], true);
}

#[tokio::test]
async fn one_browser_holds_one_connect() {
    let mut config = quick();
    config.timing = Default::default();
    config.multi_session_interval = Duration::from_secs(2);
    let server = Server::start(config).await;
    let first = server.poller().await;
    let mut browser = first.browser.clone();
    let reply = browser.handshake(json!({})).await;
    let mut second = Poller { browser, id: reply["clientId"].as_str().unwrap().to_owned() };
    second.connect().await;
    let held = first.hold();
    tokio::time::sleep(ms(50)).await;
    let reply = second.connect().await;
    assert_eq!(last(&reply)["successful"], true);
    assert_eq!(
        last(&reply)["advice"],
        json!({"reconnect": "retry", "interval": 2000, "multiple-clients": true})
    );
    held.abort();
    let _ = held.await;
    tokio::time::sleep(ms(50)).await;
    let held = second.hold();
    tokio::time::sleep(ms(50)).await;
    assert!(!held.is_finished(), "its turn now");
}

#[tokio::test]
async fn other_sessions_may_be_refused() {
    let mut config = quick();
    config.timing = Default::default();
    config.multi_session_interval = Duration::ZERO;
    let server = Server::start(config).await;
    let first = server.poller().await;
    let mut browser = first.browser.clone();
    let reply = browser.handshake(json!({})).await;
    let mut second = Poller { browser, id: reply["clientId"].as_str().unwrap().to_owned() };
    second.connect().await;
    let _held = first.hold();
    tokio::time::sleep(ms(50)).await;
    let reply = second.connect().await;
    assert_eq!(last(&reply)["successful"], false);
    assert_eq!(last(&reply)["advice"], json!({"reconnect": "none", "multiple-clients": true}));
}

#[tokio::test]
async fn a_negative_limit_is_none() {
    let mut config = quick();
    config.timing = Default::default();
    config.max_sessions_per_browser = -1;
    let server = Server::start(config).await;
    let first = server.poller().await;
    let mut browser = first.browser.clone();
    let reply = browser.handshake(json!({})).await;
    let mut second = Poller { browser, id: reply["clientId"].as_str().unwrap().to_owned() };
    second.connect().await;
    let (a, b) = (first.hold(), second.hold());
    tokio::time::sleep(ms(50)).await;
    assert!(!a.is_finished() && !b.is_finished());
    assert_eq!(server.front.stats().held_polls, 2);
}
