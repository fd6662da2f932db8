//! Who is let in by the servers of NATS, and how: users, tokens, TLS; and several servers as one.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::path::PathBuf;

use cluster::{Cluster, JoinError, Login, Settings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use self::support::{Nats, Node, next, settings, soon};

/// What is published on one node reaches the other, both ways.
async fn are_one(here: &Node, there: &Node) {
    for (from, to) in [(here, there), (there, here)] {
        let mut stream = to.subscribe("a").await;
        from.publish("a", "x");
        assert_eq!(next(&mut stream).await, "a x");
    }
}

async fn refusal(settings: Settings) -> String {
    match soon(Cluster::join(settings)).await {
        Ok(_) => panic!("it is let in"),
        Err(error @ JoinError::Refused(_)) => error.to_string(),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_is_a_user_with_a_password() {
    let Some(nats) = Nats::start(&["--user", "fan", "--pass", "secret"]) else { return };
    let with = |name: &str, user: &str, password: &str| {
        let mut settings = settings(&nats, name);
        settings.login = Login::User { user: user.to_owned(), password: password.to_owned() };
        settings
    };
    let nodes =
        [Node::with(with("n1", "fan", "secret")).await, Node::with(with("n2", "fan", "secret")).await];
    are_one(&nodes[0], &nodes[1]).await;
    for wrong in [settings(&nats, "n3"), with("n3", "fan", "other"), with("n3", "other", "secret")] {
        assert!(refusal(wrong).await.starts_with("the NATS server does not let this node in"));
    }
    let mut in_the_address = Settings::new(vec![nats.url().replace("nats://", "nats://fan:secret@")]);
    in_the_address.node = "n4".to_owned();
    are_one(&nodes[0], &Node::with(in_the_address).await).await;
}

#[tokio::test]
async fn a_node_has_a_token() {
    let Some(nats) = Nats::start(&["--auth", "secret"]) else { return };
    let with = |name: &str, token: &str| {
        let mut settings = settings(&nats, name);
        settings.login = Login::Token(token.to_owned());
        settings
    };
    are_one(&Node::with(with("n1", "secret")).await, &Node::with(with("n2", "secret")).await).await;
    let mut in_the_address = Settings::new(vec![nats.url().replace("nats://", "nats://secret@")]);
    in_the_address.node = "n4".to_owned();
    are_one(&Node::with(in_the_address).await, &Node::with(with("n5", "secret")).await).await;
    refusal(with("n3", "other")).await;
    refusal(settings(&nats, "n3")).await;
}

/// An authority, and what it has signed for `localhost`, as files.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files of a certificate and its key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

#[tokio::test]
async fn tls_is_spoken_with_servers_of_a_known_authority() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("server");
    let arguments = ["--tls", "--tlscert", certificate.to_str().unwrap(), "--tlskey", key.to_str().unwrap()];
    let Some(nats) = Nats::start(&arguments) else { return };
    let with = |name: &str| {
        let mut settings = settings(&nats, name);
        settings.tls.ca_file = Some(authority.file("ca.pem"));
        settings.tls.required = true;
        settings
    };
    are_one(&Node::with(with("n1")).await, &Node::with(with("n2")).await).await;
    let stranger = Authority::new();
    let mut wrong = with("n3");
    wrong.tls.ca_file = Some(stranger.file("ca.pem"));
    let error = soon(Cluster::join(wrong)).await.err();
    assert!(matches!(&error, Some(JoinError::Tls(why)) if why.contains("certificate")), "{error:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_one() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("server");
    let (ca, identity) = (authority.file("ca.pem"), authority.sign("node"));
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let [ca_path, certificate, key] = [path(&ca), path(&certificate), path(&key)];
    let words = ["--tlsverify", "--tlscert", &certificate, "--tlskey", &key, "--tlscacert", &ca_path];
    let Some(nats) = Nats::start(&words) else { return };
    let with = |name: &str| {
        let mut settings = settings(&nats, name);
        settings.tls.ca_file = Some(ca.clone());
        settings.tls.identity = Some(identity.clone());
        settings
    };
    are_one(&Node::with(with("n1")).await, &Node::with(with("n2")).await).await;
}

/// Three servers that know each other.
fn three() -> Option<Vec<Nats>> {
    let own = ["--cluster_name", "fan", "--cluster", "nats://127.0.0.1:-1"];
    let first = Nats::start(&own)?;
    let route = first.route();
    let further = || Nats::start(&[&own[..], &["--routes", &route]].concat());
    let (second, third) = (further()?, further()?);
    Some(vec![first, second, third])
}

#[tokio::test]
async fn nodes_on_different_servers_are_one_and_outlive_a_server() {
    let Some(mut servers) = three() else { return };
    let mut nodes = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        nodes.push(Node::start(server, &format!("n{number}")).await);
    }
    for node in &nodes {
        node.until(|stats| stats.nodes == 3).await;
    }
    // The other servers learn of a subscription some time after it was answered: said in docs/cluster.md.
    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(node.subscribe("chat").await);
    }
    until_all_hear_all(&nodes, &mut streams, "before").await;
    // Its node was given this one alone, and has learned of the others from it.
    servers[1].kill();
    nodes[1].until(|stats| stats.disconnects > 0 && stats.connected).await;
    until_all_hear_all(&nodes, &mut streams, "after").await;
}

/// Each node publishes until all have heard it, each message once and in order.
async fn until_all_hear_all(nodes: &[Node], streams: &mut [broker_core::Subscription], when: &str) {
    for (number, node) in nodes.iter().enumerate() {
        let probing = async {
            for count in 0.. {
                node.publish("chat", &format!("{when} {number} {count}"));
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let hearing = async {
            for stream in &mut *streams {
                while !next(stream).await.starts_with(&format!("chat {when} {number} ")) {}
            }
        };
        soon(async {
            tokio::select! {
                () = probing => {}
                () = hearing => {}
            }
        })
        .await;
    }
}
