//! Clients that show a certificate of their own.

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::served::Secured;
use crate::support::tls::{Asking, Authority, Identity};
use crate::support::within;

const RIGHTS: &str = "[client_certificates]
rights = [{ actions = [\"publish\", \"subscribe\"], channels = [\"devices/{user}/**\"] }]
";

async fn started(clients: &Authority, tls: &str, rest: &str) -> Secured {
    let tls = format!("client_ca_file = \"{}\"\n{tls}\n[mqtt]\ntls = \"required\"\n", clients.file());
    Secured::start(&format!("{tls}{rest}")).await
}

fn named(authority: &Authority, name: &str, san: &[&str]) -> Identity {
    authority.issue_with(san, |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    })
}

/// The status of a publish by HTTP.
async fn publish(it: &Secured, asking: Asking<'_>, path: &str) -> std::io::Result<String> {
    let mut stream = it.authority.connect(it.server.https.expect("TLS is spoken"), asking).await?;
    let head = "host: localhost\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 1";
    stream.write_all(format!("POST /v1/publish/{path} HTTP/1.1\r\n{head}\r\n\r\nx").as_bytes()).await?;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// The code of CONNACK, and that of SUBACK for a filter.
async fn subscribe(
    it: &Secured,
    identity: Option<&Identity>,
    filter: &str,
) -> std::io::Result<(u8, Option<u8>)> {
    let to = it.server.mqtts.expect("TLS is spoken");
    let mut stream = it.authority.connect(to, Asking { identity, ..Asking::default() }).await?;
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c").await?;
    let mut connack = [0; 4];
    within(stream.read_exact(&mut connack)).await?;
    if connack[3] != 0 {
        return Ok((connack[3], None));
    }
    let length = u8::try_from(filter.len()).expect("short");
    let mut packet = vec![0x82, length + 5, 0, 1, 0, length];
    packet.extend_from_slice(filter.as_bytes());
    packet.push(0);
    stream.write_all(&packet).await?;
    let mut suback = [0; 5];
    within(stream.read_exact(&mut suback)).await?;
    Ok((0, Some(suback[4])))
}

#[tokio::test]
async fn a_certificate_names_its_holder_to_http_and_mqtt() {
    let clients = Authority::new();
    let it = started(&clients, "", RIGHTS).await;
    let (one, other) = (named(&clients, "one", &[]), named(&clients, "other", &[]));
    for version in [&TLS12, &TLS13] {
        for (identity, status) in [(Some(&one), "200"), (Some(&other), "403"), (None, "401")] {
            let asking = Asking { identity, version, ..Asking::default() };
            assert_eq!(publish(&it, asking, "devices/one/a").await.expect("answered"), status);
        }
    }
    assert_eq!(subscribe(&it, Some(&one), "devices/one/a").await.expect("answered"), (0, Some(0)));
    assert_eq!(subscribe(&it, Some(&one), "devices/other/a").await.expect("answered"), (0, Some(0x80)));
    assert_eq!(subscribe(&it, None, "devices/one/a").await.expect("answered").0, 5);
    // Of an authority that nobody trusts here.
    let stranger = named(&Authority::new(), "one", &[]);
    let asking = Asking { identity: Some(&stranger), ..Asking::default() };
    assert!(publish(&it, asking, "devices/one/a").await.is_err());
}

#[tokio::test]
async fn a_certificate_can_be_required_be_read_by_another_name_and_stand_for_a_user() {
    let clients = Authority::new();
    let password = "password_hash = \"$argon2id$v=19$m=16,t=2,p=1$MTIzNDU2Nzg$1H3bUOXCTPKvdTcJTCmlMg\"";
    let users = format!(
        "{RIGHTS}users = true\n[[users]]\nname = \"a.example\"\n{password}\n\
         rights = [{{ actions = [\"publish\"], channels = [\"of/users\"] }}]\n"
    );
    let tls = "client_auth = \"required\"\nclient_identity = \"dns\"";
    let it = started(&clients, tls, &users).await;
    assert!(publish(&it, Asking::default(), "of/users").await.is_err());
    assert!(subscribe(&it, None, "of/users").await.is_err());
    let user = named(&clients, "ignored", &["a.example", "b.example"]);
    let device = named(&clients, "ignored", &["b.example"]);
    let status = async |identity, path| {
        publish(&it, Asking { identity: Some(identity), ..Asking::default() }, path).await.expect("answered")
    };
    assert_eq!(status(&user, "of/users").await, "200");
    assert_eq!(status(&user, "devices/a.example/x").await, "403");
    assert_eq!(status(&device, "of/users").await, "403");
    assert_eq!(status(&device, "devices/b.example/x").await, "200");
}
