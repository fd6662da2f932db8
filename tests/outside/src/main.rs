//! A service that knows of Fanwire what its manifest says: fronts in a router and in a `tower` stack, a message from the
//! service to an event stream, who is there, and the end. Fails where anything is not so.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, request::Parts};
use fanwire::front::Front;
use fanwire::{
    AuthError, Authenticated, Authenticator, Broker, Channel, Credentials, Filter, Principal, Publish, Rights,
    bayeux, mqtt, sse,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt};

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a layer of the stack knows of a visitor.
#[derive(Clone)]
struct Visitor(&'static str);

struct ByVisitor;

impl Authenticator for ByVisitor {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let visitor = credentials.request::<Parts>().and_then(|parts| parts.extensions.get::<Visitor>());
        Authenticated::now(match visitor {
            Some(Visitor(user)) => Ok(Principal::user_with(user, Rights::all())),
            None => Err(AuthError::Required),
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    timeout(PATIENCE, run()).await?
}

async fn run() -> Result<(), Failure> {
    let broker = Broker::new(fanwire::core::Config::default());
    let visitors = Arc::new(ByVisitor);
    let events = sse::Front::new(broker.clone(), visitors.clone(), sse::Config::default());
    let browsers = bayeux::Front::new(broker.clone(), visitors.clone(), bayeux::Config::default());
    let devices = mqtt::Front::new(broker.clone(), visitors, mqtt::Config::default());

    let stack = ServiceBuilder::new()
        .map_request(|mut request: Request| {
            request.extensions_mut().insert(Visitor("ann"));
            request
        })
        .service(events.nested());
    let nobody = events.clone().oneshot(axum::http::Request::get("/sse/room").body(String::new())?).await?;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    let router = Router::new()
        .nest_service("/live", stack)
        .nest_service("/browsers", browsers.nested())
        .route_service("/mqtt", devices.clone());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let ending = broker.clone();
    let (fronts, kept) = ((events, browsers, devices), broker.clone());
    let stopping = async move {
        _ = stopped.await;
        let (events, browsers, devices) = &fronts;
        fanwire::stop(&ending, [events as &dyn Front, browsers, devices], Duration::from_secs(1)).await;
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving =
        tokio::spawn(axum::serve(listener, service).with_graceful_shutdown(stopping).into_future());

    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /live/room HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).await?;
    assert_eq!(line.trim_end(), "HTTP/1.1 200 OK");
    let room = Filter::parse("room")?;
    let page = loop {
        let page = broker.presence(&room, None, 10).await;
        if !page.members.is_empty() {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(page.members[0].principal.user(), Some("ann"));
    assert_eq!(page.members[0].remote, Some(address.ip()));
    broker.publish(Publish::new(Channel::parse("room")?, "hello from outside"))?;
    while !line.contains("hello from outside") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).await?, 0, "the stream lives");
    }
    stop.send(()).map_err(|()| "it serves")?;
    serving.await??;
    lines.read_to_string(&mut line).await?;
    assert!(kept.is_closed());
    println!("outside: served and stopped");
    Ok(())
}
