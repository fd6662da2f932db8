//! How a server under test is named on the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::dialect::Dialect;

/// How a target comes to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    /// Words of a command; `{address}`, `{port}` and `{port2}` are filled in.
    Spawn(Vec<String>),
    /// It runs already.
    Attach { address: SocketAddr, pid: u32 },
}

/// One server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) dialect: Dialect,
    pub(crate) launch: Launch,
}

impl Target {
    fn preset(name: &str) -> Option<Self> {
        let own = std::env::current_exe().ok();
        let beside =
            |file: &str| own.as_deref().and_then(Path::parent).map_or(file.into(), |path| path.join(file));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (dialect, command) = match name {
            "floor" => {
                (Dialect::Floor, vec![text(beside("fanwire-load")), "floor".into(), "{address}".into()])
            }
            "fanwire" => {
                let words = ["--http", "{address}", "--mqtt", "127.0.0.1:{port2}"].map(str::to_owned);
                (Dialect::Sse, [vec![text(beside("fanwire"))], words.to_vec()].concat())
            }
            // The same server, subscribed to and published to by another protocol.
            "fanwire-mqtt" => {
                let words = ["--mqtt", "{address}", "--http", "127.0.0.1:{port2}"].map(str::to_owned);
                ("mqtt".parse().ok()?, [vec![text(beside("fanwire"))], words.to_vec()].concat())
            }
            "fanwire-mqtt-ws" | "fanwire-bayeux-ws" | "fanwire-bayeux-lp" => {
                let fanwire = Self::preset("fanwire")?;
                let dialect = name.strip_prefix("fanwire-")?.parse().ok()?;
                return Some(Self { label: name.to_owned(), dialect, ..fanwire });
            }
            "mosquitto" => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/mosquitto.sh");
                ("mqtt".parse().ok()?, vec!["sh".into(), text(script), "{address}".into()])
            }
            "nchan" => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/nchan.sh");
                (Dialect::Nchan, vec!["sh".into(), text(script), "{address}".into()])
            }
            _ => return None,
        };
        Some(Self { label: name.to_owned(), dialect, launch: Launch::Spawn(command) })
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
                "`{text}` is none of floor, fanwire, nchan, DIALECT=COMMAND, DIALECT@ADDRESS/PID"
            ));
        };
        Ok(Self { label: label.unwrap_or(dialect).to_owned(), dialect: dialect.parse()?, launch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_presets_commands_or_running_processes() {
        let spawned: Target = "mine:sse=./server --listen {address}".parse().expect("a target");
        assert_eq!((spawned.label.as_str(), spawned.dialect), ("mine", Dialect::Sse));
        assert_eq!(
            spawned.launch,
            Launch::Spawn(["./server", "--listen", "{address}"].map(str::to_owned).to_vec())
        );
        let running: Target = "nchan@127.0.0.1:8081/77".parse().expect("a target");
        let address = SocketAddr::from(([127, 0, 0, 1], 8081));
        assert_eq!((running.label.as_str(), running.launch), ("nchan", Launch::Attach { address, pid: 77 }));
        for preset in
            ["floor", "fanwire", "fanwire-mqtt", "fanwire-mqtt-ws", "fanwire-bayeux-ws", "mosquitto", "nchan"]
        {
            assert!(preset.parse::<Target>().is_ok_and(|target| target.label == preset), "{preset}");
        }
        for wrong in ["", "what", "sse@nowhere", "smtp=server"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
