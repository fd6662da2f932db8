//! Connections behind a real listener, an origin that is a function, and clients.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_core::{Broker, Channel, Publish};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grip::events::{self, Event};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_edge::{ServeConfig, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
use websocket_over_http::{Answer, Asking, Failed, Hub, Origin, Rules, open};

/// How long anything may take that should happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test if it takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until something holds.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A request to the origin.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) url: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn events(&self) -> Vec<Event> {
        events::decode(&self.body, 1 << 24).expect("a list of events")
    }

    pub(crate) fn is_opening(&self) -> bool {
        &self.body[..] == b"OPEN\r\n"
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            _ => None,
        };
        self.events().iter().filter_map(text).collect()
    }
}

/// An answer with events.
pub(crate) fn events_with(
    headers: &[(&'static str, &'static str)],
    events: &[Event],
) -> Result<Answer, Failed> {
    let headers = [("content-type", "application/websocket-events")].iter().chain(headers);
    answer(200, headers, events::encode(events))
}

pub(crate) fn answer<'a>(
    status: u16,
    headers: impl IntoIterator<Item = &'a (&'static str, &'static str)>,
    body: impl Into<Bytes>,
) -> Result<Answer, Failed> {
    let pairs = headers
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Ok(Answer::new(status, pairs.collect(), body.into()))
}

pub(crate) fn text(text: impl Into<String>) -> Event {
    Event::Text(text.into().into())
}

/// Yes, with the extension, and these texts.
pub(crate) fn opened(texts: &[&str]) -> Result<Answer, Failed> {
    let mut all = vec![Event::Open];
    all.extend(texts.iter().map(|one| text(*one)));
    events_with(&[("sec-websocket-extensions", "grip")], &all)
}

/// Nothing to say.
pub(crate) fn nothing() -> Result<Answer, Failed> {
    events_with(&[], &[])
}

pub(crate) fn unreachable(was_unread: bool) -> Result<Answer, Failed> {
    Err(Failed::new(StatusCode::BAD_GATEWAY, was_unread, "nobody listens"))
}

type Answering = dyn Fn(Asked) -> Asking + Send + Sync;

/// An origin that is a function, and remembers what it was asked.
#[derive(Clone)]
pub(crate) struct Scripted {
    asked: Arc<Mutex<VecDeque<Asked>>>,
    under_way: Arc<Mutex<(u64, u64)>>,
    answer: Arc<Answering>,
    /// Bytes that wait, as connections say.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new<F>(answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Answer, Failed>> + Send + 'static,
    {
        let answer = Arc::new(move |asked| Box::pin(answer(asked)) as Asking);
        Self { asked: Arc::default(), under_way: Arc::default(), answer, waiting: Arc::default() }
    }

    /// The next request that nobody has looked at.
    pub(crate) async fn next(&self) -> Asked {
        let mut found = None;
        eventually(|| {
            found = self.asked.lock().unwrap().pop_front();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Most requests that were under way at a time.
    pub(crate) fn most(&self) -> u64 {
        self.under_way.lock().unwrap().1
    }

    fn asked(&self, asked: Asked) -> Asking {
        self.asked.lock().unwrap().push_back(asked.clone());
        let under_way = Arc::clone(&self.under_way);
        {
            let mut counts = under_way.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        let answer = (self.answer)(asked);
        Box::pin(async move {
            let answer = answer.await;
            under_way.lock().unwrap().0 -= 1;
            answer
        })
    }
}

impl Origin for Scripted {
    fn ask(&self, headers: HeaderMap, body: Bytes, _: usize) -> Asking {
        self.asked(Asked { url: None, headers, body })
    }

    fn call(&self, url: &str, headers: HeaderMap, body: Bytes, _: usize) -> Asking {
        self.asked(Asked { url: Some(url.to_owned()), headers, body })
    }

    fn note_waiting(&self, bytes: usize, before: usize) {
        self.waiting.fetch_add(bytes.wrapping_sub(before), Relaxed);
    }
}

/// How many clients are listed when a 101 is on its way.
pub(crate) const LISTED: &str = "x-listed";

async fn answer_one<B>(
    (broker, hub): (Broker, Hub),
    rules: Arc<Rules>,
    origin: Arc<dyn Origin>,
    request: Request<B>,
) -> http_edge::Response {
    let parts = request.into_parts().0;
    let headers = parts.headers.clone();
    let mut response = open(&hub, rules, origin, None, parts, headers).await;
    let listed = broker.connections(None, 1_000).iter().filter(|(_, one)| one.peer().is_some()).count();
    response.headers_mut().insert(LISTED, listed.into());
    response
}

/// A gateway with one route.
pub(crate) struct Server {
    pub(crate) broker: Broker,
    pub(crate) hub: Hub,
    pub(crate) address: SocketAddr,
    _running: watch::Sender<bool>,
}

impl Server {
    pub(crate) async fn start(origin: &Scripted) -> Self {
        Self::with(origin, |_| {}).await
    }

    pub(crate) async fn with(origin: &Scripted, change: impl FnOnce(&mut Rules)) -> Self {
        let broker = Broker::new(broker_core::Config::default());
        let hub = Hub::new(broker.clone(), link::Intake::default());
        let mut rules = Rules::new("test");
        change(&mut rules);
        let rules = Arc::new(rules);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stop) = watch::channel(false);
        let served = (broker.clone(), hub.clone());
        let origin: Arc<dyn Origin> = Arc::new(origin.clone());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (all, rules, origin) = (served.clone(), Arc::clone(&rules), Arc::clone(&origin));
                let service =
                    move |request| answer_one(all.clone(), Arc::clone(&rules), Arc::clone(&origin), request);
                tokio::spawn(serve(stream, peer, service, ServeConfig::default(), stop.clone()));
            }
        });
        Self { broker, hub, address, _running: running }
    }

    pub(crate) async fn open(&self) -> Client {
        self.open_with(&[]).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// A client, or what it is told instead.
    pub(crate) async fn open_with(
        &self,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Response<Option<Vec<u8>>>> {
        let mut request = format!("ws://{}/live?x=1", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match within(tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, response)) => Ok(Client { socket, response: response.map(drop) }),
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn publish(&self, channel: &str, payload: impl Into<Bytes>) {
        self.broker.publish(Publish::new(Channel::parse(channel).unwrap(), payload)).unwrap();
    }

    /// An item of GRIP, as whoever takes them publishes it.
    pub(crate) fn item(&self, text: &str) {
        let item = grip::publish::item(text).unwrap();
        self.said_to_be(
            &item.channel,
            &websocket_over_http::sealed(&item.channel, text, b"elsewhere").unwrap(),
        );
    }

    /// The same, to each client of its channel alone.
    pub(crate) fn send_item(&self, text: &str) {
        let item = grip::publish::item(text).unwrap();
        let sealed = websocket_over_http::sealed(&item.channel, text, b"elsewhere").unwrap();
        let message = message(&item.channel, &sealed);
        for key in self.broker.subscribers_of(message.channel()) {
            let sending = std::pin::pin!(self.broker.send_to(key, message.clone()));
            let _ = sending.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        }
    }

    /// A message that says of itself that it is an item.
    pub(crate) fn said_to_be(&self, channel: &str, text: &str) {
        self.broker.publish(message(channel, text)).unwrap();
    }
}

/// A WebSocket client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) response: Response<()>,
}

impl Client {
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        within(self.socket.send(Message::text(text.into()))).await.unwrap();
    }

    /// The next message, or the close frame's code; 1006 without one.
    pub(crate) async fn next(&mut self) -> Result<Message, u16> {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(message)) => return Ok(message),
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        self.next().await.expect("a message").into_text().expect("text").to_string()
    }

    /// The code that it is closed with; nothing else comes before it.
    pub(crate) async fn closed(&mut self) -> u16 {
        self.next().await.expect_err("it is closed")
    }
}

fn message(channel: &str, item: &str) -> Publish {
    let mut properties = broker_core::Properties::default();
    properties.user.push((grip::publish::ITEM_PROPERTY.into(), item.into()));
    Publish::new(Channel::parse(channel).unwrap(), "elsewhere").properties(properties)
}
