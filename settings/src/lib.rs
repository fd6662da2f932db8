//! How settings are written in a configuration, and what they are in the program.
//!
//! A configuration says `"10s"`, `"64 MiB"` or `"drop_oldest"`; the program wants a `Duration`, a `usize`, an enum.
//! Each written form is a type that serde reads and writes, and a [`Setting`] of the value it stands for. [`section!`]
//! makes the written form of a whole `Config`, [`choice!`] that of an enum.
//!
//! ```
//! use std::time::Duration;
//!
//! /// What the program works with.
//! #[derive(Default)]
//! struct Config {
//!     patience: Duration,
//!     max_line_bytes: usize,
//! }
//!
//! settings::section!(
//!     /// `[lines]`
//!     Lines: Config { patience: settings::Span, max_line_bytes: settings::Size }
//! );
//!
//! let written: Lines = serde_json::from_str(r#"{ "patience": "1m 30s", "max_line_bytes": "4 KiB" }"#).unwrap();
//! let mut config = Config::default();
//! written.apply(&mut config);
//! assert_eq!((config.patience.as_secs(), config.max_line_bytes), (90, 4096));
//!
//! let error = serde_json::from_str::<Lines>(r#"{ "patience": 3 }"#).err().unwrap();
//! assert!(error.to_string().starts_with("`3` needs a unit, such as \"3s\""));
//! ```
//!
//! It leaves to others: where a configuration comes from, in which format, and how its mistakes are told.

mod duration;
mod section;
mod setting;
mod size;
mod text;
mod web;

pub use duration::{Period, Span};
pub use setting::Setting;
pub use size::Size;
pub use text::Text;
pub use web::{AllowedOrigin, CookieName, HostName, Origin};
