//! A service of one's own with a broker inside: axum routes, the fronts under paths of the service's choosing, and
//! messages published in process.
//!
//! Run: cargo run --example embed
//! See: curl -N http://127.0.0.1:3000/live/clock                          the time, every second
//!      curl -N 'http://127.0.0.1:3000/live?channel=orders/*'             orders, as they come
//!      curl -d '{"item":"tea"}' http://127.0.0.1:3000/orders             one of them, through the service's own route
//!      curl -d '"hello"' http://127.0.0.1:3000/api/publish/clock         a message through the HTTP front

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Router, body};
use fanwire::{Action, Anonymous, Broker, Channel, Filter, Principal, Publish, Rights, Rule};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::new(fanwire::core::Config::default());
    let application = routes(&broker)?;
    tokio::spawn(tell_the_time(broker.clone()));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening http={}", listener.local_addr()?);
    axum::serve(listener, application).await?;
    Ok(())
}

fn routes(broker: &Broker) -> Result<Router, Error> {
    // Orders come through our own route only: nobody publishes them directly.
    let rights = Rights::all().deny(Rule::new([Action::Publish], Filter::parse("orders/#")?));
    let everybody = Arc::new(Anonymous(Principal::anonymous(rights)));

    let mut sse = fanwire::sse::Config::default();
    sse.path = "/live".to_owned();
    let sse = fanwire::sse::Front::new(broker.clone(), everybody.clone(), sse);
    let mut api = fanwire::api::Config::default();
    api.path = "/api".to_owned();
    let api = fanwire::api::Front::new(broker.clone(), everybody.clone(), api);
    let bayeux = fanwire::bayeux::Front::new(broker.clone(), everybody.clone(), Default::default()).nested();
    let mqtt = fanwire::mqtt::Front::new(broker.clone(), everybody, Default::default()).nested();

    let events = any(async move |request: Request| answer(sse.handle(request).await));
    let browsers = any(async move |request: Request| answer(bayeux.handle(request).await));
    Ok(Router::new()
        .route("/", get(async || "orders are taken at /orders\n"))
        .route("/orders", post(take_order))
        .with_state(Orders { broker: broker.clone(), last: Arc::default() })
        .route("/live", events.clone())
        .route("/live/{*filter}", events)
        .route("/api/{*rest}", any(async move |request: Request| answer(api.handle(request).await)))
        .route("/browsers", browsers.clone())
        .route("/browsers/{*rest}", browsers)
        .route("/devices", any(async move |request: Request| answer(mqtt.handle(request).await))))
}

/// A front's answer as axum's.
fn answer(response: fanwire::edge::Response) -> Response {
    response.map(body::Body::new)
}

#[derive(Clone)]
struct Orders {
    broker: Broker,
    last: Arc<AtomicU64>,
}

/// One of the service's own routes: what it accepts, it tells the world.
async fn take_order(
    State(orders): State<Orders>,
    order: body::Bytes,
) -> Result<String, (StatusCode, String)> {
    let number = orders.last.fetch_add(1, Ordering::Relaxed) + 1;
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let channel = Channel::parse(&format!("orders/{number}")).map_err(|error| wrong(&error))?;
    let receipt =
        orders.broker.publish(Publish::new(channel, order).json()).map_err(|error| wrong(&error))?;
    Ok(format!("order {number} was seen by {}\n", receipt.receivers))
}

async fn tell_the_time(broker: Broker) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    while let Ok(channel) = Channel::parse("clock") {
        seconds.tick().await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // Busy is the only refusal here, and the next second tells the time better.
        let _ = broker.publish(Publish::new(channel, now.to_string()).retain(true));
    }
}
