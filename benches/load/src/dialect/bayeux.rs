//! A Bayeux subscriber: handshake, subscribe, then `/meta/connect` without end, over WebSocket or long-polling.

use std::borrow::Cow;

use serde::Deserialize;

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
}

/// The conversation, whatever carries it.
struct Conversation {
    subscription: String,
    connection_type: &'static str,
    client_id: String,
}

impl Conversation {
    fn handshake(&self) -> String {
        let kind = self.connection_type;
        format!(
            r#"[{{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["{kind}"],"id":"1"}}]"#
        )
    }

    fn connect(&self) -> String {
        let Self { client_id, connection_type, .. } = self;
        format!(
            r#"[{{"channel":"/meta/connect","clientId":"{client_id}","connectionType":"{connection_type}","id":"3"}}]"#
        )
    }

    /// Reports what an array holds; the answer to send, if one is due.
    fn take(&mut self, text: &[u8], on: &mut dyn FnMut(Event<'_>)) -> Result<Option<String>, Violation> {
        let mut answer = None;
        let messages: Vec<Message<'_>> = serde_json::from_slice(text)
            .map_err(|error| Violation(format!("not a message array: {error}")))?;
        for message in messages {
            if message.channel.starts_with("/meta/") && message.successful != Some(true) {
                let error = message.error.unwrap_or_default();
                return Err(Violation(format!("{} failed: {error}", message.channel)));
            }
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
                ("/meta/connect", _) => answer = Some(self.connect()),
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
    pub(super) fn new(channel: &str) -> Self {
        Self(Conversation {
            subscription: format!("/{channel}"),
            connection_type: "websocket",
            client_id: String::new(),
        })
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

/// One kept-alive connection that always has one request under way.
pub(super) struct LongPolling {
    conversation: Conversation,
    reader: ResponseReader,
    status: u16,
    body: Vec<u8>,
}

impl LongPolling {
    pub(super) fn new(channel: &str) -> Self {
        Self {
            conversation: Conversation {
                subscription: format!("/{channel}"),
                connection_type: "long-polling",
                client_id: String::new(),
            },
            reader: ResponseReader::new(),
            status: 0,
            body: Vec::new(),
        }
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
        while let Some((part, bytes)) = self.reader.next(&input[taken..])? {
            taken += bytes;
            match part {
                Part::Head(head) => self.status = head.status,
                Part::Framing => {}
                Part::Body(body) if self.body.len() + body.len() > MAX_BODY_BYTES => {
                    return Err(Violation("response does not end".to_owned()));
                }
                Part::Body(body) => self.body.extend_from_slice(body),
                Part::End if self.status != 200 => {
                    return Err(Violation(format!("poll answered {}", self.status)));
                }
                Part::End => {
                    let body = std::mem::take(&mut self.body);
                    if let Some(answer) = self.conversation.take(&body, on)? {
                        post(&answer, self.reader.cookie.as_deref(), out);
                    }
                }
            }
        }
        Ok(taken)
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
        let mut session = Streaming::new("load/0/1");
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
        let (mut session, mut out) = (LongPolling::new("a"), Vec::new());
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
}
