//! Who is let in by the servers of NATS, and how: users, tokens, TLS; and several servers as one.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// What NATS calls an operator, an account and a user, each a token that the one before it has signed.
struct Decentralized {
    folder: TempDir,
    account: nkeys::KeyPair,
}

impl Decentralized {
    /// With the configuration of a server that trusts the operator.
    fn new() -> (Self, PathBuf) {
        let (operator, account) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
        let of_operator = token(&operator, &operator, r#"{"type":"operator","version":2}"#);
        let limits = r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}"#;
        let nats = format!(r#"{{"type":"account","version":2,"limits":{limits}}}"#);
        let of_account = token(&operator, &account, &nats);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        let preload = format!("resolver_preload: {{ {}: {of_account} }}", account.public_key());
        std::fs::write(&file, format!("operator: {of_operator}\nresolver: MEMORY\n{preload}\n")).unwrap();
        (Self { folder, account }, file)
    }

    /// A user's credentials file; signed by another account than the server knows if it is a stranger.
    fn credentials(&self, name: &str, account: &nkeys::KeyPair) -> PathBuf {
        let user = nkeys::KeyPair::new_user();
        let rights = r#"{"type":"user","version":2,"subs":-1,"data":-1,"payload":-1,"pub":{"allow":["fw.>"]},"sub":{"allow":["fw.>"]}}"#;
        let token = token(account, &user, rights);
        let seed = user.seed().unwrap();
        let begin = |what: &str| format!("-----BEGIN {what}-----");
        let end = |what: &str| format!("------END {what}------");
        let (jwt, key) = ("NATS USER JWT", "USER NKEY SEED");
        let lines = [begin(jwt), token, end(jwt), String::new(), begin(key), seed, end(key), String::new()];
        let file = self.folder.path().join(name);
        std::fs::write(&file, lines.join("\n")).unwrap();
        file
    }
}

/// What `issuer` says of `subject`, signed.
fn token(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, nats: &str) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (by, of) = (issuer.public_key(), subject.public_key());
    let claims = format!(r#"{{"jti":"1","iat":1,"iss":"{by}","name":"fan","sub":"{of}","nats":{nats}}}"#);
    let head = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", encode(claims.as_bytes()));
    format!("{signed}.{}", encode(&issuer.sign(signed.as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_node_has_a_credentials_file() {
    let (authority, file) = Decentralized::new();
    let Some(nats) = Nats::start(&["-c", file.to_str().unwrap()]) else { return };
    let with = |name: &str, file: PathBuf| {
        let mut settings = settings(&nats, name);
        settings.login = Login::Credentials(file);
        settings
    };
    let of = |name: &str| with(name, authority.credentials(name, &authority.account));
    are_one(&Node::with(of("n1")).await, &Node::with(of("n2")).await).await;
    refusal(settings(&nats, "n3")).await;
    refusal(with("n4", authority.credentials("n4", &nkeys::KeyPair::new_account()))).await;
    let nowhere = soon(Cluster::join(with("n5", authority.folder.path().join("none.creds")))).await.err();
    assert!(matches!(&nowhere, Some(JoinError::Credentials { .. })), "{nowhere:?}");
    let unreadable = soon(Cluster::join(with("n6", file.clone()))).await.err();
    assert!(matches!(&unreadable, Some(JoinError::Credentials { .. })), "{unreadable:?}");
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
