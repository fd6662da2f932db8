//! Listeners: who is let in, what one address may take, what is spoken there, and what those are told who are not let
//! in.

mod accept;
mod addresses;
mod descriptors;
mod doors;
#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;
mod mode;
mod proxies;
mod reception;
mod refusals;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use self::accept::{Gate, listen};
pub use self::addresses::AddressLimits;
pub use self::descriptors::raise_limit as raise_descriptor_limit;
pub(crate) use self::descriptors::{open as open_descriptors, soft_limit as descriptor_limit};
pub(crate) use self::doors::{Doors, HttpDoor, Layer, StreamDoor};
pub use self::mode::{ListenerTls, TlsMode};
pub use self::proxies::{AddressRange, ForwardedHeader, NoRange, ProxyProtocol, TrustedProxies};
pub(crate) use self::reception::Reception;
pub(crate) use self::refusals::Refusals;
#[cfg(feature = "tls")]
pub use self::tls::{CertificateFiles, ClientAuth, ClientIdentity, Tls, TlsConfig, TlsError, TlsVersion};
