//! Signed tokens: which are accepted, and which are refused on every front.

use std::time::Duration;

use fanwire::auth::{Access, Algorithm as Accepted, KeySource};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::attempts::{FRONTS, everything, is_let_in, issuer, key, may, server};
use crate::sets::{
    ATTACKER, ED, RSA_PUBLIC, SECRET, SetServer, claims, encoding_key, forged, header, jwk, key_file, now,
    sign,
};
use crate::support::TestServer;
use crate::support::http::{get, request};
use crate::support::sse::EventStream;

const SHARED: &str = "https://shared.example";
const PEM: &str = "https://pem.example";
const SET: &str = "https://set.example";

/// Three issuers: a shared secret, an RSA key in a file, and a set with one key of each kind behind an address.
async fn three_issuers() -> (TestServer, SetServer) {
    let set = SetServer::start(json!([
        jwk(Algorithm::RS256, "rsa"),
        jwk(Algorithm::ES256, "ec"),
        jwk(Algorithm::EdDSA, "ed"),
        {"kty": "unheard-of", "kid": "future"},
        {"kty": "oct", "kid": "leaked", "k": "c2VjcmV0LW9mLXRoaXJ0eS10d28tYnl0ZXMtb3ItbW9yZQ"},
    ]))
    .await;
    let mut from_set = issuer(SET, Accepted::Rs256, KeySource::JwksUrl { url: set.url(), ca_file: None });
    from_set.algorithms = vec![Accepted::Rs256, Accepted::Es256, Accepted::EdDsa];
    from_set.jwks_cooldown = Duration::from_secs(3600);
    let mut access = Access::default();
    access.keys = vec![key("backend", "a key that is not a token", everything())];
    access.issuers = vec![
        issuer(SHARED, Accepted::Hs256, KeySource::Secret(SECRET.into())),
        issuer(PEM, Accepted::Rs256, KeySource::PemFile(key_file("rsa.public.pem"))),
        from_set,
    ];
    (server(access).await, set)
}

fn signed(iss: &str, algorithm: Algorithm, kid: Option<&str>) -> String {
    sign(&header(algorithm, kid), &claims(iss), &encoding_key(algorithm))
}

/// Valid claims but for what is changed, signed as the first issuer does.
fn with(change: Value) -> String {
    let mut all = claims(SHARED);
    for (name, value) in change.as_object().expect("an object") {
        match value {
            Value::Null => _ = all.as_object_mut().expect("an object").remove(name),
            value => all[name] = value.clone(),
        }
    }
    sign(&header(Algorithm::HS256, None), &all, &encoding_key(Algorithm::HS256))
}

#[tokio::test]
async fn right_tokens_and_keys_are_accepted_on_every_front() {
    let (server, _set) = three_issuers().await;
    let right = [
        ("a key", "a key that is not a token".to_owned()),
        ("HS256", signed(SHARED, Algorithm::HS256, None)),
        ("a kid that a single secret does not have", signed(SHARED, Algorithm::HS256, Some("any"))),
        ("RS256 from a file", signed(PEM, Algorithm::RS256, None)),
        ("RS256 from the set", signed(SET, Algorithm::RS256, Some("rsa"))),
        ("ES256 from the set", signed(SET, Algorithm::ES256, Some("ec"))),
        ("EdDSA from the set", signed(SET, Algorithm::EdDSA, Some("ed"))),
        ("the set's only key of that kind", signed(SET, Algorithm::ES256, None)),
        ("one of several audiences", with(json!({"aud": ["other", "fanwire"]}))),
        ("times with fractions", with(json!({"exp": now() as f64 + 600.5, "nbf": now() as f64 - 0.5}))),
        ("a clock a little behind", with(json!({"nbf": now() + 3}))),
    ];
    for (what, token) in right {
        for front in FRONTS {
            assert!(is_let_in(&server, front, &token).await, "{what} on {front}");
        }
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_on_every_front() {
    let (server, set) = three_issuers().await;
    let hs256 = |secret: &[u8], header: &Header, claims: &Value| {
        sign(header, claims, &EncodingKey::from_secret(secret))
    };
    let attacker = EncodingKey::from_ed_pem(ATTACKER).expect("a key");
    let hs = header(Algorithm::HS256, None);
    let none = |alg: &str, iss: &str| forged(&json!({"alg": alg, "typ": "JWT"}), &claims(iss), b"");
    let mut carries_its_key = header(Algorithm::EdDSA, Some("ed"));
    carries_its_key.jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&attacker, Algorithm::EdDSA).ok();
    let mut names_its_set = header(Algorithm::EdDSA, Some("attacker"));
    names_its_set.jku = Some(set.url());
    names_its_set.x5u = Some(set.url());
    let right = signed(SHARED, Algorithm::HS256, None);
    let (unsigned, signature) = right.rsplit_once('.').expect("three parts");
    let other_claims = {
        let parts: Vec<&str> = right.split('.').collect();
        let forged = forged(
            &json!({}),
            &json!({"iss": SHARED, "aud": "fanwire", "sub": "root", "exp": now() + 600}),
            b"",
        );
        format!("{}.{}.{}", parts[0], forged.split('.').nth(1).expect("claims"), parts[2])
    };
    let wrong = [
        ("a wrong secret", hs256(b"another secret of thirty-two bytes.", &hs, &claims(SHARED))),
        ("no signature", unsigned.to_owned() + "."),
        ("half a signature", format!("{unsigned}.{}", &signature[..20])),
        ("other claims than were signed", other_claims),
        ("two parts", unsigned.to_owned()),
        ("four parts", format!("{right}.x")),
        ("no token", "eyJ.eyJ.x".to_owned()),
        ("nothing like a token", "made-up".to_owned()),
        ("expired", with(json!({"exp": now() - 60}))),
        ("no exp", with(json!({"exp": null}))),
        ("an exp that is text", with(json!({"exp": "9999999999"}))),
        ("not yet valid", with(json!({"nbf": now() + 600}))),
        ("an nbf that is text", with(json!({"nbf": "0"}))),
        ("another audience", with(json!({"aud": "other"}))),
        ("no audience", with(json!({"aud": null}))),
        ("a foreign issuer", with(json!({"iss": "https://foreign.example"}))),
        ("no issuer", with(json!({"iss": null}))),
        ("issuers as a list", with(json!({"iss": [SHARED]}))),
        ("the other issuer's key", sign(&hs, &claims(PEM), &encoding_key(Algorithm::HS256))),
        ("a user that is no text", with(json!({"sub": 7}))),
        ("rights that are no list", with(json!({"rights": "all"}))),
        ("an action that does not exist", with(json!({"rights": [{"actions": ["fly"], "channels": ["#"]}]}))),
        (
            "a channel that is no filter",
            with(json!({"rights": [{"actions": ["publish"], "channels": ["#/a"]}]})),
        ),
        ("alg none", none("none", SHARED)),
        ("alg NONE", none("NONE", PEM)),
        ("no alg", none("", SET)),
        ("an algorithm that the issuer does not use", signed(PEM, Algorithm::EdDSA, None)),
        (
            "an algorithm that nobody uses",
            sign(
                &header(Algorithm::HS512, None),
                &claims(SHARED),
                &EncodingKey::from_secret(SECRET.as_bytes()),
            ),
        ),
        ("the public key as a secret", hs256(RSA_PUBLIC, &hs, &claims(PEM))),
        (
            "the public key as a secret, of a set",
            hs256(RSA_PUBLIC, &header(Algorithm::HS256, Some("rsa")), &claims(SET)),
        ),
        (
            "a secret that a set shows",
            hs256(
                b"secret-of-thirty-two-bytes-or-more",
                &header(Algorithm::HS256, Some("leaked")),
                &claims(SET),
            ),
        ),
        (
            "an unknown kid",
            sign(&header(Algorithm::EdDSA, Some("other")), &claims(SET), &encoding_key(Algorithm::EdDSA)),
        ),
        (
            "the kid of a key of another kind",
            sign(&header(Algorithm::EdDSA, Some("rsa")), &claims(SET), &encoding_key(Algorithm::EdDSA)),
        ),
        (
            "a kid that is a path",
            hs256(b"", &header(Algorithm::HS256, Some("../../../../dev/null")), &claims(SHARED)),
        ),
        ("a known kid on a wrong key", sign(&header(Algorithm::EdDSA, Some("ed")), &claims(SET), &attacker)),
        ("a key inside the token", sign(&carries_its_key, &claims(SET), &attacker)),
        ("an address of a set inside the token", sign(&names_its_set, &claims(SET), &attacker)),
        ("extensions that must be understood", {
            let known = sign(
                &header(Algorithm::EdDSA, Some("ed")),
                &claims(SET),
                &EncodingKey::from_ed_pem(ED).expect("a key"),
            );
            let rest = known.split_once('.').expect("parts").1.to_owned();
            let head =
                forged(&json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"], "exp": 1}), &json!({}), b"");
            format!("{}.{rest}", head.split('.').next().expect("a header"))
        }),
    ];
    for (what, token) in &wrong {
        for front in FRONTS {
            assert!(!is_let_in(&server, front, token).await, "{what} on {front}");
        }
    }
    assert!(set.times_asked() <= 2, "{} fetches for tokens that name what is not there", set.times_asked());
    // Refused ones are counted, and nothing of them is told.
    let metrics = get(server.http, "/metrics").await;
    let count = |name: &str| {
        let line = metrics.text().lines().find(|line| line.starts_with(name)).expect(name);
        line.rsplit(' ').next().expect("a number").parse::<f64>().expect("a number")
    };
    assert!(count("fanwire_refused_total{protocol=\"sse\",reason=\"rights\"}") >= wrong.len() as f64);
    assert!(count("fanwire_bayeux_handshakes_refused_total") >= 3.0 * wrong.len() as f64);
    assert!(count("fanwire_mqtt_handshakes_failed_total") >= 4.0 * wrong.len() as f64);
}

#[tokio::test]
async fn a_token_gives_its_user_and_its_rights_and_no_others() {
    let (server, _set) = three_issuers().await;
    let token = format!("Bearer {}", signed(SHARED, Algorithm::HS256, None));
    let publish = async |channel: &str, token: &str| {
        request(server.http, "POST", &format!("/v1/publish/{channel}"), &[("authorization", token)], "x")
            .await
            .status
    };
    assert_eq!(publish("orders/ann/1", &token).await, 200);
    for other in ["orders/bob/1", "orders/ann", "orders", "news", "orders/annn/1", "$SYS/x"] {
        assert_eq!(publish(other, &token).await, 403, "{other}");
    }
    for name in ["*", "#", "+", "**", "ann/x", "", "bob/*", "$SYS"] {
        let odd = format!("Bearer {}", with(json!({"sub": name})));
        assert_eq!(publish("orders/bob/1", &odd).await, 403, "{name:?}");
        let line = format!("authorization: {odd}\r\n");
        for filter in ["orders/bob/1", "orders/*/1", "orders/**", "orders/%23", "%23"] {
            let stream = EventStream::open_with(server.http, &format!("/sse/{filter}"), &line).await;
            assert_eq!(stream.status, 403, "{name:?} {filter}");
        }
    }
    // An empty list is a list.
    let nothing = format!("Bearer {}", with(json!({"rights": []})));
    assert_eq!(publish("orders/ann/1", &nothing).await, 403);
}

#[tokio::test]
async fn a_token_without_rights_has_those_of_its_issuer() {
    let mut access = Access::default();
    access.issuers = vec![{
        let mut given = issuer("", Accepted::Hs256, KeySource::Secret(SECRET.into()));
        given.rights = may(&[fanwire::Action::Publish], &["inbox/{user}"]);
        given.iss = None;
        given.aud = Vec::new();
        given
    }];
    let server = server(access).await;
    let token = with(json!({"rights": null, "aud": "whatever", "iss": "anybody"}));
    let token = format!("Bearer {token}");
    for (channel, status) in [("inbox/ann", 200), ("inbox/bob", 403), ("orders/ann/1", 403)] {
        let target = format!("/v1/publish/{channel}");
        let answer = request(server.http, "POST", &target, &[("authorization", &token)], "x").await;
        assert_eq!(answer.status, status, "{channel}");
    }
}

#[tokio::test]
async fn a_set_is_fetched_again_for_an_unknown_key_and_stays_if_that_fails() {
    let set = SetServer::start(json!([jwk(Algorithm::ES256, "one")])).await;
    let source = KeySource::JwksUrl { url: set.url(), ca_file: None };
    let mut rotating = issuer(SET, Accepted::Es256, source);
    rotating.algorithms = vec![Accepted::Es256, Accepted::EdDsa];
    rotating.jwks_cooldown = Duration::from_millis(300);
    let mut access = Access::default();
    access.issuers = vec![rotating];
    let server = server(access).await;
    let (old, new) = (signed(SET, Algorithm::ES256, Some("one")), signed(SET, Algorithm::EdDSA, Some("two")));
    let passes = async |token: &str| is_let_in(&server, "publish, Bearer", token).await;
    assert!(passes(&old).await);
    assert_eq!(set.times_asked(), 1, "fetched when it was first needed");
    assert!(passes(&old).await && !passes(&new).await);
    let asked = set.times_asked();
    for _ in 0..20 {
        assert!(!passes(&new).await);
    }
    assert!(set.times_asked() <= asked + 2, "tokens do not make it fetch at their rate");

    set.show(None);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!passes(&new).await && passes(&old).await, "the old set stays");

    set.show(Some(json!([jwk(Algorithm::EdDSA, "two")])));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(passes(&new).await, "the new key is found");
    assert!(!passes(&old).await, "and the old one is gone with its set");
}

#[tokio::test]
async fn an_old_set_answers_while_a_newer_one_is_had() {
    let set = SetServer::start(json!([jwk(Algorithm::ES256, "one")])).await;
    let source = KeySource::JwksUrl { url: set.url(), ca_file: None };
    let mut aging = issuer(SET, Accepted::Es256, source);
    aging.jwks_refresh = Duration::ZERO;
    aging.jwks_cooldown = Duration::ZERO;
    let mut access = Access::default();
    access.issuers = vec![aging];
    let server = server(access).await;
    let token = signed(SET, Algorithm::ES256, Some("one"));
    assert!(is_let_in(&server, "publish, Bearer", &token).await);
    // The key is withdrawn: it goes with the next set, without a token that names another.
    set.show(Some(json!([jwk(Algorithm::ES256, "two")])));
    crate::support::within(async { while is_let_in(&server, "publish, Bearer", &token).await {} }).await;
    assert!(is_let_in(&server, "publish, Bearer", &signed(SET, Algorithm::ES256, Some("two"))).await);
}

#[tokio::test]
async fn without_any_set_the_answer_is_to_try_again() {
    let set = SetServer::start(json!([])).await;
    set.show(None);
    let source = KeySource::JwksUrl { url: set.url(), ca_file: None };
    let mut access = Access::default();
    access.issuers = vec![issuer(SET, Accepted::Es256, source)];
    let server = server(access).await;
    let token = format!("Bearer {}", signed(SET, Algorithm::ES256, Some("one")));
    let answer = request(server.http, "POST", "/v1/publish/a", &[("authorization", &token)], "x").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(answer.code(), "credentials_unavailable");
    let connack = crate::attempts::connack(server.mqtt, 5, &token[7..]).await;
    assert_eq!(connack[3], 0x88, "server unavailable: {connack:02x?}");
}

#[tokio::test]
async fn a_set_in_a_file_is_read_again_too() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!({"keys": [jwk(Algorithm::ES256, "one")]}).to_string())
        .expect("written");
    let mut from_file = issuer(SET, Accepted::Es256, KeySource::JwksFile(file.path().to_owned()));
    from_file.algorithms = vec![Accepted::Es256, Accepted::EdDsa];
    from_file.jwks_cooldown = Duration::ZERO;
    let mut access = Access::default();
    access.issuers = vec![from_file];
    let server = server(access).await;
    let new = signed(SET, Algorithm::EdDSA, Some("two"));
    assert!(!is_let_in(&server, "publish, Bearer", &new).await);
    std::fs::write(file.path(), json!({"keys": [jwk(Algorithm::EdDSA, "two")]}).to_string())
        .expect("written");
    assert!(is_let_in(&server, "publish, Bearer", &new).await);
}
