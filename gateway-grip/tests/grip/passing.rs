//! Requests and answers.

use serde_json::json;

use crate::support::{Origin, Server, nobody, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\nx-a: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_goes_on_as_it_came_and_the_answer_comes_back() {
    let mut origin = Origin::start().await;
    let server =
        Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}])).await;
    let request = "POST /x//y%2F?q=%20z HTTP/1.1\r\nHost: Shop.example\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
        Grip-Sig: forged\r\nExpect: x\r\nContent-Length: 4\r\nX-Request-Id: r-1\r\n\r\nbody";
    let asked = tokio::spawn(async move { (server.ask(request).await, server) });
    let mut stream = origin.accept().await;
    let head = stream.head().await.to_ascii_lowercase();
    assert_eq!(stream.until("body").await, "body");
    assert!(head.starts_with("post /x//y%2f?q=%20z http/1.1\r\n"), "{head}");
    for field in [
        "host: shop.example",
        "content-length: 4",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-request-id: r-1",
        "cdn-loop: fanwire;id=",
    ] {
        assert!(head.contains(&format!("\r\n{field}")), "{field}: {head}");
    }
    for field in ["x-hop", "grip-sig", "expect:", "connection: close", "user-agent"] {
        assert!(!head.contains(field), "{field}: {head}");
    }
    stream.send("HTTP/1.1 201 Made\r\nconnection: x-own\r\nx-own: 1\r\ncontent-length: 2\r\nx-a: 1\r\nx-a: 2\r\n\r\nok").await;
    let (answer, _server) = within(asked).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok") && answer.matches("x-a:").count() == 2, "{answer}");
    assert!(!answer.contains("x-own") && answer.contains("x-request-id: r-1"), "{answer}");
}

#[tokio::test]
async fn bodies_stream_both_ways_piece_by_piece() {
    let mut origin = Origin::start().await;
    let server =
        Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}])).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut stream = origin.accept().await;
    let head = stream.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(stream.until("one\r\n").await, "3\r\none\r\n");
    // The answer begins before the request has ended.
    stream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    client.until("5\r\nfirst\r\n").await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    stream.until("3\r\ntwo\r\n0\r\n\r\n").await;
    stream.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "4\r\nlast\r\n0\r\n\r\n");
}

#[tokio::test]
async fn head_is_answered_and_the_connection_goes_on() {
    let mut origin = Origin::start().await;
    let server =
        Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}])).await;
    let mut client = server.connect().await;
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut stream = origin.accept().await;
    assert!(stream.head().await.starts_with("HEAD /x "));
    stream.send("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n").await;
    assert!(client.head().await.contains("content-length: 70000"));
    client.send("GET /y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // On the connection that was kept.
    assert!(stream.head().await.starts_with("GET /y "));
    stream.send(OK).await;
    assert!(client.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn origins_that_fail_are_told_of_in_a_sentence_that_says_nothing_of_them() {
    let closed = nobody().await;
    let mut silent = Origin::start().await;
    let mut rude = Origin::start().await;
    let route = |id: &str, origin: String| json!({"id": id, "dialect": "proxy", "path": format!("/{id}"), "origin": origin, "timeout": "200ms"});
    let mut open = route("debug", format!("http://{closed}"));
    open["debug"] = json!(true);
    let routes = [
        route("closed", format!("http://{closed}")),
        route("silent", silent.url()),
        route("cut", rude.url()),
        route("garbage", rude.url()),
        open,
    ];
    let server = Server::start(json!(routes)).await;
    let answer = server.get("/closed").await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("127.0.0.1"), "{answer}");
    let told = server.get("/debug").await;
    assert!(told.contains("refused") && told.contains(&closed.to_string()), "{told}");
    let (answer, _) = tokio::join!(server.get("/silent"), silent.accept());
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let cut = async {
        drop({
            let mut stream = rude.accept().await;
            stream.head().await;
            stream
        });
    };
    let (answer, ()) = tokio::join!(server.get("/cut"), cut);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let (answer, _) = tokio::join!(server.get("/garbage"), rude.answer("SSH-2.0-x\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    // What may have been read is not sent again.
    assert!(rude.is_alone() && silent.is_alone());
    assert!(server.get("/nowhere").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn an_origin_that_fails_is_left_alone_for_a_while() {
    let closed = nobody().await;
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": format!("http://{closed}"), "retry": 0});
    let server = Server::start(json!([route])).await;
    for _ in 0..5 {
        assert!(server.get("/").await.starts_with("HTTP/1.1 502 "));
    }
    let answer = server.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: "), "{answer}");
}

#[tokio::test]
async fn the_next_origin_is_asked_where_one_cannot_be_connected_to_body_included() {
    let (closed, mut origin) = (format!("http://{}", nobody().await), Origin::start().await);
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": [closed, origin.url()]});
    let server = Server::start(json!([route])).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    let there = async {
        let mut stream = origin.accept().await;
        let (head, body) = (stream.head().await, stream.until("body").await);
        stream.send(OK).await;
        (head, body)
    };
    let (answer, (head, _)) = tokio::join!(server.ask(request), there);
    assert!(head.starts_with("POST / ") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn the_longest_host_then_the_longest_path_has_a_request() {
    let mut origins = Vec::new();
    let mut routes = Vec::new();
    for (host, path, methods) in [
        ("*", "/**", json!([])),
        ("*", "/live/**", json!([])),
        ("*.example", "/**", json!([])),
        ("shop.example", "/live/**", json!([])),
        ("shop.example", "/live/**", json!(["POST"])),
    ] {
        let origin = Origin::start().await;
        let id = format!("r{}", routes.len());
        routes.push(json!({"id": id, "dialect": "proxy", "host": host, "path": path, "methods": methods,
            "origin": origin.url()}));
        origins.push(origin);
    }
    let server = Server::start(json!(routes)).await;
    for (method, host, path, expected) in [
        ("GET", "other", "/", 0),
        ("GET", "other", "/live/x", 1),
        ("GET", "a.example", "/live/x", 2),
        ("GET", "shop.example", "/x", 2),
        ("GET", "shop.example:81", "/live", 3),
        ("POST", "shop.example", "/live", 4),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let (answer, _) = tokio::join!(server.ask(&request), origins[expected].answer(OK));
        assert!(answer.ends_with("ok"), "{method} {host} {path}: {answer}");
    }
}

#[tokio::test]
async fn a_request_that_comes_round_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let itself = listener.local_addr().unwrap();
    drop(listener);
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": format!("http://{itself}")});
    let server = Server::start(json!([route])).await;
    // Behind the address is a way back to the same front.
    let back = tokio::net::TcpListener::bind(itself).await.unwrap();
    let front = server.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = back.accept().await {
            let mut far = tokio::net::TcpStream::connect(front).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let answer = server.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
}

#[tokio::test]
async fn a_changed_route_is_another_one_and_who_came_by_the_old_one_stays() {
    let (mut old, mut new) = (Origin::start().await, Origin::start().await);
    let route =
        |origin: &Origin| json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}]);
    let server = Server::start(route(&old)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut stream = old.accept().await;
    stream.head().await;
    stream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.until("one\r\n").await;
    server.routes.set(crate::support::settings(route(&new)));
    stream.send("3\r\ntwo\r\n0\r\n\r\n").await;
    client.until("two\r\n0\r\n\r\n").await;
    let (answer, _) = tokio::join!(server.get("/"), new.answer(OK));
    assert!(answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn more_requests_than_turns_wait_and_none_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut origin = Origin::on(listener);
    let route =
        json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url(), "max_in_flight": 4});
    let server = std::sync::Arc::new(Server::start(json!([route])).await);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move { server.get("/").await })
        })
        .collect();
    let serving = tokio::spawn(async move {
        let mut served = 0;
        while served < 40 {
            let mut stream = origin.accept().await;
            // The connection may be used again.
            loop {
                let mut byte = [0; 1];
                match tokio::time::timeout(std::time::Duration::from_millis(200), stream.0.peek(&mut byte))
                    .await
                {
                    Ok(Ok(1)) => {
                        stream.head().await;
                        stream.send(OK).await;
                        served += 1;
                    }
                    _ => break,
                }
            }
        }
    });
    for client in clients {
        let answer = within(client).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    within(serving).await.unwrap();
}
