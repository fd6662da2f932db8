//! What the fuzzers of `fuzz/` call. Their corpora run as ordinary tests as well, so that what a fuzzer has found once is
//! looked at on every run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::control::{Control, Extension, Sorted};
use crate::events::{self, Close, Decoder, Event};
use crate::exchange::Exchange;
use crate::instruct::{self, Instruction, MAX_CHANNELS};
use crate::publish::{self, Body, HttpResponse};

/// Lines of headers, an empty line, a document. What is taken keeps all bounds, and nothing of it reaches the client.
pub fn instruct(bytes: &[u8]) {
    let (head, body) = halves(bytes, b"\n\n");
    let mut headers = fields(head);
    if let Ok(Some(told)) = instruct::in_headers(&headers) {
        check(&told);
        assert!(told.response.is_none());
    }
    if let Ok(told) = instruct::document(200, &headers, body) {
        check(&told);
        let response = told.response.as_ref().expect("a document has one");
        assert!(response.headers.keys().all(|name| !name.as_str().starts_with("grip-")));
    }
    assert!(instruct::document(201, &headers, body).is_err());
    instruct::strip(&mut headers);
    assert!(headers.keys().all(|name| !name.as_str().starts_with("grip-") && name != "content-length"));
}

fn check(told: &Instruction) {
    let names: BTreeSet<_> = told.channels.iter().map(|channel| &channel.name).collect();
    assert!(names.len() == told.channels.len() && names.len() <= MAX_CHANNELS);
    assert!(names.iter().all(|name| !name.is_empty()));
    assert!(told.timeout >= Duration::from_secs(5));
    assert!(told.keep_alive.as_ref().is_none_or(|kept| kept.timeout >= Duration::from_secs(1)));
    assert!(told.status.is_none_or(|status| status.as_u16() >= 200));
    assert!(told.next.as_ref().is_none_or(|next| !next.uri.is_empty()));
}

/// A body of events: whole and in two parts it is the same, and what was read is written and read again.
pub fn events(bytes: &[u8]) {
    const MAX: usize = 1 << 16;
    let whole = events::decode(bytes, MAX);
    let mut decoder = Decoder::new(MAX);
    let mut found = Vec::new();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut failed = None;
    for part in [first, second] {
        decoder.feed(part);
        while failed.is_none() {
            match decoder.poll() {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(error) => failed = Some(error),
            }
        }
    }
    match whole {
        Ok(events) => {
            assert!(failed.is_none() && decoder.finish().is_ok());
            assert_eq!(found, events);
            let written = events::encode(&events);
            assert_eq!(events::decode(&written, MAX), Ok(events));
        }
        Err(_) => assert!(failed.is_some() || decoder.finish().is_err()),
    }
}

/// A header of extensions, a line; then a text of an origin.
pub fn control(bytes: &[u8]) {
    let (header, text) = halves(bytes, b"\n");
    let _ = Control::parse(text);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.insert("sec-websocket-extensions", value);
    }
    let Ok(Some(extension)) = Extension::answered(&headers) else { return };
    let event = Event::Text(text.to_vec().into());
    match extension.sort(event) {
        Sorted::Message(Event::Text(message)) => assert!(text.ends_with(&message)),
        Sorted::Message(other) => panic!("{other:?} was a text"),
        Sorted::Control(control) => assert!(text.ends_with(&control) && text.starts_with(b"c:")),
        Sorted::Neither => {}
    }
}

/// A body of a request to publish: each item is the same by itself, and a patch stays within its bounds.
pub fn items(bytes: &[u8]) {
    let Ok(items) = publish::parse(bytes) else { return };
    for listed in items {
        let item = listed.item;
        assert_eq!(publish::item(listed.text).as_ref(), Ok(&item));
        assert!(!item.channel.is_empty() && !item.channel.starts_with('$'));
        let shown = item.elsewhere();
        assert!(item.bridge != Some(false) || shown.is_none());
        if let Some(HttpResponse::Send(answer)) = &item.response
            && let Body::Patch(patch) = &answer.body
            && let Ok(changed) = patch.apply(br#"{"a":[1,{"b":"c"}],"d":{"e":null}}"#, 1 << 12)
        {
            assert!(changed.len() <= 1 << 12);
            serde_json::from_slice::<serde_json::Value>(&changed).expect("it is JSON as before");
        }
    }
}

/// One WebSocket over HTTP, as steps: a byte for what happens, one for how much, and an answer's text. There is one
/// request at a time, and the origin is offered what the client has said in its order, from where it took it on.
pub fn exchange(bytes: &[u8]) {
    const MAX: usize = 1 << 12;
    const MAX_EVENTS: usize = 3;
    let (mut exchange, mut now) = (Exchange::new(MAX_EVENTS, MAX), Instant::now());
    // What the client has said, how much of it the origin has, and how much is in the request that is under way.
    let (mut said, mut taken, mut asked) = (Vec::new(), 0, None);
    let mut rest = bytes;
    while let [step, length, more @ ..] = rest {
        let (step, bytes) = (step % 8, if step % 8 == 6 { usize::from(*length) } else { 0 });
        let (content, more) = more.split_at(more.len().min(bytes));
        rest = more;
        match step {
            0 | 1 => {
                let message: Vec<u8> =
                    (0..*length).map(|number| number.wrapping_add(said.len() as u8)).collect();
                let before = exchange.waiting_bytes();
                exchange.push(Event::Binary(message.clone().into()));
                if exchange.waiting_bytes() > before {
                    said.extend(message);
                }
            }
            2 => exchange.push(Event::Close((*length > 0).then(|| Close::new(1000, "bye")))),
            3 => exchange.vanish(),
            4 => exchange.refresh(),
            5 => now += Duration::from_secs(u64::from(*length)),
            6 if asked.is_some() => {
                let (status, content) = content.split_first().unwrap_or((&200, content));
                let status = if *status % 8 == 7 { 500 } else { 200 };
                let (head, body) = halves(content, b"\n\n");
                let mut headers = fields(head);
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(events::CONTENT_TYPE));
                if let Ok(told) = exchange.handle_answer(now, status, &headers, body) {
                    let ends =
                        |event: &Event| matches!(event, Event::Open | Event::Close(_) | Event::Disconnect);
                    assert!(told.events.iter().all(|event| event.len() <= MAX && !ends(event)));
                    assert_eq!(told.end.is_some(), exchange.is_over());
                } else {
                    assert!(exchange.is_over());
                }
                if !exchange.is_over() {
                    let now_taken = said.len() - exchange.waiting_bytes();
                    assert!((taken..=taken + asked.unwrap_or_default()).contains(&now_taken));
                    taken = now_taken;
                }
                asked = None;
            }
            7 if asked.is_some() => {
                let is_over = exchange.handle_failure(now, *length % 2 == 0, Duration::ZERO);
                assert_eq!(is_over, exchange.is_over());
                asked = None;
            }
            _ => {}
        }
        let Some(body) = exchange.poll_request(now) else { continue };
        assert!(asked.is_none() && !exchange.is_over());
        let offered = events::decode(&body, MAX).expect("what is written is read");
        let messages: Vec<&[u8]> = offered
            .iter()
            .filter_map(|event| if let Event::Binary(message) = event { Some(&**message) } else { None })
            .collect();
        let content = messages.concat();
        assert!(messages.len() <= MAX_EVENTS);
        assert_eq!(said.get(taken..taken + content.len()), Some(&*content));
        exchange.write_headers(&mut HeaderMap::new());
        asked = Some(content.len());
        assert!(exchange.poll_request(now).is_none());
    }
}

/// Lines of headers; those that are none are passed over.
fn fields(head: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let (name, value) = halves(line, b":");
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// What stands before and behind the first `middle`.
fn halves<'a>(bytes: &'a [u8], middle: &[u8]) -> (&'a [u8], &'a [u8]) {
    match bytes.windows(middle.len()).position(|window| window == middle) {
        Some(at) => (&bytes[..at], &bytes[at + middle.len()..]),
        None => (bytes, b""),
    }
}

#[cfg(test)]
mod tests {
    fn all_of(name: &str, run: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 3, "{name}");
    }

    #[test]
    fn the_corpora_find_nothing() {
        all_of("grip_instruct", super::instruct);
        all_of("grip_events", super::events);
        all_of("grip_control", super::control);
        all_of("grip_items", super::items);
        all_of("grip_exchange", super::exchange);
    }
}
