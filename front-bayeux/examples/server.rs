//! A Bayeux server on one port, for trying clients: `cargo run -p fanwire-front-bayeux --example server -- 127.0.0.1:8090`.
//!
//! Everybody may do everything. Options follow the address as `name=value`: `timeout=MS`,
//! `interval=MS`, `maxInterval=MS`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Broker};
use front_bayeux::{Config, Front, ServiceReply};
use http_edge::{ServeConfig, serve};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let mut config = Config::default();
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("options are name=value")?;
        let time = Duration::from_millis(value.parse()?);
        match name {
            "timeout" => config.timing.timeout = time,
            "interval" => config.timing.interval = time,
            "maxInterval" => config.timing.max_interval = time,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let broker = Broker::new(broker_core::Config::default());
    let front = Front::new(broker, Arc::new(AllowAll), config);
    front.on_service("/service/echo", |request| async move { ServiceReply::Data(request.data) });

    let listener = TcpListener::bind(&address).await?;
    println!("http://{}/cometd", listener.local_addr()?);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    loop {
        let (stream, peer) = listener.accept().await?;
        let front = front.clone();
        let service = move |request| {
            let front = front.clone();
            async move { front.handle(request).await }
        };
        tokio::spawn(serve(stream, peer, service, ServeConfig::default(), stopped.clone()));
    }
}
