//! A Rust service that runs the whole server in its own process and listens in without a socket.
//!
//! ```sh
//! cargo run --example embedded_subscriber -- --http 127.0.0.1:8080 --mqtt 127.0.0.1:1883
//! curl -d 'hello' http://127.0.0.1:8080/v1/publish/chat/all
//! ```
//! prints `embedded hello`. Clients of every protocol reach the same channel at the printed addresses.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;

use fanwire::{Config, Event, Filter, Server};

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

    let server = Server::bind(config).await?;
    let mut messages = server.broker().subscribe(Filter::parse("chat/all")?)?;
    if let (Some(http), Some(mqtt)) = (server.http_address(), server.mqtt_address()) {
        println!("listening http={http} mqtt={mqtt}");
    }
    let served = tokio::spawn(server.run(async {
        // Only an error would end the wait; then there is no signal to stop by.
        let _ = tokio::signal::ctrl_c().await;
    }));

    // A thread of its own: a slow terminal must not hold up the runtime.
    let printer = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let mut out = std::io::stdout().lock();
        while let Some(event) = runtime.block_on(messages.next()) {
            match event {
                Event::Message(message) => {
                    out.write_all(b"embedded ")?;
                    out.write_all(message.payload())?;
                    out.write_all(b"\n")?;
                }
                Event::Lagged(missed) => writeln!(out, "lagged {missed}")?,
                Event::Gap(gap) => writeln!(out, "gap {gap:?}")?,
                _ => {}
            }
        }
        out.flush()
    });
    served.await?;
    printer.await??;
    Ok(())
}
