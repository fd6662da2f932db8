//! Requests as SDKs have signed them (`vectors.json`, made with the library that each names), and the same with
//! something changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Action, Channel, Pattern, RightsTemplate};
use http::{HeaderName, HeaderValue, Method, Request};

use super::*;

const SECRET: &str = "not-a-secret/+=";
const KEY: &str = "AKIDFANWIRECHECK";

#[derive(serde::Deserialize)]
struct Vector {
    by: String,
    service: String,
    method: String,
    target: String,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
}

struct Signed {
    by: String,
    service: &'static str,
    parts: Parts,
    body: Vec<u8>,
    now: i64,
}

fn vectors() -> Vec<Signed> {
    let all: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let signed = |vector: Vector| {
        let mut request = Request::builder().method(vector.method.as_str()).uri(vector.target);
        for (name, value) in &vector.headers {
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let now = time::parse(parts.headers["x-amz-date"].to_str().unwrap()).unwrap();
        let body = STANDARD.decode(vector.body).unwrap();
        let service = if vector.service == "iotdata" { "iotdata" } else { "execute-api" };
        Signed { by: vector.by, service, parts, body, now }
    };
    all.into_iter().map(signed).collect()
}

fn verifier(secret: &str) -> Verifier {
    let mut key = Key::new(KEY, secret);
    key.gateways = vec!["chat".to_owned()];
    key.rights = RightsTemplate::default().allow([Action::Publish], Pattern::parse("a/{user}").unwrap());
    Verifier::new("us-east-1", Duration::from_secs(300), &[key])
}

impl Signed {
    fn verify_with(&self, verifier: &Verifier) -> Result<Arc<AccessKey>, &'static str> {
        verifier.verify(self.service, &self.parts, &self.body, self.now).map_err(|error| error.kind)
    }

    fn verify(&self) -> Result<Arc<AccessKey>, &'static str> {
        self.verify_with(&verifier(SECRET))
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.parts.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }

    fn target(&mut self, target: &str) {
        self.parts.uri = target.parse().unwrap();
    }
}

const WRONG: Result<(), &str> = Err("InvalidSignatureException");

#[test]
fn what_sdks_sign_is_verified() {
    let vectors = vectors();
    assert!(vectors.len() >= 12);
    for by in ["boto3", "@aws-sdk"] {
        assert!(vectors.iter().any(|vector| vector.by.starts_with(by)));
    }
    for vector in vectors {
        let key = vector.verify().unwrap_or_else(|error| panic!("{error}: {} {:?}", vector.by, vector.parts));
        assert_eq!(key.principal().user(), Some(KEY));
        let allows = |name: &str| key.principal().allows(Action::Publish, &Channel::parse(name).unwrap());
        assert!(allows("a/AKIDFANWIRECHECK") && !allows("a/b"));
        assert!(key.may_use_gateway("chat") && !key.may_use_gateway("other"));
    }
}

#[test]
fn nothing_that_was_signed_may_be_changed() {
    for (number, _) in vectors().iter().enumerate() {
        let vector = || vectors().swap_remove(number);
        let check = |what: &str, change: &dyn Fn(&mut Signed)| {
            let mut changed = vector();
            change(&mut changed);
            assert_eq!(changed.verify().map(drop), WRONG, "{what}: {} {:?}", changed.by, changed.parts);
        };
        check("method", &|signed| signed.parts.method = Method::PATCH);
        check("body", &|signed| signed.body.push(b'x'));
        check("host", &|signed| signed.set("host", "127.0.0.1:8081"));
        check("query", &|signed| {
            let path = signed.parts.uri.path().to_owned();
            let query = signed.parts.uri.query().unwrap_or_default().to_owned();
            signed.target(&format!("{path}?{query}&z=1"));
        });
        check("path", &|signed| {
            let target = signed.parts.uri.to_string();
            signed.target(&format!("/x{target}"));
        });
        check("a header field", &|signed| {
            signed.parts.headers.remove("host");
        });
        check("service", &|signed| signed.service = "other");
        check("late", &|signed| signed.now += 301);
        check("early", &|signed| signed.now -= 301);
        check("hash", &|signed| signed.set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"));
        let mut late = vector();
        late.now += 299;
        assert!(late.verify().is_ok());
        assert_eq!(vector().verify_with(&verifier("another")).map(drop), WRONG);
    }
}

#[test]
fn a_key_that_nobody_has_is_no_wrong_signature() {
    let vector = vectors().swap_remove(0);
    let nobody = Verifier::new("us-east-1", Duration::from_secs(300), &[]);
    assert_eq!(vector.verify_with(&nobody).map(drop), Err("UnrecognizedClientException"));
    let elsewhere = Verifier::new("eu-west-1", Duration::from_secs(300), &[Key::new(KEY, SECRET)]);
    assert_eq!(vector.verify_with(&elsewhere).map(drop), WRONG);
}

#[test]
fn what_is_missing_is_said() {
    let without = |name: &str| {
        let mut vector = vectors().swap_remove(0);
        vector.parts.headers.remove(name);
        vector.verify().map(drop)
    };
    assert_eq!(without("authorization"), Err("MissingAuthenticationTokenException"));
    assert_eq!(without("x-amz-date"), Err("IncompleteSignatureException"));
    let mut twice = vectors().swap_remove(0);
    let value = twice.parts.headers["authorization"].clone();
    twice.parts.headers.append("authorization", value);
    assert_eq!(twice.verify().map(drop), Err("IncompleteSignatureException"));
}

/// The example of AWS' documentation, "Derive a signing key".
#[test]
fn a_signing_key_is_derived_as_aws_does() {
    let secret = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let key = signing_key(secret, "20120215", "us-east-1", "iam");
    assert_eq!(hex(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
}

/// A request that was signed here, by hand, with its path as it is on the wire.
fn signed_by_hand(target: &str, host: &str) -> Signed {
    let mut request = Request::get(target).header("x-amz-date", "20261129T215500Z");
    if !target.starts_with("http") {
        request = request.header("host", host);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    let path = canonical_path(parts.uri.path());
    let body_hash = hex(&Sha256::digest(b""));
    let canonical = canonical_request(&parts, &path, "host;x-amz-date", &body_hash).unwrap();
    let scope = "20261129/us-east-1/iotdata/aws4_request";
    let to_sign = format!("{ALGORITHM}\n20261129T215500Z\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let signature =
        hex(&hmac(&signing_key(SECRET.as_bytes(), "20261129", "us-east-1", "iotdata"), to_sign.as_bytes()));
    let value =
        format!("{ALGORITHM} Credential={KEY}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}");
    parts.headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
    let now = time::parse("20261129T215500Z").unwrap();
    Signed { by: "hand".to_owned(), service: "iotdata", parts, body: Vec::new(), now }
}

#[test]
fn a_path_with_empty_segments_may_be_signed_as_it_is() {
    assert!(signed_by_hand("/topics/a//b/./c", "h:1").verify().is_ok());
    // HTTP/2 has no `Host`.
    assert!(signed_by_hand("http://h:1/topics/a", "").verify().is_ok());
}
