//! Services for CometD clients: what is sent to `/service/...` is answered by this program and broadcast to nobody.
//!
//! ```sh
//! cargo run --example bayeux_service -- --http 127.0.0.1:8080 --mqtt 127.0.0.1:1883
//! ```
//! ```js
//! cometd.remoteCall("time", {}, (reply) => console.log(reply.successful, reply.data));      // at once
//! cometd.remoteCall("price", { item: "tea" }, 5000, (reply) => console.log(reply.data));   // after a while
//! cometd.remoteCall("price", { item: "air" }, (reply) => console.log(reply.successful));   // false
//! cometd.subscribe("/service/greet", (message) => console.log(message.data));              // on the same channel
//! cometd.publish("/service/greet", { name: "Ada" });
//! ```

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fanwire::bayeux::{Front, ServiceReply, ServiceRequest};
use fanwire::{Config, Server};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let address: SocketAddr = arguments.next().ok_or("an address must follow")?.parse()?;
        match name.as_str() {
            "--http" => config.http = Some(address),
            "--mqtt" => config.mqtt = Some(address),
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    // A handler that takes longer than this is answered for.
    config.bayeux.service_timeout = Duration::from_secs(2);
    let server = Server::bind(config).await?;
    register(server.fronts().get().ok_or("this build has no Bayeux")?);
    if let (Some(http), Some(mqtt)) = (server.http_address(), server.mqtt_address()) {
        println!("listening http={http} mqtt={mqtt}");
        std::io::stdout().flush()?;
    }
    server.run(async { _ = tokio::signal::ctrl_c().await }).await;
    Ok(())
}

fn register(bayeux: &Front) {
    // The target of a remote call is the channel below `/service/`.
    bayeux.on_service("/service/time", |_| async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        data(&json!({ "seconds": now }))
    });
    bayeux.on_service("/service/price", price);
    bayeux.on_service("/service/greet", |request: ServiceRequest| async move {
        match parsed(&request)["name"].as_str() {
            Some(name) => data(&json!({ "text": format!("hello {name}") })),
            // The publish itself fails.
            None => ServiceReply::Refused("400:name:name_missing".into()),
        }
    });
    bayeux.on_service("/service/stuck", |_| std::future::pending());
}

/// A question to somebody who takes a while; the client's other messages go on meanwhile.
async fn price(request: ServiceRequest) -> ServiceReply {
    tokio::time::sleep(Duration::from_millis(100)).await;
    match parsed(&request)["item"].as_str() {
        Some("tea") => data(&json!({ "item": "tea", "price": 3.5 })),
        _ => ServiceReply::Failed(Bytes::from_static(b"\"no such item\"")),
    }
}

fn parsed(request: &ServiceRequest) -> Value {
    serde_json::from_slice(&request.data).unwrap_or_default()
}

fn data(value: &Value) -> ServiceReply {
    ServiceReply::Data(value.to_string().into())
}
