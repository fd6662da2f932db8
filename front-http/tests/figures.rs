//! The stream of figures over real sockets: who may watch, how many, what they see, and how it ends.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{
    Action, AllowAll, Anonymous, Authenticated, Authenticator, Channel, Credentials, Principal, Publish,
    Rights, Rule, unix_ms,
};
use front_http::{Config, Metric};
use serde_json::Value;
use support::Server;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A stream of figures, read line by line.
struct Stream(BufReader<TcpStream>);

const PATIENCE: Duration = Duration::from_secs(20);

impl Stream {
    async fn open(server: &Server) -> Stream {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = "GET /v1/figures HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        Stream(BufReader::new(stream))
    }

    /// The next line, frames of the transfer coding among them; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("a line").unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    async fn figures(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("figures");
            if let Some(json) = line.strip_prefix("data: ") {
                return serde_json::from_str(json).unwrap();
            }
        }
    }

    /// All lines up to the last chunk, which a stream that was cut off has not; the connection stays open behind it.
    async fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().await.expect("a stream that is whole").as_str() {
                "0" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

fn publish(server: &Server, channel: &str) {
    server.broker.publish(Publish::new(Channel::parse(channel).unwrap(), "x")).unwrap();
}

fn rights(allow: &[(Action, &str)], deny: &[(Action, &str)]) -> Rights {
    let rule = |(action, filter): &(Action, &str)| Rule::new([*action], filter.parse().unwrap());
    let allowed = allow.iter().map(rule).fold(Rights::none(), Rights::allow);
    deny.iter().map(rule).fold(allowed, Rights::deny)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn one_who_asks_once_gets_one_document() {
    let server = Server::start().await;
    publish(&server, "a");
    let answer = server.get("/v1/figures").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let figures = answer.json();
    assert_eq!(figures["published_messages"], 1);
    assert_eq!(figures["log_messages"], 1);
    assert_eq!(figures["lanes"].as_array().unwrap().len(), server.broker.stats().lanes.len());
    assert_eq!(server.get("/v1/figures?x=1").await.code(), "invalid_parameter");
    let head = server.ask("HEAD /v1/figures", "Accept: text/event-stream\r\n", b"").await;
    assert_eq!((head.status, head.header("content-type"), &*head.body), (200, Some("text/event-stream"), ""));
}

#[tokio::test]
async fn who_watches_sees_what_happens() {
    let server = Server::start().await;
    server.api.add_metrics(Arc::new(|out: &mut Vec<Metric>| {
        out.push(Metric::gauge("own_things", "Things of the service", 7));
    }));
    let mut stream = Stream::open(&server).await;
    let before = stream.figures().await;
    assert_eq!(before["counts"]["own_things"], 7);
    assert_eq!(before["counts"]["http_watchers"], 1);
    for _ in 0..3 {
        publish(&server, "busy");
    }
    publish(&server, "quiet");
    let after = stream.figures().await;
    assert_eq!(
        after["published_messages"].as_u64(),
        before["published_messages"].as_u64().map(|sum| sum + 4)
    );
    assert!(after["at_ms"].as_u64() > before["at_ms"].as_u64());
    let busiest = &after["busiest"];
    assert_eq!((busiest["seen"].as_u64(), busiest["recorded"].as_u64()), (Some(4), Some(4)));
    let names: Vec<_> = busiest["channels"].as_array().unwrap().iter().map(|one| &one["channel"]).collect();
    assert_eq!(names, ["busy", "quiet"]);
}

#[tokio::test]
async fn nothing_is_computed_when_nobody_watches() {
    let server = Server::start().await;
    let (reads, counted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&reads);
    server.api.add_metrics(Arc::new(move |_: &mut Vec<Metric>| _ = count.fetch_add(1, Relaxed)));
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!(reads.load(Relaxed), 0);

    let (mut one, mut other) = (Stream::open(&server).await, Stream::open(&server).await);
    let same = (one.figures().await, other.figures().await);
    assert_eq!(same.0, same.1, "made once for all");
    drop((one, other));
    let before = Arc::clone(&counted);
    // Each time that nothing was read since the last look.
    let mut still = 0;
    timeout(PATIENCE, async {
        while still < 3 {
            sleep(Duration::from_millis(700)).await;
            let now = reads.load(Relaxed);
            still = if before.swap(now, Relaxed) == now { still + 1 } else { 0 };
        }
    })
    .await
    .expect("it stops when the last one has left");
    // And begins again.
    assert!(Stream::open(&server).await.figures().await.is_object());
}

#[tokio::test]
async fn a_slow_reader_is_named_and_how_long_it_has_been_slow() {
    let server = Server::start().await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /sse/big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let idle = TcpStream::connect(server.address).await.unwrap();
    let (_reads, mut writes) = idle.into_split();
    writes.write_all(b"GET /sse/other HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until("both streams", || server.broker.stats().subscriptions == 2).await;
    // More than sockets hold, less than its outbox.
    let big = "x".repeat(256 << 10);
    let waiting = || {
        let all = server.broker.connections(None, 10);
        all.iter().map(|(_, connection)| connection.queued().bytes).max().unwrap_or(0)
    };
    for _ in 0..200 {
        if waiting() > 0 {
            break;
        }
        server.broker.publish(Publish::new(Channel::parse("big").unwrap(), big.clone())).unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    assert!(waiting() > 0, "something waits for the slow one");
    let mut stream = Stream::open(&server).await;
    let named = stream.figures().await["slow"].as_array().unwrap().clone();
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!((&named[0]["protocol"], &named[0]["seconds"]), (&Value::from("sse"), &Value::from(0)));
    assert!(named[0]["queue"]["bytes"].as_u64().unwrap() > 0);
    let shown = server.get(&format!("/v1/connections/{}", named[0]["id"].as_str().unwrap())).await.json();
    assert_eq!(shown["subscriptions"][0], "big");
    let later = loop {
        let figures = stream.figures().await;
        let seconds = figures["slow"][0]["seconds"].as_u64().expect("it is still slow");
        if seconds > 0 {
            break seconds;
        }
    };
    assert!(later < 20);
}

#[tokio::test]
async fn only_who_may_manage_every_channel_watches() {
    for (allow, deny, status) in [
        (vec![(Action::Manage, "**")], vec![], 200),
        (vec![(Action::Manage, "a/**")], vec![], 403),
        (vec![(Action::Manage, "**")], vec![(Action::Manage, "secret")], 403),
        (vec![(Action::Subscribe, "**"), (Action::Manage, "$SYS/metrics")], vec![], 403),
    ] {
        let anonymous = Anonymous(Principal::anonymous(rights(&allow, &deny)));
        let server =
            Server::with(broker_core::Config::default(), Config::default(), Arc::new(anonymous)).await;
        for accept in ["", "Accept: text/event-stream\r\n"] {
            if status == 200 && !accept.is_empty() {
                continue;
            }
            let answer = server.ask("GET /v1/figures", accept, b"").await;
            assert_eq!(answer.status, status, "{allow:?} {deny:?} {}", answer.body);
        }
    }
}

#[tokio::test]
async fn one_more_than_may_watch_is_told_to_come_later_and_a_place_that_is_left_is_free() {
    let mut config = Config::default();
    config.max_watchers = 2;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let (mut one, mut other) = (Stream::open(&server).await, Stream::open(&server).await);
    let _ = (one.figures().await, other.figures().await);
    for accept in ["", "Accept: text/event-stream\r\n"] {
        let refused = server.ask("GET /v1/figures", accept, b"").await;
        assert_eq!((refused.status, refused.code()), (503, "too_many_watchers".to_owned()));
        assert!(refused.header("retry-after").is_some());
        assert!(refused.json()["detail"].as_str().unwrap().starts_with("2 clients watch"));
    }
    drop(other);
    timeout(PATIENCE, async {
        while server.get("/v1/figures").await.status != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the place is free again");
    // Who asks once takes a place no longer than that.
    for _ in 0..5 {
        assert_eq!(server.get("/v1/figures").await.status, 200);
    }
}

#[tokio::test]
async fn a_stream_says_why_it_ends() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    stream.figures().await;
    server.api.shutdown(Duration::from_secs(1)).await;
    let rest = stream.rest().await;
    assert!(rest.contains(&": shutting down".to_owned()), "{rest:?}");
    assert!(rest.contains(&"retry: 2000".to_owned()), "{rest:?}");
    assert_eq!(server.get("/v1/figures").await.code(), "shutting_down");
}

/// Lets everybody in for a moment.
struct Briefly(Duration);

impl Authenticator for Briefly {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        let end = unix_ms() + self.0.as_millis() as u64;
        Authenticated::now(Ok(Principal::anonymous(Rights::all()).expiring_at(end)))
    }
}

#[tokio::test]
async fn a_stream_lasts_as_long_as_its_credentials() {
    let briefly = Briefly(Duration::from_millis(1_500));
    let server = Server::with(broker_core::Config::default(), Config::default(), Arc::new(briefly)).await;
    let rest = Stream::open(&server).await.rest().await;
    assert!(rest.iter().any(|line| line.starts_with("data: ")));
    assert!(rest.contains(&": credentials expired, reconnect with new ones".to_owned()), "{rest:?}");
}

/// Lets everybody in and, from a given question on, would not.
struct Fickle(AtomicUsize);

impl Authenticator for Fickle {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::now(Ok(Principal::anonymous(Rights::all())))
    }

    fn still_holds(&self, _: &Principal) -> bool {
        self.0.fetch_add(1, Relaxed) < 2
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_rights_change() {
    let fickle = Fickle(AtomicUsize::new(0));
    let server = Server::with(broker_core::Config::default(), Config::default(), Arc::new(fickle)).await;
    let rest = Stream::open(&server).await.rest().await;
    assert!(rest.contains(&": rights changed, reconnect".to_owned()), "{rest:?}");
}

#[tokio::test]
async fn retained_channels_are_listed_in_pages_without_those_one_may_not_read() {
    let allow = rights(&[(Action::History, "**")], &[(Action::History, "a/secret")]);
    let anonymous = Anonymous(Principal::anonymous(allow));
    let server = Server::with(broker_core::Config::default(), Config::default(), Arc::new(anonymous)).await;
    for channel in ["a/1", "a/2", "a/secret", "b", "a"] {
        let publish = Publish::new(Channel::parse(channel).unwrap(), "{}").json().retain(true);
        server.broker.publish(publish).unwrap();
    }
    publish(&server, "not/retained");
    let names = |answer: &Value| -> Vec<String> {
        let list = answer["retained"].as_array().unwrap();
        list.iter().map(|one| one["channel"].as_str().unwrap().to_owned()).collect()
    };
    let all = server.get("/v1/retained").await.json();
    assert_eq!(
        (names(&all), &all["next"]),
        (vec!["a".into(), "a/1".into(), "a/2".into(), "b".into()], &Value::Null)
    );
    assert_eq!(
        (&all["retained"][0]["bytes"], &all["retained"][0]["content_type"]),
        (&2.into(), &"application/json".into())
    );
    let first = server.get("/v1/retained?limit=2").await.json();
    assert_eq!((names(&first), &first["next"]), (vec!["a".into(), "a/1".into()], &"a/1".into()));
    let rest = server.get("/v1/retained?limit=3&cursor=a/1").await.json();
    assert_eq!((names(&rest), &rest["next"]), (vec!["a/2".into(), "b".into()], &Value::Null));
    assert_eq!(names(&server.get("/v1/retained?filter=a/*").await.json()), ["a/1", "a/2"]);
    assert_eq!(names(&server.get("/v1/retained?filter=b").await.json()), ["b"]);
    for (query, code) in [
        ("?filter=**/a", "invalid_filter"),
        ("?limit=0", "invalid_parameter"),
        ("?cursor=", "invalid_parameter"),
        ("?prefix=a", "invalid_parameter"),
    ] {
        assert_eq!(server.get(&format!("/v1/retained{query}")).await.code(), code, "{query}");
    }
}
