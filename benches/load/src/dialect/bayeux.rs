//! Bayeux. A subscriber shakes hands, subscribes, then asks `/meta/connect` without end, over WebSocket or
//! long-polling, with or without the ack extension; a publisher posts.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::http::{Part, ResponseReader, decimal};
use super::{Event, Session, Violation};

/// Longest response body of a long poll.
const MAX_BODY_BYTES: usize = 64 * 1_024 * 1_024;

/// One message of an array, as far as this client looks.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
    #[serde(rename = "clientId", borrow)]
    client_id: Option<Cow<'a, str>>,
    successful: Option<bool>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ext: Option<&'a RawValue>,
}

/// `ext` of a `/meta/connect` reply under the ack extension.
#[derive(Debug, Deserialize)]
struct AckExt {
    ack: u64,
}

/// Whether a session uses the ack extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Off,
    On,
}

/// The conversation, whatever carries it.
struct Conversation {
    subscription: String,
    connection_type: &'static str,
    client_id: String,
    ack: Ack,
    /// The last batch number that the server told, to be sent back with the next connect.
    batch: u64,
}

fn parse(text: &[u8]) -> Result<Vec<Message<'_>>, Violation> {
    serde_json::from_slice(text).map_err(|error| Violation(format!("not a message array: {error}")))
}

/// A meta message that the server did not accept ends the conversation.
fn check_meta(message: &Message<'_>) -> Result<(), Violation> {
    if message.channel.starts_with("/meta/") && message.successful != Some(true) {
        let error = message.error.as_deref().unwrap_or_default();
        return Err(Violation(format!("{} failed: {error}", message.channel)));
    }
    Ok(())
}

impl Conversation {
    fn new(channel: &str, connection_type: &'static str, ack: Ack) -> Self {
        let subscription = format!("/{channel}");
        Self { subscription, connection_type, client_id: String::new(), ack, batch: 0 }
    }

    fn handshake(&self) -> String {
        let kind = self.connection_type;
        let ext = if self.ack == Ack::On { r#","ext":{"ack":true}"# } else { "" };
        format!(
            r#"[{{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["{kind}"],"id":"1"{ext}}}]"#
        )
    }

    fn connect(&self) -> String {
        let Self { client_id, connection_type, .. } = self;
        let ext = match self.ack {
            Ack::On => format!(r#","ext":{{"ack":{}}}"#, self.batch),
            Ack::Off => String::new(),
        };
        format!(
            r#"[{{"channel":"/meta/connect","clientId":"{client_id}","connectionType":"{connection_type}","id":"3"{ext}}}]"#
        )
    }

    /// Reports what an array holds; the answer to send, if one is due.
    fn take(&mut self, text: &[u8], on: &mut dyn FnMut(Event<'_>)) -> Result<Option<String>, Violation> {
        let mut answer = None;
        for message in parse(text)? {
            check_meta(&message)?;
            match (&*message.channel, message.data) {
                ("/meta/handshake", _) => {
                    self.client_id = message.client_id.unwrap_or_default().into_owned();
                    let (id, subscription) = (&self.client_id, &self.subscription);
                    answer = Some(format!(
                        r#"[{{"channel":"/meta/subscribe","clientId":"{id}","subscription":"{subscription}","id":"2"}}]"#
                    ));
                }
                ("/meta/subscribe", _) => {
                    on(Event::Ready);
                    answer = Some(self.connect());
                }
                ("/meta/connect", _) => {
                    if let (Ack::On, Some(ext)) = (self.ack, message.ext)
                        && let Ok(AckExt { ack }) = serde_json::from_str(ext.get())
                    {
                        self.batch = ack;
                    }
                    answer = Some(self.connect());
                }
                (_, Some(data)) => on(Event::Payload(data.as_bytes())),
                (_, None) => {}
            }
        }
        Ok(answer)
    }
}

/// Inside [`WebSocket`](super::websocket::WebSocket): every input is one text message.
pub(super) struct Streaming(Conversation);

impl Streaming {
    pub(super) fn new(channel: &str, ack: Ack) -> Self {
        Self(Conversation::new(channel, "websocket", ack))
    }
}

impl Session for Streaming {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        out.extend_from_slice(self.0.handshake().as_bytes());
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        if let Some(answer) = self.0.take(input, on)? {
            out.extend_from_slice(answer.as_bytes());
        }
        Ok(input.len())
    }
}

/// Whole response bodies of one kept-alive connection.
struct Bodies {
    reader: ResponseReader,
    status: u16,
    body: Vec<u8>,
}

impl Bodies {
    fn new() -> Self {
        Self { reader: ResponseReader::new(), status: 0, body: Vec::new() }
    }

    /// Reads on from `input[taken..]`; a whole body, or none if more input is needed.
    fn next(&mut self, input: &[u8], taken: &mut usize) -> Result<Option<Vec<u8>>, Violation> {
        while let Some((part, bytes)) = self.reader.next(&input[*taken..])? {
            *taken += bytes;
            match part {
                Part::Head(head) => self.status = head.status,
                Part::Framing => {}
                Part::Body(body) if self.body.len() + body.len() > MAX_BODY_BYTES => {
                    return Err(Violation("response does not end".to_owned()));
                }
                Part::Body(body) => self.body.extend_from_slice(body),
                Part::End if self.status != 200 => {
                    return Err(Violation(format!("request answered {}", self.status)));
                }
                Part::End => return Ok(Some(std::mem::take(&mut self.body))),
            }
        }
        Ok(None)
    }
}

/// One kept-alive connection that always has one request under way.
pub(super) struct LongPolling {
    conversation: Conversation,
    bodies: Bodies,
}

impl LongPolling {
    pub(super) fn new(channel: &str, ack: Ack) -> Self {
        Self { conversation: Conversation::new(channel, "long-polling", ack), bodies: Bodies::new() }
    }
}

impl Session for LongPolling {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        post(&self.conversation.handshake(), None, out);
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some(body) = self.bodies.next(input, &mut taken)? {
            if let Some(answer) = self.conversation.take(&body, on)? {
                post(&answer, self.bodies.reader.cookie.as_deref(), out);
            }
        }
        Ok(taken)
    }
}

/// Publishes one message per request. Each request ends with a connect that the server answers at once, because a
/// session that never connects expires.
pub(super) struct Publisher {
    bodies: Bodies,
    client_id: String,
    /// Reused for each request.
    body: String,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Self { bodies: Bodies::new(), client_id: String::new(), body: String::new() }
    }
}

impl Session for Publisher {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        post(&Conversation::new("", "long-polling", Ack::Off).handshake(), None, out);
    }

    fn receive(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some(body) = self.bodies.next(input, &mut taken)? {
            for message in parse(&body)? {
                check_meta(&message)?;
                match (&*message.channel, message.successful) {
                    ("/meta/handshake", _) => {
                        self.client_id = message.client_id.unwrap_or_default().into_owned();
                        on(Event::Ready);
                    }
                    ("/meta/connect", _) | (_, None) => {}
                    (_, Some(true)) => on(Event::Accepted),
                    (_, Some(false)) => {
                        let code = message.error.as_deref().and_then(|error| error.get(..3)?.parse().ok());
                        on(Event::Refused(code.unwrap_or(0)));
                    }
                }
            }
        }
        Ok(taken)
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        let (id, data) = (&self.client_id, String::from_utf8_lossy(payload));
        self.body.clear();
        // Writing into a string cannot fail.
        let _ = write!(
            self.body,
            r#"[{{"channel":"/{channel}","data":"{data}","clientId":"{id}","id":"4"}},{{"channel":"/meta/connect","clientId":"{id}","connectionType":"long-polling","advice":{{"timeout":0}},"id":"5"}}]"#
        );
        post(&self.body, self.bodies.reader.cookie.as_deref(), out);
    }

    fn window(&self) -> usize {
        1
    }
}

/// The cookie binds a session to its browser: without it the server does not know the session.
fn post(body: &str, cookie: Option<&str>, out: &mut Vec<u8>) {
    let mut length = [0; 20];
    let (name, cookie) = cookie.map_or(("", ""), |cookie| ("\r\nCookie: ", cookie));
    for part in [
        b"POST /cometd HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json".as_slice(),
        name.as_bytes(),
        cookie.as_bytes(),
        b"\r\nContent-Length: ",
        decimal(body.len(), &mut length),
        b"\r\n\r\n",
        body.as_bytes(),
    ] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_goes_from_handshake_to_connect() {
        let mut session = Streaming::new("load/0/1", Ack::Off);
        let mut events = Vec::new();
        let mut say = |text: &str| {
            let mut out = Vec::new();
            session
                .receive(text.as_bytes(), &mut out, &mut |event| events.push(format!("{event:?}")))
                .map(|_| String::from_utf8_lossy(&out).into_owned())
        };
        let subscribe = say(r#"[{"channel":"/meta/handshake","clientId":"abc","successful":true,"id":"1"}]"#);
        assert!(
            subscribe
                .is_ok_and(|text| text.contains(r#""subscription":"/load/0/1""#) && text.contains("abc"))
        );
        let connect = say(r#"[{"channel":"/meta/subscribe","subscription":"/load/0/1","successful":true}]"#);
        assert!(connect.is_ok_and(|text| text.contains("/meta/connect")));
        let quiet =
            say(r#"[{"channel":"/load/0/1","data":"hi","id":"7"},{"channel":"/load/0/1","data":"ho"}]"#);
        assert!(quiet.is_ok_and(|text| text.is_empty()));
        let again =
            say(r#"[{"channel":"/load/0/1","data":"he"},{"channel":"/meta/connect","successful":true}]"#);
        assert!(again.is_ok_and(|text| text.contains("/meta/connect")));
        assert!(say(r#"[{"channel":"/meta/connect","successful":false,"error":"402::unknown"}]"#).is_err());
        assert!(say("no json").is_err());
        assert_eq!(events.len(), 4, "{events:?}");
    }

    #[test]
    fn a_long_poll_is_asked_again_after_each_answer() {
        let body = r#"[{"channel":"/meta/handshake","clientId":"abc","successful":true}]"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: B=1; Path=/\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (mut session, mut out) = (LongPolling::new("a", Ack::Off), Vec::new());
        session.start(&mut out, &mut |_| {});
        assert!(out.starts_with(b"POST /cometd "));
        out.clear();
        assert!(
            session
                .receive(answer.as_bytes(), &mut out, &mut |_| {})
                .is_ok_and(|taken| taken == answer.len())
        );
        let request = String::from_utf8_lossy(&out).into_owned();
        assert!(request.contains("/meta/subscribe") && request.contains("\r\nCookie: B=1\r\n"), "{request}");
        assert!(
            session.receive(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &mut out, &mut |_| {}).is_err()
        );
    }

    #[test]
    fn an_acknowledging_session_sends_the_last_batch_back() {
        let mut conversation = Conversation::new("a", "websocket", Ack::On);
        assert!(conversation.handshake().contains(r#""ext":{"ack":true}"#));
        let mut say = |text: &str| conversation.take(text.as_bytes(), &mut |_| {});
        let reply = r#"[{"channel":"/meta/handshake","clientId":"x","successful":true,"ext":{"ack":true}}]"#;
        assert!(say(reply).is_ok());
        let reply = r#"[{"channel":"/meta/connect","successful":true,"ext":{"ack":7}}]"#;
        assert!(say(reply).is_ok_and(|answer| answer.is_some_and(|text| text.contains(r#""ack":7"#))));
    }

    #[test]
    fn a_publisher_counts_the_answers_to_its_publishes_only() {
        let (mut session, mut found) = (Publisher::new(), Vec::new());
        for body in [
            r#"[{"channel":"/meta/handshake","clientId":"x","successful":true}]"#,
            r#"[{"channel":"/a","successful":true,"id":"4"},{"channel":"/meta/connect","successful":true}]"#,
            r#"[{"channel":"/a","successful":false,"error":"403:/a:no","id":"4"}]"#,
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let mut on = |event: Event<'_>| found.push(format!("{event:?}"));
            assert!(session.receive(answer.as_bytes(), &mut Vec::new(), &mut on).is_ok());
        }
        assert_eq!(found, ["Ready", "Accepted", "Refused(403)"]);
        let mut out = Vec::new();
        session.publish("a", b"hi", &mut out, &mut |_| {});
        let request = String::from_utf8_lossy(&out).into_owned();
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let messages: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&messages[0]["channel"], &messages[0]["data"]), (&"/a".into(), &"hi".into()));
        assert_eq!(messages[1]["advice"]["timeout"], 0);
    }
}
