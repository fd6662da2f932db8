//! How a server under test is named on the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::dialect::{Dialect, Security, Spoken, TLS_PREFIX};

/// How a target comes to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    /// Words of a command; `{address}`, `{port}`, `{port2}`, `{port3}`, `{cert}` and `{key}` are filled in.
    Spawn(Vec<String>),
    /// It runs already.
    Attach { address: SocketAddr, pid: u32 },
}

/// One server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) spoken: Spoken,
    pub(crate) launch: Launch,
    /// Connections that may be opening at a time, where the server takes fewer than the run asks for.
    pub(crate) max_opening: Option<usize>,
}

/// Peers: first part of the name, script in `benches/peers/`. What follows in the name chooses among `dialects`.
const PEERS: [(&str, &str, &str); 8] = [
    ("mosquitto", "mosquitto.sh", "mqtt"),
    ("rumqttd", "rumqttd.sh", "mqtt"),
    ("nats", "nats.sh", "nats"),
    ("nchan", "nchan.sh", "nchan"),
    ("pushpin", "pushpin.sh", "pushpin"),
    ("faye-ws", "faye.sh", "bayeux-ws"),
    ("faye-lp", "faye.sh", "bayeux-lp"),
    ("cometd-node-lp", "cometd-node.sh", "bayeux-lp"),
];
/// Those whose scripts take a certificate and its key behind the other arguments.
const TLS_PEERS: [&str; 2] = ["mosquitto", "nchan"];
/// Pushpin cancels more requests ("received message out of sequence"), the more come at a time.
const PUSHPIN_OPENING: usize = 8;
/// Its backlog is short, and what does not fit is reset.
const RUMQTTD_OPENING: usize = 32;

impl Target {
    /// `NAME` or, with a certificate that is made for it, `tls+NAME`.
    fn preset(name: &str) -> Option<Self> {
        let Some(plain) = name.strip_prefix(TLS_PREFIX) else { return Self::plain_preset(name) };
        let mut target = Self::plain_preset(plain)?;
        let Launch::Spawn(command) = &mut target.launch else { return None };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        if plain == "floor" {
            command.extend(words(&["--cert", "{cert}", "--key", "{key}"]));
        } else if plain.starts_with("fanwire") {
            let set = ["env", "FANWIRE_TLS_CERT_FILE={cert}", "FANWIRE_TLS_KEY_FILE={key}"];
            command.splice(0..0, words(&set));
        } else if TLS_PEERS.iter().any(|peer| plain.starts_with(peer)) {
            command.extend(words(&["{cert}", "{key}"]));
        } else {
            return None;
        }
        target.spoken.security = Security::Tls;
        Some(Self { label: name.to_owned(), ..target })
    }

    fn plain_preset(name: &str) -> Option<Self> {
        let own = std::env::current_exe().ok();
        let beside =
            |file: &str| own.as_deref().and_then(Path::parent).map_or(file.into(), |path| path.join(file));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let fanwire =
            |words: [&str; 4]| [vec![text(beside("fanwire"))], words.map(str::to_owned).to_vec()].concat();
        let (dialect, command) = match name {
            "floor" => {
                (Dialect::Floor, vec![text(beside("fanwire-load")), "floor".into(), "{address}".into()])
            }
            "fanwire" => (Dialect::Sse, fanwire(["--http", "{address}", "--mqtt", "127.0.0.1:{port2}"])),
            // The same server before an origin that holds every stream, as Pushpin is.
            "fanwire-grip" => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/grip.sh");
                let command = [
                    "sh".to_owned(),
                    text(script),
                    "{address}".into(),
                    "127.0.0.1:{port2}".into(),
                    "127.0.0.1:{port3}".into(),
                    "tcp".into(),
                    text(beside("fanwire-load")),
                ];
                (Dialect::Pushpin, command.to_vec())
            }
            // The same server, subscribed to and published to by another protocol.
            _ if let Some(rest) = name.strip_prefix("fanwire-") => match rest.parse().ok()? {
                dialect @ Dialect::Mqtt(_) => {
                    (dialect, fanwire(["--mqtt", "{address}", "--http", "127.0.0.1:{port2}"]))
                }
                dialect @ (Dialect::MqttWebSocket(_)
                | Dialect::BayeuxWebSocket(_)
                | Dialect::BayeuxLongPolling(_)) => {
                    (dialect, fanwire(["--http", "{address}", "--mqtt", "127.0.0.1:{port2}"]))
                }
                _ => return None,
            },
            _ => {
                let (peer, script, dialect) = PEERS.into_iter().find(|(peer, ..)| name.starts_with(peer))?;
                // `mosquitto5-qos1` speaks `mqtt5-qos1`.
                let dialect: Dialect = format!("{dialect}{}", &name[peer.len()..]).parse().ok()?;
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers").join(script);
                let transport =
                    if matches!(dialect, Dialect::MqttWebSocket(_)) { "websocket" } else { "tcp" };
                let arguments = ["{address}", "127.0.0.1:{port2}", "127.0.0.1:{port3}", transport];
                let words = arguments.map(str::to_owned).to_vec();
                (
                    dialect,
                    [vec!["sh".to_owned(), text(script)], words, vec![text(beside("fanwire-load"))]].concat(),
                )
            }
        };
        let max_opening = match name {
            "pushpin" => Some(PUSHPIN_OPENING),
            _ if name.starts_with("rumqttd") => Some(RUMQTTD_OPENING),
            _ => None,
        };
        let spoken = dialect.into();
        Some(Self { label: name.to_owned(), spoken, launch: Launch::Spawn(command), max_opening })
    }
}

/// A server that is given fewer subscribers than the scenario asks for, as `LABEL=SUBSCRIBERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtMost {
    pub(crate) label: String,
    pub(crate) subscribers: usize,
}

impl FromStr for AtMost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(label, count)| Some((label, count.parse().ok()?)));
        let (label, subscribers) = parts.ok_or_else(|| format!("`{text}` is not LABEL=SUBSCRIBERS"))?;
        Ok(Self { label: label.to_owned(), subscribers })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(preset) = Self::preset(text) {
            return Ok(preset);
        }
        let (label, rest) = match text.split_once(':') {
            Some((label, rest)) if !label.contains(['=', '@']) => (Some(label), rest),
            _ => (None, text),
        };
        let (dialect, launch) = if let Some((dialect, command)) = rest.split_once('=') {
            (dialect, Launch::Spawn(command.split_ascii_whitespace().map(str::to_owned).collect()))
        } else if let Some((dialect, place)) = rest.split_once('@') {
            let (address, pid) = place
                .split_once('/')
                .and_then(|(address, pid)| Some((address.parse().ok()?, pid.parse().ok()?)))
                .ok_or_else(|| format!("`{place}` is not ADDRESS:PORT/PID"))?;
            (dialect, Launch::Attach { address, pid })
        } else {
            return Err(format!(
                "`{text}` is none of floor, fanwire, fanwire-DIALECT, {}, DIALECT=COMMAND, DIALECT@ADDRESS/PID, each perhaps \
                 with tls+ in front",
                PEERS.map(|(peer, ..)| peer).join(", ")
            ));
        };
        let label = label.unwrap_or(dialect).to_owned();
        Ok(Self { label, spoken: dialect.parse()?, launch, max_opening: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_presets_commands_or_running_processes() {
        let spawned: Target = "mine:sse=./server --listen {address}".parse().expect("a target");
        assert_eq!((spawned.label.as_str(), spawned.spoken), ("mine", Dialect::Sse.into()));
        assert_eq!(
            spawned.launch,
            Launch::Spawn(["./server", "--listen", "{address}"].map(str::to_owned).to_vec())
        );
        let running: Target = "nchan@127.0.0.1:8081/77".parse().expect("a target");
        let address = SocketAddr::from(([127, 0, 0, 1], 8081));
        assert_eq!((running.label.as_str(), running.launch), ("nchan", Launch::Attach { address, pid: 77 }));
        for (preset, dialect) in [
            ("floor", "floor"),
            ("fanwire", "sse"),
            ("fanwire-mqtt5-ws-qos1", "mqtt5-ws-qos1"),
            ("fanwire-bayeux-lp-ack", "bayeux-lp-ack"),
            ("mosquitto", "mqtt"),
            ("mosquitto5-qos1", "mqtt5-qos1"),
            ("rumqttd-ws", "mqtt-ws"),
            ("nchan", "nchan"),
            ("pushpin", "pushpin"),
            ("fanwire-grip", "pushpin"),
            ("nats", "nats"),
            ("faye-ws", "bayeux-ws"),
            ("faye-lp", "bayeux-lp"),
            ("cometd-node-lp", "bayeux-lp"),
            ("tls+floor", "tls+floor"),
            ("tls+fanwire-bayeux-ws", "tls+bayeux-ws"),
            ("tls+mosquitto-qos1", "tls+mqtt-qos1"),
            ("tls+nchan", "tls+nchan"),
        ] {
            let target = preset.parse::<Target>().expect(preset);
            assert_eq!((target.label.as_str(), target.spoken.to_string()), (preset, dialect.to_owned()));
        }
        let secured: Target = "tls+sse=./server {cert}".parse().expect("a target");
        assert_eq!((secured.label.as_str(), secured.spoken.security), ("tls+sse", Security::Tls));
        for wrong in
            ["", "what", "sse@nowhere", "smtp=server", "fanwire-nchan", "mosquitto6", "tls+nats", "tls+"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
