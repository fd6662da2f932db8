//! The words of a request and its answer: what the head says, who asks, and bodies in both directions. It knows no
//! connection.

mod body;
mod coding;
mod connection_id;
mod cookies;
mod credentials;
mod error;
mod fields;
mod filled;
mod host;
mod mount;
mod origin;
mod peer;
mod pipe;
mod query;
mod read;
mod request_id;
mod tokens;
mod visitor;

pub use body::{Body, Response, pipe, pipe_from};
pub(crate) use coding::{ACCEPTED_CODINGS, Corrupt};
pub use coding::{Decoded, UnknownCoding};
pub use connection_id::{connection_id, parse_connection_id};
pub use cookies::cookies;
pub use credentials::{
    HttpCredentials, credentials, credentials_among, credentials_found, credentials_from, credentials_with,
};
pub use error::{BodyError, BoxError};
pub use fields::Fields;
pub(crate) use filled::Filled;
pub use host::HostPolicy;
pub use mount::{Paths, below};
pub use origin::{Cookies, LiveOrigins, OriginPolicy};
pub use peer::{ClientCertificate, Encrypted, Https, Peer};
pub(crate) use pipe::Behind;
pub use pipe::PipeIo;
pub use query::{BadEncoding, BadParameter, parameters, percent_decode};
pub use read::{DEFAULT_BODY_STALL, read_body, take_body};
pub use request_id::{X_REQUEST_ID, request_id, request_id_among};
pub use tokens::{TokenPlaces, TokenSources};
pub use visitor::{Visitor, user_agent};
