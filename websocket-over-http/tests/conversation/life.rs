//! A connection from its handshake to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::SinkExt;
use grip::events::{Close, Event};
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use websocket_over_http::Failed;

use crate::support::{
    Scripted, Server, answer, events_with, eventually, nothing, opened, text, unreachable, within,
};

#[tokio::test]
async fn the_origin_is_asked_first_and_its_headers_reach_the_client() {
    let origin = Scripted::new(|asked| async move {
        if !asked.is_opening() {
            return nothing();
        }
        let headers = [
            ("sec-websocket-extensions", "grip"),
            ("sec-websocket-protocol", "chat"),
            ("set-cookie", "a=b"),
            ("set-meta-user", "ann"),
            ("x-own", "1"),
        ];
        events_with(&headers, &[Event::Open, text("m:welcome")])
    });
    let server = Server::start(&origin).await;
    let offered = [
        ("sec-websocket-protocol", "v2, chat"),
        ("cookie", "c=d"),
        ("meta-user", "forged"),
        ("connection-id", "forged"),
    ];
    let mut client = server.open_with(&offered).await.unwrap();
    let headers = client.response.headers();
    assert_eq!(
        (&headers["sec-websocket-protocol"], &headers["set-cookie"], &headers["x-own"]),
        (&"chat".parse().unwrap(), &"a=b".parse().unwrap(), &"1".parse().unwrap())
    );
    for name in ["sec-websocket-extensions", "set-meta-user", "content-type"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(client.text().await, "welcome");
    let asked = origin.next().await;
    let named = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(asked.body, "OPEN\r\n");
    assert_eq!(named("content-type").as_deref(), Some("application/websocket-events"));
    assert_eq!(named("accept").as_deref(), Some("application/websocket-events"));
    assert_eq!(named("sec-websocket-extensions").as_deref(), Some("grip"));
    assert_eq!(named("sec-websocket-protocol").as_deref(), Some("v2, chat"));
    assert_eq!(named("cookie").as_deref(), Some("c=d"));
    for name in ["meta-user", "sec-websocket-key", "sec-websocket-version", "upgrade"] {
        assert_eq!(named(name), None, "{name}");
    }
    let id = named("connection-id").unwrap();
    assert_ne!(id, "forged");
    client.send("x").await;
    let asked = origin.next().await;
    assert_eq!(asked.texts(), ["x"]);
    assert_eq!(
        (&asked.headers["meta-user"], &asked.headers["connection-id"]),
        (&"ann".parse().unwrap(), &id.parse().unwrap())
    );
    assert_eq!(server.hub.stats().open, 1);
}

#[tokio::test]
async fn what_the_origin_says_instead_reaches_the_client() {
    let turn = Arc::new(AtomicU32::new(0));
    let origin = Scripted::new(move |_| {
        let turn = turn.fetch_add(1, Relaxed);
        async move {
            match turn {
                0 => answer(403, &[("content-type", "text/html"), ("x-why", "no")], "<p>no</p>"),
                1 => answer(200, &[("content-type", "text/html")], "<p>a page</p>"),
                2 => events_with(&[], &[text("no OPEN")]),
                3 => Err(Failed::new(StatusCode::GATEWAY_TIMEOUT, false, "late")),
                4 => answer(500, &[], vec![b'x'; 200_000]),
                _ => events_with(&[], &[Event::Open, Event::Disconnect]),
            }
        }
    });
    let server = Server::start(&origin).await;
    let refused = server.open_with(&[]).await.unwrap_err();
    assert_eq!(
        (refused.status(), &refused.headers()["x-why"]),
        (StatusCode::FORBIDDEN, &"no".parse().unwrap())
    );
    assert_eq!(refused.headers()["content-type"], "text/html");
    assert_eq!(refused.body().as_deref(), Some(&b"<p>no</p>"[..]));
    for status in [502, 502, 504] {
        let refused = server.open_with(&[]).await.unwrap_err();
        assert_eq!(refused.status(), status);
        assert!(!String::from_utf8_lossy(refused.body().as_deref().unwrap_or_default()).contains("late"));
    }
    let refused = server.open_with(&[]).await.unwrap_err();
    assert_eq!(refused.status(), 500);
    assert_eq!(refused.headers()["content-length"], "100000");
    assert_eq!(server.open_with(&[]).await.unwrap_err().status(), 502);
    assert_eq!(server.hub.stats().open, 0);
    for _ in 0..6 {
        assert!(origin.next().await.is_opening());
    }
    assert_eq!(
        origin.waiting(),
        0,
        "nobody is told of the end of what never began, and nothing was repeated"
    );
}

#[tokio::test]
async fn messages_wait_for_each_other_and_travel_together() {
    let gate = Arc::new(Semaphore::new(1));
    let origin = {
        let gate = Arc::clone(&gate);
        Scripted::new(move |asked| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                if asked.is_opening() { opened(&[]) } else { nothing() }
            }
        })
    };
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    for n in 0..250 {
        client.send(n.to_string()).await;
    }
    gate.add_permits(1_000);
    let mut seen = Vec::new();
    while seen.len() < 250 {
        let asked = origin.next().await;
        let texts = asked.texts();
        assert!(!texts.is_empty() && texts.len() <= 100);
        seen.extend(texts);
    }
    assert_eq!(seen, (0..250).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(origin.most(), 1, "one at a time");
    assert_eq!(server.hub.stats().events, 250);
}

#[tokio::test]
async fn more_than_may_wait_is_not_read_and_not_lost() {
    let gate = Arc::new(Semaphore::new(1));
    let origin = {
        let gate = Arc::clone(&gate);
        Scripted::new(move |asked| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                if asked.is_opening() { opened(&[]) } else { nothing() }
            }
        })
    };
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    // Far more than waits here and in the buffers of two sockets.
    const COUNT: usize = 400;
    let sending = tokio::spawn(async move {
        for n in 0..COUNT {
            within(client.socket.send(Message::text(format!("{n:<65000}")))).await.unwrap();
        }
        client
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "25 MiB are taken by nobody");
    let waiting = || origin.waiting.load(Relaxed);
    assert!((1 << 20..2 << 20).contains(&waiting()), "{}", waiting());
    gate.add_permits(COUNT);
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        seen.extend(origin.next().await.texts());
    }
    let numbers: Vec<usize> = seen.iter().map(|text| text.trim().parse().unwrap()).collect();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    drop(within(sending).await.unwrap());
    eventually(|| waiting() == 0).await;
}

#[tokio::test]
async fn what_nobody_can_have_read_is_sent_again_and_nothing_else() {
    let turn = Arc::new(AtomicU32::new(0));
    let origin = Scripted::new(move |asked| {
        let turn = turn.fetch_add(1, Relaxed);
        async move {
            match turn {
                _ if asked.is_opening() => opened(&[]),
                1 => unreachable(true),
                2 => events_with(&[], &[text("m:once")]),
                _ => unreachable(false),
            }
        }
    });
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    client.send("a").await;
    assert_eq!(client.text().await, "once");
    client.send("b").await;
    assert_eq!(client.closed().await, 1011);
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(origin.next().await.body);
    }
    assert_eq!(asked, ["OPEN\r\n", "TEXT 1\r\na\r\n", "TEXT 1\r\na\r\n", "TEXT 1\r\nb\r\n"]);
    let stats = server.hub.stats();
    assert_eq!((stats.retried, stats.failed), (1, 1));
    assert_eq!(origin.waiting(), 0);
}

#[tokio::test]
async fn nonsense_ends_a_session_and_the_origin_is_told() {
    for bad in [
        answer(200, &[("content-type", "text/html")], "<p>"),
        answer(500, &[("content-type", "application/websocket-events")], ""),
        answer(200, &[("content-type", "application/websocket-events")], "NONSENSE\r\n"),
        events_with(&[], &[text("c:{\"type\":\"dance\"}")]),
        events_with(&[("content-bytes-accepted", "9")], &[]),
    ] {
        let origin = Scripted::new(move |asked| {
            let bad = bad.clone();
            async move {
                match &asked.events()[..] {
                    [Event::Open] => opened(&[]),
                    [Event::Disconnect] => nothing(),
                    _ => bad,
                }
            }
        });
        let server = Server::start(&origin).await;
        let mut client = server.open().await;
        client.send("a").await;
        assert_eq!(client.closed().await, 1011);
        origin.next().await;
        origin.next().await;
        assert_eq!(origin.next().await.events(), [Event::Disconnect]);
    }
}

#[tokio::test]
async fn a_close_of_the_client_is_told_with_code_and_reason() {
    let origin =
        Scripted::new(|asked| async move { if asked.is_opening() { opened(&[]) } else { nothing() } });
    let server = Server::start(&origin).await;
    for (frame, told) in [
        (Some((4001, "bye")), Some(Close::new(4001, "bye"))),
        (Some((1000, "")), Some(Close::new(1000, ""))),
        (None, None),
    ] {
        let mut client = server.open().await;
        origin.next().await;
        client.send("last").await;
        let frame = frame.map(|(code, reason)| CloseFrame { code: code.into(), reason: reason.into() });
        within(client.socket.close(frame)).await.unwrap();
        let mut events = Vec::new();
        while !matches!(events.last(), Some(Event::Close(_))) {
            events.extend(origin.next().await.events());
        }
        assert_eq!(events, [text("last"), Event::Close(told)]);
    }
    eventually(|| server.hub.stats().open == 0).await;
}

#[tokio::test]
async fn a_client_that_closes_gets_the_code_of_its_origin_or_its_own_back() {
    for (said, code, reason) in [
        (vec![Event::Close(Some(Close::new(4002, "later")))], 4002, "later"),
        (vec![text("m:late"), Event::Close(Some(Close::new(1000, "")))], 1000, ""),
        // What libraries write who name no code, what no frame may have, nothing at all.
        (vec![Event::Close(Some(Close::new(0, "")))], 4001, ""),
        (vec![Event::Close(Some(Close::new(1006, "x")))], 4001, ""),
        (vec![Event::Close(None)], 4001, ""),
        (vec![], 4001, ""),
        (vec![Event::Disconnect], 1006, ""),
    ] {
        let answered = said.clone();
        let origin = Scripted::new(move |asked| {
            let said = answered.clone();
            async move { if asked.is_opening() { opened(&[]) } else { events_with(&[], &said) } }
        });
        let server = Server::start(&origin).await;
        let mut client = server.open().await;
        let close = CloseFrame { code: 4001.into(), reason: "bye".into() };
        within(client.socket.close(Some(close))).await.unwrap();
        let got = match within(futures_util::StreamExt::next(&mut client.socket)).await {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => (1006, String::new()),
        };
        assert_eq!(got, (code, reason.to_owned()), "{said:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_does_not_wait_for_ever_and_its_origin_is_told_all_the_same() {
    let gate = Arc::new(Semaphore::new(0));
    let failing = Arc::new(AtomicU32::new(0));
    for is_unreachable in [false, true] {
        let (opens, failed) = (Arc::clone(&gate), Arc::clone(&failing));
        let origin = Scripted::new(move |asked| {
            let (gate, failed) = (Arc::clone(&opens), Arc::clone(&failed));
            async move {
                if asked.is_opening() {
                    return opened(&[]);
                }
                if is_unreachable && failed.fetch_add(1, Relaxed) == 0 {
                    return unreachable(true);
                }
                gate.acquire().await.unwrap().forget();
                events_with(&[], &[Event::Close(Some(Close::new(4002, "")))])
            }
        });
        let server = Server::with(&origin, |rules| rules.close_timeout = Duration::from_millis(200)).await;
        let mut client = server.open().await;
        let close = CloseFrame { code: 4001.into(), reason: "".into() };
        within(client.socket.close(Some(close))).await.unwrap();
        assert_eq!(client.closed().await, 4001);
        gate.add_permits(1);
        let told = Event::Close(Some(Close::new(4001, "")));
        while origin.next().await.events() != [told.clone()] {}
        eventually(|| server.hub.stats().answered == 2).await;
        assert_eq!(server.hub.stats().retried, u64::from(is_unreachable));
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_told_as_such() {
    let origin =
        Scripted::new(|asked| async move { if asked.is_opening() { opened(&[]) } else { nothing() } });
    let server = Server::start(&origin).await;
    let client = server.open().await;
    origin.next().await;
    drop(client);
    assert_eq!(origin.next().await.events(), [Event::Disconnect]);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_101_is_told_too() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = {
        let gate = Arc::clone(&gate);
        Scripted::new(move |asked| {
            let gate = Arc::clone(&gate);
            async move {
                if !asked.is_opening() {
                    return nothing();
                }
                gate.acquire().await.unwrap().forget();
                opened(&[])
            }
        })
    };
    let server = Server::start(&origin).await;
    let leaving = tokio::time::timeout(Duration::from_millis(200), server.open_with(&[])).await;
    assert!(leaving.is_err());
    assert!(origin.next().await.is_opening());
    gate.add_permits(1);
    assert_eq!(origin.next().await.events(), [Event::Disconnect]);
}

#[tokio::test]
async fn an_origin_closes_with_a_code_or_without_one_or_without_a_word() {
    for (event, code) in [
        (Event::Close(Some(Close::new(4001, "x"))), 4001),
        (Event::Close(Some(Close::new(0, ""))), 1005),
        (Event::Close(Some(Close::new(1006, ""))), 1005),
        (Event::Close(None), 1005),
        (Event::Disconnect, 1006),
    ] {
        let origin = Scripted::new(move |asked| {
            let event = event.clone();
            async move {
                if asked.is_opening() { opened(&[]) } else { events_with(&[], &[text("m:first"), event]) }
            }
        });
        let server = Server::start(&origin).await;
        let mut client = server.open().await;
        client.send("x").await;
        assert_eq!(client.text().await, "first");
        assert_eq!(client.closed().await, code);
        eventually(|| server.hub.stats().open == 0).await;
        origin.next().await;
        origin.next().await;
        assert_eq!(origin.waiting(), 0, "it knows");
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_1009() {
    let origin =
        Scripted::new(|asked| async move { if asked.is_opening() { opened(&[]) } else { nothing() } });
    let server = Server::with(&origin, |rules| rules.max_message_bytes = 1_000).await;
    let mut client = server.open().await;
    origin.next().await;
    client.send("x".repeat(1_000)).await;
    assert_eq!(origin.next().await.texts()[0].len(), 1_000);
    client.send("x".repeat(1_001)).await;
    assert_eq!(client.closed().await, 1009);
    let Some(Event::Close(Some(close))) = origin.next().await.events().pop() else { panic!("it is told") };
    assert_eq!(close.code, 1009);
}

#[tokio::test]
async fn a_server_that_stops_closes_with_1012_and_tells_origins() {
    let origin =
        Scripted::new(|asked| async move { if asked.is_opening() { opened(&[]) } else { nothing() } });
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    let hub = server.hub.clone();
    let stopping = tokio::spawn(async move { hub.shut_down(Duration::from_secs(10)).await });
    assert_eq!(client.closed().await, 1012);
    within(stopping).await.unwrap();
    let Some(Event::Close(Some(close))) = origin.next().await.events().pop() else { panic!("it is told") };
    assert_eq!(close.code, 1012);
    assert_eq!(server.open_with(&[]).await.unwrap_err().status(), 503);
    assert_eq!(origin.waiting(), 0);
}

#[tokio::test]
async fn pings_are_answered_here_and_an_origin_hears_of_them_where_it_wants_to() {
    for forwards in [false, true] {
        let origin = Scripted::new(|asked| async move {
            if asked.is_opening() {
                return events_with(&[], &[Event::Open]);
            }
            let is_ping = asked.events().iter().any(|event| matches!(event, Event::Ping(_)));
            events_with(&[], &[if is_ping { Event::Ping("from it".into()) } else { text("heard") }])
        });
        let server = Server::with(&origin, |rules| rules.forward_pings = forwards).await;
        let mut client = server.open().await;
        assert!(origin.next().await.is_opening());
        within(client.socket.send(Message::Ping("to it".into()))).await.unwrap();
        let answered = within(futures_util::StreamExt::next(&mut client.socket)).await.unwrap().unwrap();
        assert_eq!(answered, Message::Pong("to it".into()));
        if forwards {
            assert_eq!(origin.next().await.events(), [Event::Ping("to it".into())]);
            // The client's library answers that one.
            assert_eq!(client.next().await, Ok(Message::Ping("from it".into())));
            within(client.socket.flush()).await.unwrap();
            assert_eq!(origin.next().await.events(), [Event::Pong("from it".into())]);
            assert_eq!(client.text().await, "heard");
        }
        client.send("last").await;
        assert_eq!(origin.next().await.texts(), ["last"]);
        assert_eq!(client.text().await, "heard");
        assert_eq!(origin.waiting(), 0, "nothing else was asked");
    }
}
