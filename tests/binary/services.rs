//! Fronts in an axum service: paths, addresses, its own sessions, and its end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::{Router, serve};
use fanwire::edge::{OriginPolicy, Peer, TokenPlaces, TokenSources};
use fanwire::front::Front;
use fanwire::{
    AllowAll, Answer, AuthError, Authenticated, Authenticator, Broker, Config, Credentials, Filter, Fronts,
    Principal, Rights, api, bayeux, mqtt, sse,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::http::{Answer as Response, get, post, request};
use crate::support::sse::EventStream;
use crate::support::within;

/// A running service.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Service {
    pub(crate) async fn start(router: Router) -> Self {
        Self::start_and_stop(router, std::future::ready(())).await
    }

    /// `stopping` is awaited before it takes no more connections.
    async fn start_and_stop(router: Router, stopping: impl Future<Output = ()> + Send + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
            stopping.await;
        };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(serve(listener, service).with_graceful_shutdown(stopped).into_future());
        Service { address, stop, serving }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(
    address: SocketAddr,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, SocketError> {
    let mut request = format!("ws://{address}{target}").into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    within(connect_async(request)).await.map(|(socket, _)| socket)
}

pub(crate) async fn open_mqtt(
    address: SocketAddr,
    target: &str,
    cookie: &str,
) -> Result<Socket, SocketError> {
    open(address, target, &[("sec-websocket-protocol", "mqtt"), ("cookie", cookie)]).await
}

pub(crate) async fn open_bayeux(address: SocketAddr, target: &str, cookie: &str) -> Socket {
    open(address, target, &[("cookie", cookie)]).await.expect("Bayeux upgrades")
}

/// The return code of an MQTT 3.1.1 CONNECT with this client identifier.
pub(crate) async fn connect_mqtt(socket: &mut Socket, client: &str) -> u8 {
    let mut packet = vec![0x10, 12 + u8::try_from(client.len()).expect("short"), 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x3c\x00");
    packet.push(u8::try_from(client.len()).expect("short"));
    packet.extend_from_slice(client.as_bytes());
    let answer = exchange(socket, Message::binary(packet)).await.expect("CONNACK");
    let answer = answer.into_data();
    assert_eq!((answer[0], answer[1]), (0x20, 2));
    answer[3]
}

pub(crate) async fn subscribe_mqtt(socket: &mut Socket, topic: &str) {
    let mut packet = vec![0x82, 5 + u8::try_from(topic.len()).expect("short"), 0, 1, 0];
    packet.push(u8::try_from(topic.len()).expect("short"));
    packet.extend_from_slice(topic.as_bytes());
    packet.push(0);
    let answer = exchange(socket, Message::binary(packet)).await.expect("SUBACK").into_data();
    assert_eq!(&answer[..], [0x90, 3, 0, 1, 0]);
}

async fn exchange(socket: &mut Socket, message: Message) -> Option<Message> {
    within(socket.send(message)).await.expect("written");
    next(socket).await
}

/// The next message with content; `None` once the server has closed.
pub(crate) async fn next(socket: &mut Socket) -> Option<Message> {
    within(async {
        loop {
            match socket.next().await {
                Some(Ok(message)) if message.is_text() || message.is_binary() => return Some(message),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    })
    .await
}

pub(crate) fn handshake(transport: &str) -> Value {
    json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": [transport]}])
}

/// What a Bayeux WebSocket answers these messages with; `None` if it closes.
pub(crate) async fn ask_bayeux(socket: &mut Socket, messages: &Value) -> Option<Value> {
    let answer = exchange(socket, Message::text(messages.to_string())).await?;
    Some(serde_json::from_str(answer.to_text().expect("text")).expect("JSON"))
}

pub(crate) async fn poll(
    address: SocketAddr,
    target: &str,
    messages: &Value,
    headers: &[(&str, &str)],
) -> Response {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    request(address, "POST", target, &all, messages.to_string()).await
}

/// The front of each protocol at paths of the service's choosing.
struct All {
    api: api::Front,
    sse: sse::Front,
    bayeux: bayeux::Front,
    mqtt: mqtt::Front,
}

impl All {
    /// At `/own/…` in whole paths; tokens in a cookie `sid`.
    fn new(broker: &Broker, authenticator: Arc<dyn Authenticator>) -> Self {
        let mut config = Config::default();
        config.api.path = "/own/api".to_owned();
        config.sse.path = "/own/events".to_owned();
        config.bayeux.mount = vec!["/own/browsers".to_owned()];
        config.mqtt_front.path = "/own/devices".to_owned();
        let mut places = TokenPlaces::default();
        places.cookie = Some("sid".to_owned());
        let sources = TokenSources::from(places);
        config.sse.token_sources = sources.clone();
        config.bayeux.token_sources = sources.clone();
        config.mqtt_front.token_sources = sources;
        config.bayeux.origins = OriginPolicy::SameOrigin;
        let given = || (broker.clone(), authenticator.clone());
        let ((a, b), (c, d), (e, f), (g, h)) = (given(), given(), given(), given());
        All {
            api: api::Front::new(a, b, config.api),
            sse: sse::Front::new(c, d, config.sse),
            bayeux: bayeux::Front::new(e, f, config.bayeux),
            mqtt: mqtt::Front::new(g, h, config.mqtt_front),
        }
    }

    /// Nested below `/nested/…`, and by whole paths everywhere else.
    fn router(&self) -> Router {
        Router::new()
            .nest_service("/nested/api", self.api.nested())
            .nest_service("/nested/events", self.sse.nested())
            .nest_service("/nested/browsers", self.bayeux.nested())
            .nest_service("/nested/devices", self.mqtt.nested())
            .route_service("/{*whole}", self.api.clone())
            .route_service("/own/events", self.sse.clone())
            .route_service("/own/events/{*rest}", self.sse.clone())
            .route_service("/elsewhere/events/{*rest}", self.sse.clone())
            .route_service("/own/browsers", self.bayeux.clone())
            .route_service("/own/browsers/{*rest}", self.bayeux.clone())
            .route_service("/elsewhere/browsers", self.bayeux.clone())
            .route_service("/own/devices", self.mqtt.clone())
            .route_service("/elsewhere/devices", self.mqtt.clone())
    }

    fn list(&self) -> [&dyn Front; 4] {
        [&self.api, &self.sse, &self.bayeux, &self.mqtt]
    }
}

fn broker() -> Broker {
    Broker::new(fanwire::core::Config::default())
}

#[tokio::test]
async fn each_front_is_where_its_configuration_says_and_nested_where_its_router_does() {
    let broker = broker();
    let service = Service::start(All::new(&broker, Arc::new(AllowAll)).router()).await;
    let at = service.address;
    for place in ["/own", "/nested"] {
        assert_eq!(post(at, &format!("{place}/api/publish/room"), "1").await.status, 200, "{place}");
        assert_eq!(get(at, &format!("{place}/api/channels")).await.status, 200, "{place}");
        let described = get(at, &format!("{place}/api/openapi.json")).await.text().to_owned();
        let publish = if place == "/own" { "\"/own/api/publish\"" } else { "\"/publish\"" };
        assert!(described.contains(publish), "{place}");

        for target in ["/events/room", "/events?channel=room"] {
            let mut stream = EventStream::open(at, &format!("{place}{target}")).await;
            assert_eq!(stream.status, 200, "{place}{target}");
            post(at, "/own/api/publish/room", "\"tea\"").await;
            assert!(stream.data().await.contains("tea"), "{place}{target}");
        }
        for target in ["/browsers", "/browsers/", "/browsers/handshake"] {
            let answer = poll(at, &format!("{place}{target}"), &handshake("long-polling"), &[]).await;
            let is_routed = target != "/browsers/" || place == "/nested";
            assert_eq!(answer.status == 200, is_routed, "{place}{target}");
        }
        let mut socket = open_bayeux(at, &format!("{place}/browsers"), "").await;
        let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
        assert_eq!(reply[0]["successful"], true, "{place}");
        let mut device = open_mqtt(at, &format!("{place}/devices"), "").await.expect("MQTT upgrades");
        assert_eq!(connect_mqtt(&mut device, "c").await, 0, "{place}");
    }
    assert_eq!(get(at, "/healthz").await.status, 200);
    assert_eq!(get(at, "/nested/api/healthz").await.status, 200);
    for elsewhere in ["/v1/channels", "/api/channels", "/elsewhere/events/room", "/nested/api/v1/channels"] {
        assert_eq!(get(at, elsewhere).await.status, 404, "{elsewhere}");
    }
    assert_eq!(poll(at, "/elsewhere/browsers", &handshake("long-polling"), &[]).await.status, 404);
    match open_mqtt(at, "/elsewhere/devices", "").await {
        Err(SocketError::Http(answer)) => assert_eq!(answer.status(), 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_fronts_are_one_service_as_they_are_and_nested() {
    let broker = broker();
    let fronts = Fronts::new(&broker, &Config::default());
    let router = Router::new().nest_service("/realtime", fronts.clone()).fallback_service(fronts);
    let service = Service::start(router).await;
    for place in ["", "/realtime"] {
        let mut stream = EventStream::open(service.address, &format!("{place}/sse/room")).await;
        assert_eq!(post(service.address, &format!("{place}/v1/publish/room"), "\"tea\"").await.status, 200);
        assert!(stream.data().await.contains("tea"));
        let mut socket = open_bayeux(service.address, &format!("{place}/cometd"), "").await;
        assert!(ask_bayeux(&mut socket, &handshake("websocket")).await.is_some(), "{place}");
        open_mqtt(service.address, &format!("{place}/mqtt"), "").await.expect("MQTT upgrades");
        assert_eq!(get(service.address, &format!("{place}/nowhere")).await.status, 404);
    }
}

#[tokio::test]
async fn the_address_is_axums_unless_somebody_knows_better() {
    let broker = broker();
    let all = All::new(&broker, Arc::new(AllowAll));
    let behind_a_proxy = from_fn(async |mut request: Request, next: Next| {
        if request.headers().contains_key("x-behind") {
            request.extensions_mut().insert(Peer(([192, 0, 2, 7], 1).into()));
        }
        next.run(request).await
    });
    let service = Service::start(all.router().layer(behind_a_proxy)).await;
    let at = service.address;
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for (headers, line) in [(&[][..], ""), (&[("x-behind", "1")][..], "x-behind: 1\r\n")] {
        streams.push(EventStream::open_with(at, "/nested/events/room", line).await);
        let mut socket = open(at, "/own/browsers", headers).await.expect("Bayeux upgrades");
        let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
        subscribe_bayeux(&mut socket, &reply, "/room").await;
        sockets.push(socket);
        let mut device = open(at, "/nested/devices", headers).await.expect("MQTT upgrades");
        assert_eq!(connect_mqtt(&mut device, if line.is_empty() { "here" } else { "there" }).await, 0);
        subscribe_mqtt(&mut device, "room").await;
        sockets.push(device);
        let answer = poll(at, "/own/browsers", &handshake("long-polling"), headers).await;
        let cookie = answer.header("set-cookie").expect("a cookie").split(';').next().expect("a value");
        let subscribe = subscription(&answer.json(), "/room");
        let mut with_cookie = headers.to_vec();
        with_cookie.push(("cookie", cookie));
        assert_eq!(poll(at, "/own/browsers", &subscribe, &with_cookie).await.json()[0]["successful"], true);
    }
    let page = broker.presence(&Filter::parse("room").expect("a filter"), None, 100).await;
    let mut seen: Vec<_> = page
        .members
        .iter()
        .map(|one| {
            (one.remote.expect("an address").to_string(), one.protocol, one.transport, one.client_id.clone())
        })
        .collect();
    seen.sort();
    let expected = |ip: &str, id: &str| {
        [
            (ip.to_owned(), "bayeux", "long-polling", None),
            (ip.to_owned(), "bayeux", "websocket", None),
            (ip.to_owned(), "mqtt", "websocket", Some(id.to_owned())),
            (ip.to_owned(), "sse", "http/1.1", None),
        ]
    };
    assert_eq!(seen, [expected("127.0.0.1", "here"), expected("192.0.2.7", "there")].concat());

    // As the API tells it.
    let told = get(at, "/own/api/presence/room").await.json();
    let mut users: Vec<_> = told["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|one| one["protocol"].as_str().expect("a protocol").to_owned())
        .collect();
    let mut here: Vec<_> = page.members.iter().map(|one| one.protocol.to_owned()).collect();
    users.sort();
    here.sort();
    assert_eq!(users, here);
    assert_eq!(told["connections"], page.members.len());
}

fn subscription(reply: &Value, channel: &str) -> Value {
    json!([{"channel": "/meta/subscribe", "clientId": reply[0]["clientId"], "subscription": channel}])
}

pub(crate) async fn subscribe_bayeux(socket: &mut Socket, reply: &Value, channel: &str) {
    let answer = ask_bayeux(socket, &subscription(reply, channel)).await.expect("an answer");
    assert_eq!(answer[0]["successful"], true, "{answer}");
}

/// Lets in whose token is `good`.
struct Good;

impl Authenticator for Good {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        Answer::now(match credentials.token {
            Some("good") => Ok(Principal::user_with("ann", Rights::all())),
            Some(_) => Err(AuthError::Invalid("no such session".to_owned())),
            None => Err(AuthError::Required),
        })
    }
}

/// What each transport says to a client that shows this cookie: SSE, MQTT and Bayeux over WebSocket, long-polling,
/// callback-polling as a page of this server asks.
async fn let_in(at: SocketAddr, cookie: &str) -> [bool; 5] {
    let line = format!("cookie: {cookie}\r\n");
    let streams = EventStream::open_with(at, "/own/events/room", &line).await.status == 200;
    let mut device = open_mqtt(at, "/own/devices", cookie).await.expect("MQTT upgrades");
    let connects = connect_mqtt(&mut device, "c").await == 0;
    let mut socket = open_bayeux(at, "/own/browsers", cookie).await;
    let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
    let polls = poll(at, "/own/browsers", &handshake("long-polling"), &[("cookie", cookie)]).await.json();
    let page = format!("http://{at}/page");
    let calls = call_back(at, &[("cookie", cookie), ("referer", &page)]).await;
    [streams, connects, reply[0]["successful"] == true, polls[0]["successful"] == true, calls]
}

/// Whether a handshake over callback-polling succeeds.
async fn call_back(at: SocketAddr, headers: &[(&str, &str)]) -> bool {
    let message = "%5B%7B%22channel%22%3A%22%2Fmeta%2Fhandshake%22%2C%22version%22%3A%221.0%22%2C\
                   %22supportedConnectionTypes%22%3A%5B%22callback-polling%22%5D%7D%5D";
    let target = format!("/own/browsers?jsonp=f&message={message}");
    let answer = request(at, "GET", &target, headers, "").await;
    answer.status == 200 && answer.text().contains("\"successful\":true")
}

#[tokio::test]
async fn one_cookie_lets_in_over_every_transport() {
    let broker = broker();
    let service = Service::start(All::new(&broker, Arc::new(Good)).router()).await;
    let at = service.address;
    assert_eq!(let_in(at, "sid=good").await, [true; 5]);
    assert_eq!(let_in(at, "other=1; sid=old; sid=good").await, [true; 5], "one of several");
    assert_eq!(let_in(at, "sid=bad").await, [false; 5]);
    assert_eq!(let_in(at, "other=good").await, [false; 5]);
}

/// A script of another site is run there with its answer, and carries the visitor's cookies.
#[tokio::test]
async fn a_script_of_an_unknown_page_has_no_use_of_the_visitors_cookie() {
    let broker = broker();
    let service = Service::start(All::new(&broker, Arc::new(Good)).router()).await;
    let own = format!("http://{}/page", service.address);
    let (cookie, bearer) = (("cookie", "sid=good"), ("authorization", "Bearer good"));
    for (headers, expected) in [
        (&[cookie, ("referer", &own)][..], true),
        (&[cookie, ("sec-fetch-site", "same-origin")], true),
        (&[cookie, ("sec-fetch-site", "cross-site")], false),
        (&[cookie, ("referer", "https://evil.example/")], false),
        (&[cookie], false),
        (&[bearer], true),
    ] {
        assert_eq!(call_back(service.address, headers).await, expected, "{headers:?}");
    }
}

/// What a middleware has found out.
#[derive(Clone)]
struct Member(&'static str);

/// Lets in whom a middleware knows, and counts the questions.
#[derive(Default)]
struct ByMember(AtomicUsize);

impl Authenticator for ByMember {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        self.0.fetch_add(1, Relaxed);
        let parts: Option<&Parts> = credentials.request();
        let member = parts.and_then(|parts| parts.extensions.get::<Member>());
        let header = parts.and_then(|parts| parts.headers.get("cookie"));
        Answer::now(match (member, header) {
            (Some(Member(user)), Some(_)) => Ok(Principal::user_with(user, Rights::all())),
            _ => Err(AuthError::Required),
        })
    }
}

fn knows_members(router: Router) -> Router {
    router.layer(from_fn(async |mut request: Request, next: Next| {
        let is_known = request.headers().get("cookie").is_some_and(|value| value == "own=ann");
        if is_known {
            request.extensions_mut().insert(Member("ann"));
        }
        next.run(request).await
    }))
}

#[tokio::test]
async fn what_a_middleware_knows_reaches_the_authenticator_over_every_transport() {
    let broker = broker();
    let service =
        Service::start(knows_members(All::new(&broker, Arc::new(ByMember::default())).router())).await;
    assert_eq!(let_in(service.address, "own=ann").await, [true; 5]);
    assert_eq!(let_in(service.address, "own=bob").await, [false; 5]);
    let channels = request(service.address, "GET", "/own/api/channels", &[("cookie", "own=ann")], "").await;
    assert_eq!(channels.status, 200);
    assert_eq!(get(service.address, "/own/api/channels").await.status, 401);
}

/// Something large that a middleware has put into each request.
#[derive(Clone)]
struct Large(#[allow(dead_code, reason = "it only counts as long as it is held")] Arc<()>);

#[tokio::test]
async fn an_idle_connection_keeps_nothing_of_its_request() {
    let broker = broker();
    let seen: Arc<Mutex<Vec<Weak<()>>>> = Arc::default();
    let noted = seen.clone();
    let router = All::new(&broker, Arc::new(AllowAll)).router().layer(from_fn(
        move |mut request: Request, next: Next| {
            let large = Arc::new(());
            noted.lock().expect("nobody panics").push(Arc::downgrade(&large));
            request.extensions_mut().insert(Large(large));
            next.run(request)
        },
    ));
    let kept = || seen.lock().expect("nobody panics").iter().filter(|one| one.strong_count() > 0).count();
    let service = Service::start(router).await;
    let at = service.address;
    let _stream = EventStream::open(at, "/nested/events/room").await;
    let mut socket = open_bayeux(at, "/nested/browsers", "").await;
    let mut device = open_mqtt(at, "/nested/devices", "").await.expect("MQTT upgrades");
    assert!(kept() >= 2, "those who may still say who they are have it");
    ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
    assert_eq!(connect_mqtt(&mut device, "c").await, 0);
    within(async {
        // A connection's task may be a moment behind.
        while kept() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The request of an upgrade is gone once it has let somebody in; another session needs another request.
#[tokio::test]
async fn a_second_session_on_a_socket_is_not_made_of_a_request_that_is_gone() {
    let broker = broker();
    let authenticator = Arc::new(ByMember::default());
    let router = knows_members(All::new(&broker, authenticator.clone()).router());
    let service = Service::start(router).await;
    let mut socket = open_bayeux(service.address, "/own/browsers", "own=ann").await;
    let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
    let id = &reply[0]["clientId"];
    let leave = json!([{"channel": "/meta/disconnect", "clientId": id}]);
    let left = ask_bayeux(&mut socket, &leave).await.expect("an answer");
    assert_eq!(left[0]["successful"], true);
    assert_eq!(ask_bayeux(&mut socket, &handshake("websocket")).await, None, "closed");
    assert_eq!(authenticator.0.load(Relaxed), 1, "not asked about nothing");

    // Who is known by a token, which is kept, may have one session after another on its socket.
    let service = Service::start(All::new(&broker, Arc::new(Good)).router()).await;
    let mut socket = open_bayeux(service.address, "/own/browsers", "sid=good").await;
    for _ in 0..2 {
        let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
        assert_eq!(reply[0]["successful"], true);
        let leave = json!([{"channel": "/meta/disconnect", "clientId": reply[0]["clientId"]}]);
        ask_bayeux(&mut socket, &leave).await.expect("an answer");
    }
}

#[tokio::test]
async fn a_service_ends_whoever_holds_its_fronts_and_its_broker() {
    let broker = broker();
    let all = Arc::new(All::new(&broker, Arc::new(AllowAll)));
    let (router, forgotten) = (all.router(), clone_of(&all));
    let (stopping, kept) = (all.clone(), broker.clone());
    let stop = async move { fanwire::stop(&kept, stopping.list(), Duration::from_secs(1)).await };
    let service = Service::start_and_stop(router, stop).await;
    let at = service.address;

    let mut heard = broker.subscribe(Filter::parse("#").expect("a filter")).expect("it is open");
    let hearing = tokio::spawn(async move { while heard.message().await.is_some() {} });
    let mut stream = EventStream::open(at, "/nested/events/room").await;
    let mut socket = open_bayeux(at, "/nested/browsers", "").await;
    let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
    subscribe_bayeux(&mut socket, &reply, "/room").await;
    let mut device = open_mqtt(at, "/nested/devices", "").await.expect("MQTT upgrades");
    assert_eq!(connect_mqtt(&mut device, "c").await, 0);
    let answer = poll(at, "/nested/browsers", &handshake("long-polling"), &[]).await;
    let cookie =
        answer.header("set-cookie").expect("a cookie").split(';').next().expect("a value").to_owned();
    let id = answer.json()[0]["clientId"].clone();
    let connect = json!([{"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"}]);
    let held = {
        let cookie = cookie.clone();
        poll(at, "/nested/browsers", &connect, &[("cookie", &cookie)]).await;
        tokio::spawn(async move { poll(at, "/nested/browsers", &connect, &[("cookie", &cookie)]).await })
    };
    post(at, "/own/api/publish/room", "\"last\"").await;

    let Service { stop, serving, .. } = service;
    stop.send(()).expect("it runs");
    within(serving).await.expect("it does not panic").expect("it served");
    assert!(stream.data().await.contains("last"), "what was accepted is written");
    assert!(stream.next().await.is_none() && stream.is_whole, "ended, not cut");
    assert!(stream.retry.is_some(), "told when to come back");
    assert_eq!(within(held).await.expect("answered").status, 200);
    while next(&mut socket).await.is_some() {}
    while next(&mut device).await.is_some() {}
    within(hearing).await.expect("the stream in process has ended");
    assert!(broker.is_closed());
    drop(forgotten);
}

fn clone_of(all: &All) -> All {
    All { api: all.api.clone(), sse: all.sse.clone(), bayeux: all.bayeux.clone(), mqtt: all.mqtt.clone() }
}
