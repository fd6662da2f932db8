//! Backends that die in the middle of it all, and clients that vanish all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::backend::{Asked, Backend, SECRET};
use crate::support::http::{get, request};
use crate::support::process::Process;
use crate::support::within;

const CLIENTS: usize = 1_000;
const EACH: usize = 10;

/// A backend in a runtime of its own. Killed, all its sockets are closed at once, as the kernel closes those of a process.
struct Mortal {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

type Answers = fn(&Asked, &Mutex<Vec<Value>>) -> (u16, String);

impl Mortal {
    /// At `address`; it notes what it reads in `read` before it answers.
    async fn start(address: SocketAddr, read: &Arc<Mutex<Vec<Value>>>, answers: Answers) -> Self {
        // The one before may just be letting go of it.
        let listener = within(async {
            loop {
                match std::net::TcpListener::bind(address) {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        listener.set_nonblocking(true).expect("it can be");
        let address = listener.local_addr().expect("an address");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        let read = Arc::clone(read);
        let inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        drop(Backend::on(listener, move |asked| answers(asked, &read)));
        drop(inside);
        Self { runtime: Some(runtime), address }
    }

    fn kill(mut self) {
        self.runtime.take().expect("it lives").shutdown_background();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

async fn serve(file: &tempfile::NamedTempFile) -> Process {
    // Its clients and their backends are here.
    fanwire::raise_descriptor_limit();
    Process::start(&["--config", file.path().to_str().expect("a path")]).await
}

/// Waits much longer than for anything else here: breakers and retries take their time.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

/// Notes the events, one or several in a request.
fn takes(asked: &Asked, read: &Mutex<Vec<Value>>) -> (u16, String) {
    match asked.body.as_array() {
        Some(several) => read.lock().extend(several.iter().cloned()),
        None => read.lock().push(asked.body.clone()),
    }
    (200, String::new())
}

/// What came, by `order`, in the order in which it first came; a repeat is one of the same `id`.
fn first_of_each(
    read: &[Value],
    order: impl Fn(&Value) -> String,
    id: impl Fn(&Value) -> String,
    what: impl Fn(&Value) -> String,
) -> BTreeMap<String, Vec<String>> {
    let (mut known, mut found) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
    for event in read {
        let (order, id, what) = (order(event), id(event), what(event));
        match known.insert((order.clone(), what.clone()), id.clone()) {
            None => found.entry(order).or_default().push(what),
            Some(before) => assert_eq!(before, id, "{order} {what} came twice under two names"),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_outlive_the_death_of_their_backend_in_order_and_under_their_names() {
    let read = Arc::new(Mutex::new(Vec::new()));
    let backend = Mortal::start(anywhere(), &read, takes).await;
    let address = backend.address;
    let file = file(&format!(
        "[[gateway.webhooks]]\nid = \"all\"\nurl = \"http://{address}/\"\nsecret = \"{SECRET}\"\n\
         events = [\"message\"]\nbatch = 20\n"
    ));
    let server = serve(&file).await;
    for turn in 0..EACH {
        let items: Vec<_> =
            (0..CLIENTS).map(|at| json!({"channel": format!("c/{at}"), "text": turn.to_string()})).collect();
        let headers = [("content-type", "application/json")];
        let answer = request(server.http, "POST", "/v1/publish", &headers, json!(items).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    eventually("half of it arrives", || read.lock().len() >= CLIENTS * EACH / 2).await;
    backend.kill();
    let backend = Mortal::start(address, &read, takes).await;
    let of = |event: &Value, name: &str| event["data"][name].as_str().expect("text").to_owned();
    let name = |event: &Value| event["id"].as_str().expect("text").to_owned();
    let all = || first_of_each(&read.lock(), |event| of(event, "channel"), name, |event| of(event, "text"));
    let mut arrived = 0;
    eventually("all of it arrives", || {
        let now = read.lock().len();
        // Counting is the dear part.
        now >= CLIENTS * EACH
            && std::mem::replace(&mut arrived, now) != now
            && all().values().map(Vec::len).sum::<usize>() == CLIENTS * EACH
    })
    .await;
    let expected: Vec<_> = (0..EACH).map(|turn| turn.to_string()).collect();
    for (channel, found) in all() {
        assert_eq!(found, expected, "{channel}");
    }
    let dead = get(server.http, "/v1/dead-letters").await.json();
    assert_eq!(dead["letters"], json!([]));
    drop(backend);
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// As a function of a WebSocket API: messages come back.
fn echoes(asked: &Asked, read: &Mutex<Vec<Value>>) -> (u16, String) {
    read.lock().push(asked.body.clone());
    (200, json!({"statusCode": 200, "body": asked.body["body"]}).to_string())
}

fn context(event: &Value, name: &str) -> String {
    event["requestContext"][name].as_str().unwrap_or_default().to_owned()
}

/// The next text. On a slow machine the server asks meanwhile whether the client is there.
async fn heard(client: &mut Client) -> String {
    loop {
        match within(client.next()).await.expect("a frame").expect("a frame") {
            Message::Ping(_) => {}
            frame => return frame.into_text().expect("text").to_string(),
        }
    }
}

fn ended(read: &Mutex<Vec<Value>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut ended = BTreeMap::<String, BTreeSet<String>>::new();
    for event in read.lock().iter().filter(|event| context(event, "eventType") == "DISCONNECT") {
        ended.entry(context(event, "connectionId")).or_default().insert(context(event, "requestId"));
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_hear_of_each_message_and_functions_of_each_end_whoever_dies() {
    let read = Arc::new(Mutex::new(Vec::new()));
    let backend = Mortal::start(anywhere(), &read, echoes).await;
    let address = backend.address;
    let file = file(&format!(
        r#"
[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = {{ url = "http://{address}/", timeout = "5s" }}
routes."$connect" = {{ integration = "main" }}
routes."$disconnect" = {{ integration = "main" }}
routes."$default" = {{ integration = "main", response = true }}
retry = ["100ms", "200ms", "500ms", "1s", "2s"]
breaker = {{ min_calls = 20, open = "200ms", max_open = "400ms" }}
"#
    ));
    let server = serve(&file).await;
    let url = format!("ws://{}/dev", server.http);
    let mut clients: Vec<Client> = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(within(tokio_tungstenite::connect_async(&url)).await.expect("101").0);
    }
    for client in &mut clients {
        for number in 0..EACH {
            within(client.feed(Message::text(number.to_string()))).await.expect("sent");
        }
        within(client.flush()).await.expect("sent");
    }
    let handled = || read.lock().iter().filter(|event| context(event, "eventType") == "MESSAGE").count();
    eventually("a part of it is handled", || handled() >= CLIENTS * EACH / 4).await;
    backend.kill();
    let backend = Mortal::start(address, &read, echoes).await;

    // Each message has its answer, in order: its own, or that its function failed.
    let mut failed = BTreeSet::new();
    for client in &mut clients {
        for number in 0..EACH {
            let text = heard(client).await;
            if text != number.to_string() {
                let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{number}: {text}"));
                assert_eq!(told["message"], "Internal server error", "{number}: {text}");
                failed.insert(told["requestId"].as_str().expect("text").to_owned());
            }
        }
    }
    assert!(!failed.is_empty() && failed.len() < CLIENTS * EACH, "{}", failed.len());
    let messages: Vec<Value> =
        read.lock().iter().filter(|event| context(event, "eventType") == "MESSAGE").cloned().collect();
    let names: BTreeSet<_> = messages.iter().map(|event| context(event, "requestId")).collect();
    assert_eq!(names.len(), messages.len(), "what may have been read is not sent again");
    assert!(names.union(&failed).count() >= CLIENTS * EACH);
    let id = |event: &Value| context(event, "connectionId");
    let text = |event: &Value| event["body"].as_str().expect("text").to_owned();
    for (client, found) in first_of_each(&messages, id, |event| context(event, "requestId"), text) {
        assert!(found.is_sorted(), "{client}: {found:?}");
    }

    // All but one vanish at once, and while functions hear of it, they die again.
    let mut stays = clients.pop().expect("there are some");
    drop(clients);
    eventually("a part of them is told of", || ended(&read).len() >= CLIENTS / 4).await;
    backend.kill();
    let backend = Mortal::start(address, &read, echoes).await;
    let mut answered = 0;
    while answered < EACH {
        within(stays.send(Message::text("still here"))).await.expect("sent");
        if heard(&mut stays).await == "still here" {
            answered += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    eventually("all of them are told of", || ended(&read).len() == CLIENTS - 1).await;
    for (client, names) in ended(&read) {
        assert_eq!(names.len(), 1, "{client} ends once, under one name");
    }
    let dead = get(server.http, "/v1/dead-letters").await.json();
    assert_eq!(dead["letters"], json!([]));
    drop(backend);
}
