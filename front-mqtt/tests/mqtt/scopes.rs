//! Whose session a client identifier names where users can be told apart, and how many sessions one may leave behind.

use std::sync::Arc;

use broker_core::{Authenticated, Authenticator, Broker, Credentials, Principal, Rights};
use front_mqtt::{ClientIdScope, Config, Exchange, Front, Mechanism, Step, Stepping};

use crate::client::*;
use crate::support::Server;

/// Believes every user name.
struct ByName;

impl Authenticator for ByName {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::now(Ok(match credentials.user {
            Some(user) => Principal::user_with(user, Rights::all()),
            None => Principal::anonymous(Rights::all()),
        }))
    }
}

async fn server(config: Config) -> Server {
    Server::with_rights(config, Arc::new(ByName)).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    Clean,
    /// Clean, and kept afterwards; version 3 has no words for it.
    Fresh,
    Kept,
}

/// CONNECT; no user is nobody in particular.
fn connect_as(level: u8, user: Option<&str>, id: &str, session: Session) -> Vec<u8> {
    let clean = if session == Session::Kept { 0 } else { 2 };
    let flags = clean | if user.is_some() { 0x80 } else { 0 };
    let properties: &[u8] = match (level, session) {
        (5, Session::Clean) => &[0],
        (5, _) => &[5, 0x11, 0, 0, 1, 0],
        _ => &[],
    };
    let user = user.map(string).unwrap_or_default();
    packet(0x10, &[&string("MQTT"), &[level, flags, 0, 0], properties, &string(id), &user])
}

/// The code of the CONNACK to it.
async fn code(server: &Server, connect: &[u8]) -> u8 {
    let mut client = Client::open(server.address).await;
    client.send(connect).await;
    client.read().await.body[1]
}

async fn expect_alive(client: &mut Client) {
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
}

/// Waits until so many sessions have nobody connected.
async fn wait_for_absent(server: &Server, count: usize) {
    for _ in 0..500 {
        let stats = server.front.stats();
        let connections = server.broker.connections(None, 1000);
        let absent = connections.iter().filter(|(_, one)| one.peer().is_none()).count();
        if absent == count && stats.connections + count == stats.sessions {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{count} sessions should be without their clients: {:?}", server.front.stats());
}

#[tokio::test]
async fn a_client_identifier_is_each_users_own() {
    let server = server(Config::default()).await;
    for level in [4, 5] {
        let mut clients = Vec::new();
        for user in [Some("ann"), Some("bob"), None] {
            clients.push(
                Client::connected_with(server.address, &connect_as(level, user, "c", Session::Clean)).await.0,
            );
        }
        for client in &mut clients {
            expect_alive(client).await;
        }
        let named = server.broker.connections(None, 10);
        assert_eq!(named.len(), 3);
        assert!(named.iter().all(|(_, one)| one.details().client_id.as_deref() == Some("c")));
        // Each takes its own over and nobody else's.
        let (mut again, _) =
            Client::connected_with(server.address, &connect_as(level, Some("bob"), "c", Session::Clean))
                .await;
        if level == 5 {
            clients[1].expect(&[0xE0, 1, 0x8E]).await;
        }
        clients[1].expect_closed().await;
        for client in [&mut again, &mut clients[0]] {
            expect_alive(client).await;
        }
        expect_alive(&mut clients[2]).await;
        drop((again, clients));
        for _ in 0..500 {
            if server.front.stats().sessions == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_its_user_alone() {
    let server = server(Config::default()).await;
    let kept = |user| connect_as(4, user, "c", Session::Kept);
    let (mut ann, _) = Client::connected_with(server.address, &kept(Some("ann"))).await;
    ann.subscribe(4, &[("t", 1)]).await;
    ann.send(DISCONNECT).await;
    ann.expect_closed().await;
    let mut other = Client::connected(server.address, 4, "other").await;
    other.send(&publish(4, 2, "t", 1, b"for ann")).await;
    other.expect(&ack(0x40, 1)).await;
    for user in [Some("bob"), None] {
        let (mut client, present) = Client::connected_with(server.address, &kept(user)).await;
        assert!(!present, "{user:?}");
        client.expect_quiet().await;
    }
    let (mut ann, present) = Client::connected_with(server.address, &kept(Some("ann"))).await;
    assert!(present);
    assert_eq!(ann.read_publish().await.3, b"for ann");
}

#[tokio::test]
async fn an_exclusive_identifier_stays_whose_it_is() {
    let mut config = Config::default();
    config.client_id_scope = ClientIdScope::Exclusive;
    let server = server(config).await;
    for level in [4, 5] {
        let as_user = |user| connect_as(level, user, "c", Session::Clean);
        let (mut ann, _) = Client::connected_with(server.address, &as_user(Some("ann"))).await;
        for user in [Some("bob"), None] {
            let refused = if level == 5 { 0x85 } else { 2 };
            assert_eq!(code(&server, &as_user(user)).await, refused, "{user:?}");
            expect_alive(&mut ann).await;
        }
        let (mut again, _) = Client::connected_with(server.address, &as_user(Some("ann"))).await;
        expect_alive(&mut again).await;
        again.send(DISCONNECT).await;
        again.expect_closed().await;
        let (mut bob, _) = Client::connected_with(server.address, &as_user(Some("bob"))).await;
        bob.send(DISCONNECT).await;
        bob.expect_closed().await;
    }
    assert_eq!(server.front.stats().sessions_refused, 4);
}

#[tokio::test]
async fn a_shared_identifier_goes_to_whoever_comes_last() {
    let mut config = Config::default();
    config.client_id_scope = ClientIdScope::Shared;
    let server = server(config).await;
    let as_user = |user| connect_as(5, user, "c", Session::Clean);
    let (mut ann, _) = Client::connected_with(server.address, &as_user(Some("ann"))).await;
    let (mut bob, _) = Client::connected_with(server.address, &as_user(Some("bob"))).await;
    ann.expect(&[0xE0, 1, 0x8E]).await;
    expect_alive(&mut bob).await;
    assert_eq!(server.front.stats().sessions, 1);
}

/// Lets anybody in under the name that is said.
struct Names;

struct SayIt;

impl Mechanism for Names {
    fn name(&self) -> &str {
        "NAME"
    }

    fn begin(&self, _: &str) -> Box<dyn Exchange> {
        Box::new(SayIt)
    }
}

impl Exchange for SayIt {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> Stepping<'a> {
        let name = String::from_utf8_lossy(data).into_owned();
        Box::pin(async move {
            Step::Done { principal: Principal::user_with(&name, Rights::all()), data: Vec::new() }
        })
    }
}

#[tokio::test]
async fn a_session_does_not_pass_to_another_user_by_authenticating_again() {
    let broker = Broker::new(broker_core::Config::default());
    let front = Front::new(broker, Arc::new(ByName), Config::default()).with_mechanism(Arc::new(Names));
    let server = Server::around(front).await;
    let said = |name: &str| [&[0x15][..], &string("NAME"), &[0x16], &string(name)].concat();
    let again = |name: &str| {
        let properties = said(name);
        packet(0xF0, &[&[0x19, properties.len() as u8], &properties])
    };
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", true, 0, &said("ann"))).await;
    client.send(&again("ann")).await;
    let auth = client.read().await;
    assert_eq!((auth.first, auth.body[0]), (0xF0, 0));
    client.send(&again("bob")).await;
    let disconnect = client.read().await;
    assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x87));
    client.expect_closed().await;
}

/// Leaves a session behind.
async fn leave(server: &Server, connect: &[u8]) {
    let (mut client, _) = Client::connected_with(server.address, connect).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn so_many_sessions_may_one_address_leave_behind() {
    let mut config = Config::default();
    config.max_absent_sessions_per_address = 3;
    let server = server(config).await;
    let kept = |level, id: &str| connect_as(level, None, id, Session::Kept);
    for (level, id) in [(4, "a"), (5, "b"), (4, "c")] {
        leave(&server, &kept(level, id)).await;
    }
    wait_for_absent(&server, 3).await;
    for (level, refused) in [(4, 3), (5, 0x97)] {
        assert_eq!(code(&server, &kept(level, "one too many")).await, refused);
    }
    assert_eq!(server.front.stats().sessions_refused, 2);
    // Whoever leaves nothing behind, or has left it already, is let in.
    leave(&server, &connect_as(4, None, "clean", Session::Clean)).await;
    leave(&server, &connect_as(5, None, "clean", Session::Clean)).await;
    let (mut back, present) = Client::connected_with(server.address, &kept(4, "a")).await;
    assert!(present);
    // While it is there, another one may come for the place.
    leave(&server, &kept(4, "d")).await;
    wait_for_absent(&server, 3).await;
    expect_alive(&mut back).await;
    assert_eq!(code(&server, &kept(4, "e")).await, 3);
    // A new session in place of one's own old one takes no other place.
    assert_eq!(code(&server, &connect_as(5, None, "b", Session::Fresh)).await, 0);
    // Nor do those of users count, whatever the address.
    leave(&server, &connect_as(4, Some("ann"), "a", Session::Kept)).await;
}

#[tokio::test]
async fn so_many_sessions_may_one_user_leave_behind() {
    let mut config = Config::default();
    config.max_absent_sessions_per_user = 2;
    config.max_absent_sessions_per_address = 0;
    let server = server(config).await;
    let kept = |user, id: &str| connect_as(5, Some(user), id, Session::Kept);
    for id in ["a", "b"] {
        leave(&server, &kept("ann", id)).await;
    }
    wait_for_absent(&server, 2).await;
    assert_eq!(code(&server, &kept("ann", "c")).await, 0x97);
    assert_eq!(code(&server, &kept("bob", "c")).await, 0, "behind the same address");
}

#[tokio::test]
async fn a_session_whose_time_is_over_gives_its_place_back() {
    let mut config = Config::default();
    config.max_absent_sessions_per_address = 1;
    let server = server(config).await;
    let for_a_second = |id: &str| connect(5, id, false, 0, &[0x11, 0, 0, 0, 1]);
    leave(&server, &for_a_second("a")).await;
    wait_for_absent(&server, 1).await;
    assert_eq!(code(&server, &for_a_second("b")).await, 0x97);
    wait_for_absent(&server, 0).await;
    assert_eq!(server.front.stats().sessions_expired, 1);
    assert_eq!(code(&server, &for_a_second("b")).await, 0);
}
