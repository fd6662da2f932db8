use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::proxy::Proxy;
use crate::support::{TestServer, within};

#[tokio::test]
async fn a_stream_cut_at_random_bytes_resumes_with_every_message_once_in_order() {
    const MESSAGES: usize = 1000;
    let server = TestServer::start().await;
    // A request is short: what lies beyond it would never be reached.
    let proxy = Proxy::start(server.http, 20, 40..3000, 1..41, 10).await;
    let mut last = server.publish("a", "start").id.expect("recorded").to_string();
    let broker = server.broker.clone();
    let publisher = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let channel = fanwire::Channel::parse("a").expect("a legal channel");
            broker.publish(fanwire::Publish::new(channel, format!("{n} {}", "x".repeat(80)))).expect("taken");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    let mut expected = 0;
    while expected < MESSAGES {
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let request = format!("GET /sse/a HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {last}\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_err() {
            continue;
        }
        let mut input = BufReader::new(stream);
        let (mut id, mut data) = (String::new(), None);
        while expected < MESSAGES {
            let mut line = String::new();
            let read = within(input.read_line(&mut line)).await;
            // What was cut in the middle of a line, or before its empty line, is not an event.
            let Some(line) = read.ok().and_then(|_| line.strip_suffix('\n')) else { break };
            assert_ne!(line, "event: gap", "nothing is out of the log");
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut id),
                "data" => data = Some(value.to_owned()),
                "" if line.is_empty() => {
                    if let Some(data) = data.take() {
                        let n = data.split(' ').next().unwrap_or_default();
                        assert_eq!(n, expected.to_string(), "after {last}, {} cuts", proxy.cuts());
                        expected += 1;
                        last.clone_from(&id);
                    }
                }
                _ => {}
            }
        }
    }
    publisher.await.expect("it publishes");
    assert_eq!(proxy.cuts(), 20);
}
