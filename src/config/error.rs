//! What is wrong with a configuration, in one line.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server was not started. The text is one line and names the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or may not be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// Where and what.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map_or_else(String::new, |near| format!(", did you mean `{near}`?")))]
    Unknown {
        /// The file, the environment or the command line.
        origin: String,
        /// The key or variable as it was written.
        key: String,
        /// The known one most like it.
        nearest: Option<String>,
    },
    /// A front whose section has a name that another one has.
    #[error("two sections are called [{name}]: a front of yours needs one of another name")]
    SectionTaken {
        /// The name.
        name: &'static str,
    },
    /// A value that its key cannot have.
    #[error("{origin}: `{key}`: {message}")]
    Value {
        /// The file, the environment or the command line.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// An address that cannot be listened on.
    #[error("`{key}`: `{value}` is not an address such as 127.0.0.1:8080")]
    Address {
        /// The key.
        key: String,
        /// The address as it was written.
        value: String,
    },
    /// An address beyond loopback, and nobody said who may do what.
    #[error(
        "`{key}`: {address} is reachable from other machines and no rights are configured; configure keys, users, issuers or [anonymous], or say --allow-anonymous to let everybody do everything"
    )]
    Open {
        /// The key.
        key: String,
        /// The address.
        address: SocketAddr,
    },
}
