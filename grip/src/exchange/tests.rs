//! Scripts of requests and answers.

use super::*;

fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/websocket-events"));
    for (name, value) in lines {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    headers
}

fn answer(
    exchange: &mut Exchange,
    now: Instant,
    lines: &[(&'static str, &'static str)],
    body: &str,
) -> Result<Told, AnswerError> {
    exchange.handle_answer(now, 200, &head(lines), body.as_bytes())
}

/// Past `OPEN`.
fn open(now: Instant, lines: &[(&'static str, &'static str)]) -> Exchange {
    let mut exchange = Exchange::new(3, 1 << 20);
    assert_eq!(exchange.poll_request(now).unwrap(), "OPEN\r\n");
    assert_eq!(answer(&mut exchange, now, lines, "OPEN\r\n").unwrap().end, None);
    exchange
}

fn text(text: &'static str) -> Event {
    Event::Text(text.into())
}

#[test]
fn an_opening_needs_open_or_an_interval() {
    let now = Instant::now();
    let opened = |lines: &[(&'static str, &'static str)], body: &str| {
        let mut exchange = Exchange::new(3, 1 << 20);
        exchange.poll_request(now).unwrap();
        assert_eq!(exchange.poll_request(now), None, "one at a time");
        answer(&mut exchange, now, lines, body)
    };
    let told = opened(&[("sec-websocket-extensions", "grip")], "OPEN\r\nTEXT 3\r\nm:a\r\n").unwrap();
    assert_eq!(told.events, [text("m:a")]);
    assert!(told.extension.is_some());
    assert!(opened(&[("content-type", "application/websocket-events; charset=utf-8")], "OPEN\r\n").is_ok());
    assert!(opened(&[("keep-alive-interval", "20")], "").is_ok());
    assert_eq!(opened(&[("keep-alive-interval", "0")], ""), Err(AnswerError::NotOpened));
    assert_eq!(opened(&[], ""), Err(AnswerError::NotOpened));
    assert_eq!(opened(&[], "TEXT 0\r\n\r\n"), Err(AnswerError::NotOpened));
    assert_eq!(opened(&[("content-type", "text/html")], "OPEN\r\n"), Err(AnswerError::Type));
    assert!(matches!(opened(&[], "<html>"), Err(AnswerError::Events(_))));
    let mut exchange = Exchange::new(3, 1 << 20);
    exchange.poll_request(now).unwrap();
    assert_eq!(exchange.handle_answer(now, 403, &head(&[]), b""), Err(AnswerError::Status(403)));
    assert!(exchange.is_over());
}

#[test]
fn what_waited_travels_together_in_order() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    assert_eq!(exchange.poll_request(now), None, "nothing to say");
    exchange.push(text("a"));
    assert_eq!(exchange.poll_request(now).unwrap(), "TEXT 1\r\na\r\n");
    for one in ["b", "c", "d", "e"] {
        exchange.push(text(one));
    }
    assert_eq!(exchange.poll_request(now), None);
    assert_eq!(answer(&mut exchange, now, &[], "TEXT 1\r\nA\r\n").unwrap().events, [text("A")]);
    let three = exchange.poll_request(now).unwrap();
    assert_eq!(three, "TEXT 1\r\nb\r\nTEXT 1\r\nc\r\nTEXT 1\r\nd\r\n", "three and no more");
    answer(&mut exchange, now, &[], "").unwrap();
    assert_eq!(exchange.poll_request(now).unwrap(), "TEXT 1\r\ne\r\n");
    answer(&mut exchange, now, &[], "").unwrap();
    assert_eq!((exchange.poll_request(now), exchange.waiting_bytes()), (None, 0));
}

#[test]
fn a_batch_is_bounded_by_bytes_and_one_may_be_longer() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    for bytes in [MAX_BATCH_BYTES - 1, 1, 1, MAX_BATCH_BYTES + 1] {
        exchange.push(Event::Binary(vec![0; bytes].into()));
    }
    let count = |body: &[u8]| events::decode(body, 1 << 20).unwrap().len();
    let mut counts = Vec::new();
    while let Some(body) = exchange.poll_request(now) {
        counts.push(count(&body));
        answer(&mut exchange, now, &[], "").unwrap();
    }
    assert_eq!(counts, [2, 1, 1]);
    for _ in 0..MAX_WAITING_BYTES / (1 << 16) {
        assert!(!exchange.is_full());
        exchange.push(Event::Binary(vec![0; 1 << 16].into()));
    }
    assert!(exchange.is_full());
}

#[test]
fn an_idle_connection_asks_at_its_interval_and_not_more_often() {
    let now = Instant::now();
    let mut exchange = open(now, &[("keep-alive-interval", "3")]);
    let due = now + Duration::from_secs(20);
    assert_eq!(exchange.poll_timeout(), Some(due));
    assert_eq!(exchange.poll_request(due - Duration::from_millis(1)), None);
    assert_eq!(exchange.poll_request(due).unwrap(), "");
    assert_eq!(exchange.poll_timeout(), None);
    answer(&mut exchange, due, &[], "TEXT 1\r\nx\r\n").unwrap();
    assert_eq!(exchange.poll_timeout(), Some(due + Duration::from_secs(20)));
    exchange.push(text("a"));
    assert!(exchange.poll_request(due).is_some());
    answer(&mut exchange, due, &[("keep-alive-interval", "")], "").unwrap();
    assert_eq!(exchange.poll_timeout(), None, "not any more");
    exchange.refresh();
    assert_eq!(exchange.poll_request(due).unwrap(), "", "asked at once");
}

#[test]
fn a_part_is_accepted_and_the_rest_goes_with_the_next() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    exchange.push(text("abc"));
    exchange.push(text("defg"));
    exchange.poll_request(now).unwrap();
    answer(&mut exchange, now, &[("content-bytes-accepted", "5")], "").unwrap();
    assert_eq!(exchange.poll_request(now), None, "until there is more");
    exchange.push(text("h"));
    assert_eq!(exchange.poll_request(now).unwrap(), "TEXT 2\r\nfg\r\nTEXT 1\r\nh\r\n");
    let mut headers = HeaderMap::new();
    exchange.write_headers(&mut headers);
    assert_eq!(headers["content-bytes-replayed"], "2");
    answer(&mut exchange, now, &[("content-bytes-accepted", "3")], "").unwrap();
    assert_eq!(exchange.waiting_bytes(), 0);
    let mut headers = HeaderMap::new();
    exchange.write_headers(&mut headers);
    assert!(!headers.contains_key("content-bytes-replayed"));
    exchange.push(text("i"));
    exchange.poll_request(now).unwrap();
    let refused = answer(&mut exchange, now, &[("content-bytes-accepted", "2")], "");
    assert_eq!(refused, Err(AnswerError::TooMuch { taken: 2, offered: 1 }));
    assert!(exchange.is_over());
}

#[test]
fn an_origin_that_accepts_nothing_of_a_full_batch_is_given_up() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    for one in ["a", "b", "c", "d"] {
        exchange.push(text(one));
    }
    exchange.poll_request(now).unwrap();
    let stuck = answer(&mut exchange, now, &[("content-bytes-accepted", "0")], "");
    assert_eq!(stuck, Err(AnswerError::Stuck));
}

#[test]
fn a_request_that_nobody_can_have_read_is_tried_again() {
    let mut now = Instant::now();
    let mut exchange = open(now, &[]);
    exchange.push(text("a"));
    for seconds in [1, 2, 4, 8, 16] {
        assert_eq!(exchange.poll_request(now).unwrap(), "TEXT 1\r\na\r\n");
        assert!(!exchange.handle_failure(now, true, Duration::from_millis(7)));
        let due = now + Duration::from_secs(seconds) + Duration::from_millis(7);
        assert_eq!(exchange.poll_timeout(), Some(due));
        assert_eq!(exchange.poll_request(due - Duration::from_millis(1)), None);
        now = due;
    }
    assert!(exchange.poll_request(now).is_some());
    assert!(exchange.handle_failure(now, true, Duration::ZERO), "five times and no more");
    assert!(exchange.is_over());
}

#[test]
fn a_request_that_may_have_been_read_is_never_repeated_nor_the_opening() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    exchange.push(text("a"));
    exchange.poll_request(now).unwrap();
    assert!(exchange.handle_failure(now, false, Duration::ZERO));
    assert_eq!(exchange.poll_request(now + Duration::from_secs(60)), None);
    let mut opening = Exchange::new(3, 1 << 20);
    opening.poll_request(now).unwrap();
    assert!(opening.handle_failure(now, true, Duration::ZERO));
    assert_eq!(opening.poll_request(now + Duration::from_secs(60)), None);
    // After one that came through, it counts from the beginning again.
    let mut exchange = open(now, &[]);
    exchange.push(text("a"));
    exchange.poll_request(now).unwrap();
    assert!(!exchange.handle_failure(now, true, Duration::ZERO));
    let later = now + Duration::from_secs(1);
    exchange.poll_request(later).unwrap();
    answer(&mut exchange, later, &[], "").unwrap();
    exchange.push(text("b"));
    exchange.poll_request(later).unwrap();
    assert!(!exchange.handle_failure(later, true, Duration::ZERO));
    assert_eq!(exchange.poll_timeout(), Some(later + Duration::from_secs(1)));
}

#[test]
fn a_close_of_the_client_is_answered_in_one_request() {
    let now = Instant::now();
    let close = Event::Close(Some(Close::new(1000, "bye")));
    for (body, events, end) in [
        ("CLOSE 2\r\n\x03\u{3}\r\n", 0, End::Close(Some(Close::new(0x303, "")))),
        ("CLOSE\r\n", 0, End::Close(None)),
        ("DISCONNECT\r\n", 0, End::Drop),
        ("", 0, End::Done),
        ("TEXT 1\r\na\r\n", 1, End::Done),
    ] {
        let mut exchange = open(now, &[("keep-alive-interval", "20")]);
        exchange.push(text("x"));
        exchange.push(close.clone());
        exchange.push(text("counts for nothing"));
        assert_eq!(
            exchange.poll_request(now).unwrap(),
            "TEXT 1\r\nx\r\nCLOSE 5\r\n\x03\u{e8}bye\r\n".chars().map(|c| c as u8).collect::<Vec<_>>()
        );
        assert!(exchange.is_ending());
        let told = answer(&mut exchange, now, &[], body).unwrap();
        assert_eq!((told.events.len(), told.end), (events, Some(end)));
        assert!(exchange.is_over());
        assert_eq!(exchange.poll_timeout(), None);
    }
}

#[test]
fn a_last_word_waits_for_what_does_not_fit() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    for one in ["a", "b", "c"] {
        exchange.push(text(one));
    }
    exchange.vanish();
    assert_eq!(events::decode(&exchange.poll_request(now).unwrap(), 9).unwrap().len(), 3);
    assert!(!exchange.is_ending());
    answer(&mut exchange, now, &[], "").unwrap();
    assert_eq!(exchange.poll_request(now).unwrap(), "DISCONNECT\r\n");
    let told = exchange.handle_answer(now, 500, &HeaderMap::new(), b"whatever").unwrap();
    assert_eq!(told.end, Some(End::Done));
    assert!(exchange.is_over());
}

#[test]
fn an_origin_closes_drops_or_talks_nonsense() {
    let now = Instant::now();
    let told = |body: &str| {
        let mut exchange = open(now, &[]);
        exchange.refresh();
        exchange.poll_request(now).unwrap();
        let told = answer(&mut exchange, now, &[], body);
        assert_eq!(exchange.is_over(), !matches!(&told, Ok(told) if told.end.is_none()), "{body:?}");
        told
    };
    let closed = told("TEXT 1\r\na\r\nCLOSE 2\r\n\0\0\r\nTEXT 1\r\nb\r\n").unwrap();
    assert_eq!(closed.events, [text("a")], "nothing behind it");
    assert_eq!(closed.end, Some(End::Close(Some(Close::new(0, "")))));
    assert_eq!(told("CLOSE\r\n").unwrap().end, Some(End::Close(None)));
    assert_eq!(told("DISCONNECT\r\n").unwrap().end, Some(End::Drop));
    assert_eq!(told("OPEN\r\n"), Err(AnswerError::Again));
    assert!(matches!(told("NONSENSE\r\n"), Err(AnswerError::Events(_))));
    let mut exchange = open(now, &[]);
    exchange.refresh();
    exchange.poll_request(now).unwrap();
    assert_eq!(exchange.handle_answer(now, 404, &head(&[]), b""), Err(AnswerError::Status(404)));
}

#[test]
fn headers_of_requests_are_ours() {
    let now = Instant::now();
    let mut exchange = open(now, &[("set-meta-user", "ann"), ("set-meta-room", "1")]);
    exchange.refresh();
    exchange.poll_request(now).unwrap();
    answer(&mut exchange, now, &[("set-meta-room", ""), ("set-meta-user", "bob")], "").unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("meta-user", "forged"),
        ("connection-id", "forged"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "x"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("sec-websocket-protocol", "chat"),
        ("content-length", "3"),
        ("cookie", "a=b"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    exchange.write_headers(&mut headers);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let wanted = [
        "accept",
        "content-type",
        "cookie",
        "meta-user",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
    ];
    assert_eq!(names, wanted);
    assert_eq!(
        (&headers["meta-user"], &headers["sec-websocket-extensions"]),
        (&HeaderValue::from_static("bob"), &HeaderValue::from_static("grip"))
    );
    let mut headers = head(&[
        ("set-meta-user", "ann"),
        ("keep-alive-interval", "20"),
        ("sec-websocket-extensions", "grip"),
        ("sec-websocket-protocol", "chat"),
        ("set-cookie", "a=b"),
    ]);
    strip_opening(&mut headers);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["sec-websocket-protocol", "set-cookie"]);
}

#[test]
fn what_an_origin_wants_to_be_told_again_is_bounded() {
    let now = Instant::now();
    let mut exchange = open(now, &[]);
    let mut headers = head(&[]);
    for n in 0..MAX_META + 10 {
        let name: HeaderName = format!("set-meta-n{n}").parse().unwrap();
        headers.insert(name, HeaderValue::from_static("x"));
    }
    exchange.refresh();
    exchange.poll_request(now).unwrap();
    exchange.handle_answer(now, 200, &headers, b"").unwrap();
    assert_eq!(exchange.meta.len(), MAX_META);
}

#[test]
fn a_detached_connection_asks_nothing() {
    let now = Instant::now();
    let mut exchange = open(now, &[("keep-alive-interval", "20")]);
    exchange.push(text("a"));
    exchange.detach();
    exchange.push(text("b"));
    exchange.refresh();
    exchange.vanish();
    assert_eq!((exchange.poll_request(now), exchange.poll_timeout()), (None, None));
    assert_eq!(exchange.waiting_bytes(), 0);
}
