//! Presence and the connections resource, on event streams.

mod support;

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Action, Answer as Later, Authenticated, Authenticator, Config, Credentials, Filter, Principal, Rights,
    Rule,
};
use serde_json::json;
use support::{Answer, Client, Server};

/// The token is the user's name; `root` may do everything, others all but manage.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::later(async move {
            let rule = |actions: &[Action], text: &str| {
                Rule::new(actions.iter().copied(), Filter::parse(text).unwrap())
            };
            let all = [Action::Publish, Action::Subscribe, Action::History, Action::Presence];
            Ok(match credentials.token {
                None => Principal::anonymous(Rights::none().allow(rule(&all, "#"))),
                Some("root") => Principal::user_with("root", Rights::all()),
                Some("chief") => {
                    let rights = Rights::none().allow(rule(&[Action::Manage, Action::Subscribe], "chat/**"));
                    Principal::user_with("chief", rights)
                }
                Some("deputy") => {
                    let both = [Action::Manage, Action::Presence];
                    let rights = Rights::none().allow(rule(&both, "#")).deny(rule(&both, "secret/#"));
                    Principal::user_with("deputy", rights)
                }
                Some(user) => Principal::user_with(user, Rights::none().allow(rule(&all, "#"))),
            })
        })
    }
}

async fn start() -> Server {
    Server::with(Config::default(), front_http::Config::default(), Arc::new(Tokens)).await
}

async fn open(server: &Server, target: &str, token: &str) -> (Client, String) {
    let mut client = server.connect().await;
    let auth = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let head = format!("GET {target} HTTP/1.0\r\nHost: x\r\nUser-Agent: test/1\r\n{auth}\r\n");
    client.send(head.as_bytes()).await;
    client.head = client.until("\r\n\r\n").await;
    let head = client.head.to_lowercase();
    let id = head.lines().find_map(|line| line.strip_prefix("x-connection-id: ")).unwrap().to_owned();
    (client, id)
}

async fn root(server: &Server, line: &str, body: &[u8]) -> Answer {
    server.ask(line, "Authorization: Bearer root\r\n", body).await
}

#[tokio::test]
async fn presence_counts_connections_and_users_and_names_members() {
    let server = start().await;
    let (_a, a) = open(&server, "/sse?channel=chat/1&channel=chat/*", "ann").await;
    let (_b, b) = open(&server, "/sse/chat/1", "ann").await;
    let (_c, c) = open(&server, "/sse/chat/**", "").await;
    let (_d, _) = open(&server, "/sse/chat/2", "bob").await;
    let answer = server.get("/v1/presence/chat/1").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert_eq!((&body["connections"], &body["users"], &body["next"]), (&json!(3), &json!(1), &json!(null)));
    let members = body["members"].as_array().unwrap();
    let mut ids: Vec<_> = members.iter().map(|member| member["connection"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut expected = [a.as_str(), &b, &c];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    for member in members {
        assert_eq!(member["protocol"], "sse");
        assert_eq!(member["since"].as_str().unwrap().len(), "2026-11-24T22:00:00.000Z".len());
        let user = if member["connection"] == json!(c) { json!(null) } else { json!("ann") };
        assert_eq!(member["user"], user);
    }
    let stats = server.get("/v1/presence/chat%2F1?stats=true").await.json();
    assert_eq!(stats, json!({"connections": 3, "users": 1}));
    let nobody = server.get("/v1/presence/nobody").await.json();
    assert_eq!(nobody, json!({"connections": 0, "users": 0, "members": [], "next": null}));

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = server.get(&format!("/v1/presence/chat/1?limit=1{cursor}")).await.json();
        assert_eq!(page["connections"], 3, "all are counted on every page");
        seen.push(page["members"][0]["connection"].as_str().unwrap().to_owned());
        cursor = page["next"].as_str().map_or(String::new(), |next| format!("&cursor={next}"));
    }
    assert!(cursor.is_empty());
    seen.sort_unstable();
    assert_eq!(seen, expected);

    for (target, status) in [
        ("/v1/presence/chat/*", 400),
        ("/v1/presence/chat?stats=perhaps", 400),
        ("/v1/presence/chat?x=1", 400),
        ("/v1/presence/chat?cursor=%21", 400),
    ] {
        assert_eq!(server.get(target).await.status, status, "{target}");
    }
    let refused = server.ask("GET /v1/presence/chat/1", "X-API-Key: chief\r\n", b"").await;
    assert_eq!(refused.code(), "forbidden");
}

#[tokio::test]
async fn a_connection_is_shown_as_it_is() {
    let server = start().await;
    let (_client, id) = open(&server, "/sse?channel=chat/1&channel=other/*", "ann").await;
    let answer = root(&server, &format!("GET /v1/connections/{id}"), b"").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut body = answer.json();
    for time in ["connected_at", "last_active_at"] {
        assert!(body[time].take().as_str().unwrap().ends_with('Z'));
    }
    let expected = json!({
        "id": id, "user": "ann", "protocol": "sse", "transport": "http/1.1",
        "connected_at": null, "last_active_at": null,
        "remote": {"ip": "127.0.0.1", "user_agent": "test/1"},
        "subscriptions": ["chat/1", "other/*"], "queue": {"messages": 0, "bytes": 0}, "dropped": 0,
    });
    assert_eq!(body, expected);
    let head = root(&server, &format!("HEAD /v1/connections/{id}"), b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn connections_are_listed_by_user_and_channel_in_pages() {
    let server = start().await;
    let mut clients = Vec::new();
    for (user, target) in
        [("ann", "/sse/chat/1"), ("ann", "/sse/other"), ("bob", "/sse/chat/*"), ("", "/sse/%23")]
    {
        clients.push(open(&server, target, user).await);
    }
    let list = async |query: &str| {
        let answer = root(&server, &format!("GET /v1/connections{query}"), b"").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let body = answer.json();
        let connections = body["connections"].as_array().unwrap();
        let ids: Vec<_> = connections.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        (ids, body["next"].as_str().map(str::to_owned))
    };
    let ids = |which: &[usize]| {
        let mut ids: Vec<String> = which.iter().map(|at| clients[*at].1.clone()).collect();
        ids.sort_by_key(|id| u128::from_str_radix(id, 16).unwrap());
        ids
    };
    assert_eq!(list("").await, (ids(&[0, 1, 2, 3]), None));
    assert_eq!(list("?user=ann").await, (ids(&[0, 1]), None));
    assert_eq!(list("?channel=chat/1").await, (ids(&[0, 2, 3]), None));
    assert_eq!(list("?channel=chat/1&user=bob").await, (ids(&[2]), None));
    assert_eq!(list("?user=nobody").await, (vec![], None));
    for filter in ["", "&channel=chat/1"] {
        let (mut seen, mut next) = (Vec::new(), None);
        for _ in 0..4 {
            let cursor = next.map(|next| format!("&cursor={next}")).unwrap_or_default();
            let (page, more) = list(&format!("?limit=1{filter}{cursor}")).await;
            seen.extend(page);
            next = more;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(seen, if filter.is_empty() { ids(&[0, 1, 2, 3]) } else { ids(&[0, 2, 3]) });
    }
    // A cursor whose connection has left goes on all the same.
    let (first, next) = list("?limit=2").await;
    clients.retain(|(_, id)| *id != first[1]);
    for _ in 0..1_000 {
        if list("").await.0.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(list(&format!("?cursor={}", next.unwrap())).await.0.len(), 2);
    for query in ["?limit=0", "?limit=1001", "?cursor=x", "?channel=a/*", "?usr=a"] {
        assert_eq!(root(&server, &format!("GET /v1/connections{query}"), b"").await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_message_to_one_connection_reaches_it_alone() {
    let server = start().await;
    let (mut ann, id) = open(&server, "/sse?channel=chat/1&format=json", "ann").await;
    let (mut bob, _) = open(&server, "/sse?channel=%23&format=json", "bob").await;
    let line = format!("POST /v1/connections/{id}/messages");
    let answer = root(&server, &line, br#"{"n": 1e400}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.json()["queued_bytes"].is_u64());
    let event = ann.event().await;
    assert!(event.contains(r#"{"channel":"direct","id":null,"#), "{event}");
    assert!(!event.contains("\nid:") && !event.starts_with("id:"), "{event}");
    let headers = "Authorization: Bearer root\r\nContent-Type: application/json\r\n";
    let line = format!("{line}?channel=chat/9&event=tick&ttl=60");
    assert_eq!(server.ask(&line, headers, br#"{"n": 2}"#).await.status, 200);
    let event = ann.event().await;
    assert!(event.starts_with("event: tick\ndata: {\"channel\":\"chat/9\""), "{event}");
    assert!(event.contains(r#""data":{"n": 2}"#), "{event}");
    server.post("/v1/publish/last", "", "x").await;
    assert!(bob.event().await.contains("\"channel\":\"last\""), "nobody else got it");
    let history = server.get("/v1/history/chat/9").await.json();
    assert_eq!(history["messages"], json!([]), "and it is not recorded");
    assert_eq!(server.api.stats().direct_messages, 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_answered_buffer_full() {
    let server = start().await;
    let (mut client, id) = open(&server, "/sse?channel=chat/1&format=raw", "ann").await;
    let line = format!("POST /v1/connections/{id}/messages");
    let payload = "x".repeat(200_000);
    let mut accepted = 0;
    let (refused, queued) = loop {
        let answer = root(&server, &line, payload.as_bytes()).await;
        if answer.status != 200 {
            let shown = root(&server, &format!("GET /v1/connections/{id}"), b"").await.json();
            break (answer, shown["queue"]["bytes"].as_u64().unwrap());
        }
        accepted += 1;
        assert!(accepted < 1_000, "it never fills");
    };
    assert_eq!((refused.status, refused.code().as_str()), (429, "buffer_full"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(queued > 500_000, "{queued}");
    for _ in 0..accepted {
        assert_eq!(
            client.event().await.len(),
            payload.len() + "data: \n\n".len(),
            "all that was accepted comes"
        );
    }
    assert_eq!(root(&server, &line, b"again").await.status, 200);
    assert_eq!(client.event().await, "data: again\n\n");
}

#[tokio::test]
async fn closing_a_connection_tells_it_why() {
    let server = start().await;
    let (mut client, id) = open(&server, "/sse/chat/1", "ann").await;
    let line = format!("DELETE /v1/connections/{id}");
    assert_eq!(root(&server, &format!("{line}?reason=a%0Ab"), b"").await.status, 400);
    let answer = root(&server, &format!("{line}?reason=go%20home"), b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(client.until("retry: ").await.contains(": go home\n"));
    let (mut other, other_id) = open(&server, "/sse/chat/1", "ann").await;
    let long = "%E2%82%AC".repeat(50);
    let answer = root(&server, &format!("DELETE /v1/connections/{other_id}?reason={long}"), b"").await;
    assert_eq!(answer.status, 204);
    assert!(other.until("retry: ").await.contains(&format!(": {}\n", "€".repeat(40))), "cut to 120 bytes");
    for _ in 0..1_000 {
        if root(&server, &line, b"").await.status == 410 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for gone in [id.as_str(), "1234567", "no-such-id", "%2e%2e", "FF"] {
        for line in [
            format!("GET /v1/connections/{gone}"),
            format!("DELETE /v1/connections/{gone}"),
            format!("POST /v1/connections/{gone}/messages"),
            format!("PUT /v1/connections/{gone}/subscriptions/a"),
            format!("DELETE /v1/connections/{gone}/subscriptions/a"),
        ] {
            let answer = root(&server, &line, b"").await;
            assert_eq!((answer.status, answer.code().as_str()), (410, "gone"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_client_is_subscribed_by_force_and_back() {
    let server = start().await;
    let (mut client, id) = open(&server, "/sse?channel=chat/1&format=raw", "ann").await;
    let base = format!("/v1/connections/{id}/subscriptions");
    for _ in 0..2 {
        assert_eq!(root(&server, &format!("PUT {base}/forced/%23"), b"").await.status, 204);
    }
    let shown = root(&server, &format!("GET /v1/connections/{id}"), b"").await.json();
    assert_eq!(shown["subscriptions"], json!(["chat/1", "forced/#"]));
    assert_eq!(server.post("/v1/publish/forced/x", "", "1").await.json()["receivers"], 1);
    assert!(client.event().await.ends_with("data: 1\n\n"));
    assert_eq!(root(&server, &format!("DELETE {base}/forced%2F%23"), b"").await.status, 204);
    assert_eq!(root(&server, &format!("DELETE {base}/forced%2F%23"), b"").await.code(), "not_subscribed");
    assert_eq!(root(&server, &format!("DELETE {base}/chat/1"), b"").await.status, 204, "its own too");
    assert_eq!(server.post("/v1/publish/forced/x", "", "2").await.json()["receivers"], 0);
    assert_eq!(root(&server, &format!("PUT {base}/%23/x"), b"").await.code(), "invalid_filter");
    let bound = front_sse::Config::default().max_filters;
    for number in 0..bound {
        assert_eq!(root(&server, &format!("PUT {base}/n/{number}"), b"").await.status, 204);
    }
    let answer = root(&server, &format!("PUT {base}/n/more"), b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "too_many_subscriptions"));
}

#[tokio::test]
async fn managing_needs_the_right_to() {
    let server = start().await;
    let (_client, id) = open(&server, "/sse/chat/1", "chief").await;
    let lines = [
        ("GET", "", "?channel=chat/1", true),
        ("GET", "", "?channel=other", false),
        ("GET", "", "", false),
        ("GET", "ID", "", false),
        ("DELETE", "ID", "", false),
        ("POST", "ID/messages", "", false),
        ("POST", "ID/messages", "?channel=chat/7", true),
        ("PUT", "ID/subscriptions/chat/7", "", true),
        ("PUT", "ID/subscriptions/other", "", false),
        ("PUT", "ID/subscriptions/%23", "", false),
        ("DELETE", "ID/subscriptions/chat/7", "", true),
    ];
    for (method, path, query, is_allowed) in lines {
        let path = path.replace("ID", &id);
        let slash = if path.is_empty() { "" } else { "/" };
        let line = format!("{method} /v1/connections{slash}{path}{query}");
        for (user, is_allowed) in [("chief", is_allowed), ("ann", false)] {
            let answer = server.ask(&line, &format!("X-API-Key: {user}\r\n"), b"x").await;
            assert_eq!(answer.status < 300, is_allowed, "{user}: {line}: {} {}", answer.status, answer.body);
            if !is_allowed {
                assert_eq!(answer.code(), "forbidden", "{user}: {line}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_denied_is_denied_to_who_may_manage_the_rest() {
    let server = start().await;
    let (_client, id) = open(&server, "/sse?channel=chat/1&channel=secret/1", "ann").await;
    let ask = async |line: &str| server.ask(line, "X-API-Key: deputy\r\n", b"x").await;
    for (line, status) in [
        ("GET /v1/connections?channel=secret/1", 403),
        ("GET /v1/connections?channel=secret", 403),
        // Nobody knows what these connections will be subscribed to, and some are to what is denied.
        ("GET /v1/connections", 403),
        ("GET /v1/connections?user=ann", 403),
        ("GET /v1/connections/ID", 403),
        ("DELETE /v1/connections/ID", 403),
        ("POST /v1/connections/ID/messages?channel=secret/1", 403),
        ("PUT /v1/connections/ID/subscriptions/secret/1", 403),
        // These would bring, and take away, the denied channels among others.
        ("PUT /v1/connections/ID/subscriptions/%23", 403),
        ("PUT /v1/connections/ID/subscriptions/*/1", 403),
        ("DELETE /v1/connections/ID/subscriptions/secret/1", 403),
        ("GET /v1/connections?channel=chat/1", 200),
        ("POST /v1/connections/ID/messages?channel=chat/1", 200),
        ("PUT /v1/connections/ID/subscriptions/chat/%23", 204),
        ("DELETE /v1/connections/ID/subscriptions/chat/%23", 204),
    ] {
        let answer = ask(&line.replace("ID", &id)).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
    }
    let shown = ask("GET /v1/connections?channel=chat/1").await.json();
    assert_eq!(shown["connections"][0]["subscriptions"], json!(["chat/1"]), "nothing of what is denied");
    let shown = root(&server, "GET /v1/connections?channel=chat/1", b"").await.json();
    assert_eq!(shown["connections"][0]["subscriptions"], json!(["chat/1", "secret/1"]));
}

#[tokio::test]
async fn what_means_nothing_for_a_direct_message_is_refused() {
    let server = start().await;
    let (_client, id) = open(&server, "/sse/chat/1", "ann").await;
    let line = format!("POST /v1/connections/{id}/messages");
    for (query, headers) in [
        ("?retain=true", ""),
        ("?exclude=0", ""),
        ("?what=1", ""),
        ("?channel=a/*", ""),
        ("?event=a%0Ab", ""),
        ("", "Idempotency-Key: k\r\n"),
    ] {
        let headers = format!("Authorization: Bearer root\r\n{headers}");
        let answer = server.ask(&format!("{line}{query}"), &headers, b"x").await;
        assert_eq!(answer.status, 400, "{query} {headers}: {}", answer.body);
    }
    let reserved = root(&server, &format!("{line}?channel=$SYS/x"), b"x").await;
    assert_eq!(reserved.code(), "reserved_channel");
    let large = root(&server, &line, &vec![b'x'; (4 << 20) + 1]).await;
    assert_eq!(large.status, 413);
}

/// One other node, in this process; `is_silent` says nothing, and is known to be there.
struct Other {
    api: front_http::Front,
    is_silent: std::sync::atomic::AtomicBool,
}

impl front_http::Nodes for Other {
    fn name(&self) -> &str {
        "here"
    }

    fn ask(&self, question: Vec<u8>, _: fn(&[u8]) -> bool) -> Later<'static, front_http::Answered> {
        if self.is_silent.load(std::sync::atomic::Ordering::SeqCst) {
            return Later::now(front_http::Answered::new(Vec::new(), false));
        }
        let api = self.api.clone();
        Later::later(async move {
            let answer = api.answer_node(question.into()).await.expect("a question of this version");
            front_http::Answered::new(vec![("there".to_owned(), answer.into())], true)
        })
    }

    fn own(&self) -> front_http::NodeReport {
        let mut report = front_http::NodeReport::default();
        (report.life, report.state, report.connections) = (16, front_http::NodeState::Ready, 3);
        report
    }

    fn heard(&self) -> Vec<front_http::HeardNode> {
        let heard = |name: &str, life, ms, is_gone| {
            front_http::HeardNode::new(name.to_owned(), life, Duration::from_millis(ms), is_gone)
        };
        vec![heard("there", 17, 40, false), heard("gone", 18, 60_000, true)]
    }
}

#[tokio::test]
async fn nodes_are_shown_as_they_say_and_those_that_say_nothing_as_they_are_known() {
    let (here, there) = (start().await, start().await);
    let alone = root(&here, "GET /v1/nodes", b"").await;
    assert_eq!((alone.status, alone.code()), (404, "not_found".to_owned()));
    /// What a node says of itself, on which this one is asked.
    struct There(Other);
    impl front_http::Nodes for There {
        fn name(&self) -> &str {
            "there"
        }
        fn ask(
            &self,
            question: Vec<u8>,
            is_enough: fn(&[u8]) -> bool,
        ) -> Later<'static, front_http::Answered> {
            self.0.ask(question, is_enough)
        }
        fn own(&self) -> front_http::NodeReport {
            let mut report = self.0.own();
            let streams = [front_http::StreamState::There, front_http::StreamState::Lost];
            report.streams = Some(front_http::Streams::new(streams[0], streams[1]));
            (report.life, report.state, report.sent) = (17, front_http::NodeState::Degraded, 9);
            report
        }
        fn heard(&self) -> Vec<front_http::HeardNode> {
            self.0.heard()
        }
    }
    there.api.join(Arc::new(There(Other { api: here.api.clone(), is_silent: false.into() })));
    let other = Arc::new(Other { api: there.api.clone(), is_silent: false.into() });
    here.api.join(other.clone());
    for (token, line, status) in [
        ("chief", "GET /v1/nodes", 403),
        ("root", "GET /v1/nodes?scope=node", 400),
        ("root", "DELETE /v1/nodes", 405),
        ("root", "GET /v1/nodes", 200),
    ] {
        let answer = here.ask(line, &format!("Authorization: Bearer {token}\r\n"), b"").await;
        assert_eq!(answer.status, status, "{line} of {token}");
    }
    let list = root(&here, "GET /v1/nodes", b"").await.json();
    assert_eq!(
        list,
        json!({"nodes": [
            {"name": "gone", "id": "12", "here": false, "state": "gone", "heard_ms": 60_000},
            {"name": "here", "id": "10", "here": true, "state": "ready", "heard_ms": 0, "version": "",
             "connections": 3, "sent": 0, "received": 0, "round_trip_ms": 0.0, "streams": null},
            {"name": "there", "id": "11", "here": false, "state": "degraded", "heard_ms": 40, "version": "",
             "connections": 3, "sent": 9, "received": 0, "round_trip_ms": 0.0,
             "streams": {"messages": "there", "retained": "lost"}},
        ]})
    );
    other.is_silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let list = root(&here, "GET /v1/nodes", b"").await.json();
    let states: Vec<_> = list["nodes"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(
        (states, &list["partial"]),
        (vec![json!("gone"), json!("ready"), json!("silent")], &json!(true))
    );
}

#[tokio::test]
async fn clients_of_another_node_are_managed_by_the_same_rights() {
    let (here, there) = (start().await, start().await);
    let other = Arc::new(Other { api: there.api.clone(), is_silent: false.into() });
    here.api.join(other.clone());
    let (_a, _) = open(&here, "/sse/chat/1", "ann").await;
    let (mut b, id) = open(&there, "/sse?channel=chat/1&channel=other", "ann").await;
    let list = "GET /v1/connections?scope=cluster&channel=chat/1";
    let chief = "Authorization: Bearer chief\r\n";
    let seen = here.ask(list, chief, b"").await.json();
    let subscriptions: Vec<_> =
        seen["connections"].as_array().unwrap().iter().map(|one| one["subscriptions"].clone()).collect();
    assert_eq!(subscriptions, [json!(["chat/1"]), json!(["chat/1"])], "what it may not manage is not shown");
    let one = format!("/v1/connections/{id}");
    for (line, status) in [
        ("GET /v1/connections?scope=cluster".to_owned(), 403),
        (format!("GET {one}"), 403),
        (format!("DELETE {one}"), 403),
        (format!("POST {one}/messages?channel=other"), 403),
        (format!("PUT {one}/subscriptions/other"), 403),
        (format!("PUT {one}/subscriptions/chat%2F2"), 204),
        (format!("POST {one}/messages?channel=chat/2"), 200),
        ("GET /v1/connections?scope=world".to_owned(), 400),
    ] {
        assert_eq!(here.ask(&line, chief, b"hi").await.status, status, "{line}");
    }
    b.until("hi").await;

    let present = here.get("/v1/presence/chat/1").await.json();
    assert_eq!((&present["connections"], &present["users"]), (&json!(2), &json!(1)), "one user on both");
    let revoked = root(&here, "POST /v1/revocations", br#"{"user": "ann"}"#).await.json();
    assert_eq!(revoked, json!({"closed": 2}));
    other.is_silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let revoked = root(&here, "POST /v1/revocations", br#"{"user": "nobody"}"#).await.json();
    assert_eq!(revoked, json!({"closed": 0, "partial": true}));
    let silent = root(&here, &format!("GET {one}"), b"").await;
    assert_eq!((silent.status, silent.code()), (503, "node_silent".to_owned()));
}
