//! Events as API Gateway sends them to functions.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

/// What is the same in all events of a connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The API's name.
    pub api: String,
    /// Its stage.
    pub stage: String,
    /// `stageVariables`; absent if there are none.
    pub stage_variables: BTreeMap<String, String>,
    /// The `Host` that the client named, with its port.
    pub domain: String,
    /// The connection's id.
    pub connection_id: String,
    /// When it began, in milliseconds since 1970.
    pub connected_at_ms: u64,
    /// The client's address.
    pub source_ip: String,
    /// What it calls itself.
    pub user_agent: Option<String>,
}

/// What the request said that opened the connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Opening {
    /// Header fields, in order, with the names as the client spelled them.
    pub headers: Vec<(String, String)>,
    /// Parameters, in order, decoded.
    pub query: Vec<(String, String)>,
}

/// What is new with each event, and stays when it is sent again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stamp {
    /// Names the event: the key by which a function can tell that it has seen it.
    pub request_id: String,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Stamp {
    /// Of an event that happens now.
    pub fn new(time_ms: u64) -> Self {
        Self { request_id: id(), time_ms }
    }
}

/// What an authorizer has said of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authorized {
    /// Who it is.
    pub principal_id: String,
    /// What else there is to know.
    pub context: BTreeMap<String, String>,
}

impl Authorized {
    /// Who it is, and what else there is to know.
    pub fn new(principal_id: impl Into<String>, context: BTreeMap<String, String>) -> Self {
        Self { principal_id: principal_id.into(), context }
    }
}

impl Serialize for Authorized {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("principalId", &self.principal_id)?;
        for (name, value) in self.context.iter().filter(|(name, _)| *name != "principalId") {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What a client has sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// A name that nobody else has, of the length of AWS' and of what may stand in a path: a dead letter is asked for by it.
pub fn id() -> String {
    let mut bytes = [0; 11];
    bytes.fill_with(|| fastrand::u8(..));
    URL_SAFE.encode(bytes)
}

/// `28/Nov/2026:22:04:57 +0000`.
fn request_time(time_ms: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 2026-11-28T22:04:57.000Z
    let text = envelope::timestamp(time_ms);
    let part = |from, to| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!("{}/{}/{}:{} +0000", part(8, 10), month.unwrap_or(&"Jan"), part(0, 4), part(11, 19))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Last<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<All<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Last<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<All<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<&'a BTreeMap<String, String>>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_base64_encoded: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'a Authorized>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    event_type: &'static str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'static str,
    stage: &'a str,
    connected_at: u64,
    request_time_epoch: u64,
    identity: Identity<'a>,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: &'a str,
    api_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: &'a str,
}

/// Names with their last value each.
struct Last<'a>(&'a [(String, String)]);

/// Names with all their values.
struct All<'a>(&'a [(String, String)]);

impl<'a> All<'a> {
    fn grouped(&self) -> BTreeMap<&'a str, Vec<&'a str>> {
        let mut grouped = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in self.0 {
            grouped.entry(name).or_default().push(value);
        }
        grouped
    }
}

impl Serialize for Last<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let last: BTreeMap<&str, &str> = self.0.iter().map(|(name, value)| (&**name, &**value)).collect();
        serializer.collect_map(last)
    }
}

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.grouped())
    }
}

impl Facts {
    fn context<'a>(&'a self, stamp: &'a Stamp, route: &'a str, event_type: &'static str) -> Context<'a> {
        Context {
            route_key: route,
            authorizer: None,
            message_id: None,
            disconnect_status_code: None,
            disconnect_reason: None,
            event_type,
            extended_request_id: &stamp.request_id,
            request_time: request_time(stamp.time_ms),
            message_direction: "IN",
            stage: &self.stage,
            connected_at: self.connected_at_ms,
            request_time_epoch: stamp.time_ms,
            identity: Identity { user_agent: self.user_agent.as_deref(), source_ip: &self.source_ip },
            request_id: &stamp.request_id,
            domain_name: &self.domain,
            connection_id: &self.connection_id,
            api_id: &self.api,
        }
    }

    fn event<'a>(&'a self, context: Context<'a>) -> Event<'a> {
        Event {
            kind: None,
            method_arn: None,
            headers: None,
            multi_value_headers: None,
            query_string_parameters: None,
            multi_value_query_string_parameters: None,
            stage_variables: Some(&self.stage_variables).filter(|variables| !variables.is_empty()),
            request_context: context,
            body: None,
            is_base64_encoded: None,
        }
    }

    fn opened<'a>(&'a self, opening: &'a Opening, stamp: &'a Stamp) -> Event<'a> {
        let query = Some(&*opening.query).filter(|query| !query.is_empty());
        Event {
            headers: Some(Last(&opening.headers)),
            multi_value_headers: Some(All(&opening.headers)),
            query_string_parameters: query.map(Last),
            multi_value_query_string_parameters: query.map(All),
            ..self.event(self.context(stamp, "$connect", "CONNECT"))
        }
    }

    /// A client wants to connect. `authorized` is what an authorizer has said of it.
    pub fn connect(&self, opening: &Opening, stamp: &Stamp, authorized: Option<&Authorized>) -> Vec<u8> {
        let mut event = self.opened(opening, stamp);
        event.request_context.authorizer = authorized;
        event.is_base64_encoded = Some(false);
        written(&event)
    }

    /// The same, for an authorizer, who is asked about `arn`.
    pub fn authorize(&self, opening: &Opening, stamp: &Stamp, arn: &str) -> Vec<u8> {
        let mut event = self.opened(opening, stamp);
        (event.kind, event.method_arn) = (Some("REQUEST"), Some(arn));
        written(&event)
    }

    /// A client has sent a message, which takes `route`.
    pub fn message(
        &self,
        stamp: &Stamp,
        route: &str,
        authorized: Option<&Authorized>,
        payload: Payload<'_>,
    ) -> Vec<u8> {
        let encoded;
        let (body, is_base64) = match payload {
            Payload::Text(text) => (text, false),
            Payload::Binary(bytes) => {
                encoded = STANDARD.encode(bytes);
                (&*encoded, true)
            }
        };
        let message_id = id();
        let mut context = self.context(stamp, route, "MESSAGE");
        (context.authorizer, context.message_id) = (authorized, Some(&*message_id));
        let event = Event { body: Some(body), is_base64_encoded: Some(is_base64), ..self.event(context) };
        written(&event)
    }

    /// The connection is over.
    pub fn disconnect(
        &self,
        stamp: &Stamp,
        authorized: Option<&Authorized>,
        code: u16,
        reason: &str,
    ) -> Vec<u8> {
        let headers = [
            ("Host".to_owned(), self.domain.clone()),
            ("x-api-key".to_owned(), String::new()),
            ("X-Forwarded-For".to_owned(), self.source_ip.clone()),
            ("x-restapi".to_owned(), String::new()),
        ];
        let mut context = self.context(stamp, "$disconnect", "DISCONNECT");
        context.authorizer = authorized;
        (context.disconnect_status_code, context.disconnect_reason) = (Some(code), Some(reason));
        let event = Event {
            headers: Some(Last(&headers)),
            multi_value_headers: Some(All(&headers)),
            is_base64_encoded: Some(false),
            ..self.event(context)
        };
        written(&event)
    }

    /// What a client is told instead of an answer, as the text of a frame.
    pub fn error(&self, message: &str, request_id: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Error<'a> {
            message: &'a str,
            connection_id: &'a str,
            request_id: &'a str,
        }
        let error = Error { message, connection_id: &self.connection_id, request_id };
        // Texts in a struct are always JSON.
        serde_json::to_string(&error).unwrap_or_default()
    }
}

fn written(event: &Event<'_>) -> Vec<u8> {
    // Texts and numbers in structs and maps are always JSON.
    serde_json::to_vec(event).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts() -> Facts {
        Facts {
            api: "chat".into(),
            stage: "dev".into(),
            stage_variables: BTreeMap::from([("table".into(), "rooms".into())]),
            domain: "127.0.0.1:8080".into(),
            connection_id: "1f".into(),
            connected_at_ms: 1_795_903_490_000,
            source_ip: "192.0.2.1".into(),
            user_agent: Some("ws".into()),
        }
    }

    fn stamp() -> Stamp {
        Stamp { request_id: "r1".into(), time_ms: 1_795_903_497_123 }
    }

    fn opening() -> Opening {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Opening {
            headers: vec![
                pair("Host", "h"),
                pair("HeaderAuth1", "a"),
                pair("X-Many", "1"),
                pair("X-Many", "2"),
            ],
            query: vec![pair("a", "1"), pair("b", "x y"), pair("a", "2")],
        }
    }

    fn context(more: Value) -> Value {
        let mut context = json!({
            "messageDirection": "IN", "stage": "dev", "connectedAt": 1_795_903_490_000_u64,
            "requestTimeEpoch": 1_795_903_497_123_u64, "requestTime": "28/Nov/2026:22:04:57 +0000",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "ws"}, "requestId": "r1", "extendedRequestId": "r1",
            "domainName": "127.0.0.1:8080", "connectionId": "1f", "apiId": "chat",
        });
        for (name, value) in more.as_object().unwrap() {
            context[name] = value.clone();
        }
        context
    }

    fn read(event: &[u8]) -> Value {
        serde_json::from_slice(event).unwrap()
    }

    #[test]
    fn connect_has_all_that_the_request_said() {
        let authorized = Authorized::new("ann", BTreeMap::from([("n".to_owned(), "42".to_owned())]));
        let event = read(&facts().connect(&opening(), &stamp(), Some(&authorized)));
        let expected = json!({
            "headers": {"Host": "h", "HeaderAuth1": "a", "X-Many": "2"},
            "multiValueHeaders": {"Host": ["h"], "HeaderAuth1": ["a"], "X-Many": ["1", "2"]},
            "queryStringParameters": {"a": "2", "b": "x y"},
            "multiValueQueryStringParameters": {"a": ["1", "2"], "b": ["x y"]},
            "stageVariables": {"table": "rooms"},
            "requestContext": context(json!({"routeKey": "$connect", "eventType": "CONNECT",
                "authorizer": {"principalId": "ann", "n": "42"}})),
            "isBase64Encoded": false,
        });
        assert_eq!(event, expected);
        let bare = Opening { query: Vec::new(), ..opening() };
        let event =
            read(&Facts { stage_variables: BTreeMap::new(), ..facts() }.connect(&bare, &stamp(), None));
        let names: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["headers", "isBase64Encoded", "multiValueHeaders", "requestContext"]);
        assert!(event["requestContext"].get("authorizer").is_none());
    }

    #[test]
    fn an_authorizer_is_asked_about_the_route() {
        let event = read(&facts().authorize(&opening(), &stamp(), "arn:x"));
        assert_eq!((&event["type"], &event["methodArn"]), (&json!("REQUEST"), &json!("arn:x")));
        assert_eq!(event["requestContext"], context(json!({"routeKey": "$connect", "eventType": "CONNECT"})));
        assert_eq!(event["queryStringParameters"]["a"], "2");
        assert!(event.get("isBase64Encoded").is_none() && event.get("body").is_none());
    }

    #[test]
    fn a_message_has_its_text_exactly_and_no_headers() {
        for (payload, body, is_base64) in [
            (Payload::Text("{\"a\": 1}\n\u{1f600}\u{0}"), "{\"a\": 1}\n\u{1f600}\u{0}", false),
            (Payload::Text(""), "", false),
            (Payload::Binary(&[0, 255]), "AP8=", true),
        ] {
            let mut event = read(&facts().message(&stamp(), "$default", None, payload));
            let message_id = event["requestContext"]["messageId"].take();
            assert!(message_id.as_str().is_some_and(|id| id.len() == 16), "{message_id}");
            let expected = json!({
                "stageVariables": {"table": "rooms"},
                "requestContext": context(json!({"routeKey": "$default", "eventType": "MESSAGE", "messageId": null})),
                "body": body, "isBase64Encoded": is_base64,
            });
            assert_eq!(event, expected);
        }
    }

    #[test]
    fn a_disconnect_says_how() {
        let event = read(&facts().disconnect(&stamp(), None, 4001, "bye"));
        let more = json!({"routeKey": "$disconnect", "eventType": "DISCONNECT", "disconnectStatusCode": 4001,
            "disconnectReason": "bye"});
        assert_eq!(event["requestContext"], context(more));
        assert_eq!(event["headers"]["Host"], "127.0.0.1:8080");
        assert_eq!(event["multiValueHeaders"]["Host"], json!(["127.0.0.1:8080"]));
        assert_eq!(event["isBase64Encoded"], false);
        assert!(event.get("body").is_none() && event.get("queryStringParameters").is_none());
    }

    #[test]
    fn an_error_names_connection_and_event() {
        let error = facts().error("Forbidden", "r1");
        assert_eq!(error, r#"{"message":"Forbidden","connectionId":"1f","requestId":"r1"}"#);
    }
}
