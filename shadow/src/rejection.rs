//! Why a request is refused, in AWS' words.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::text::write_text;

/// Why nothing was done. `code` is an HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Rejection {
    /// 400, 404, 409, 413 or 429.
    pub code: u16,
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// What the request called itself, if that could be read.
    pub client_token: Option<String>,
}

impl Rejection {
    pub(crate) fn new(code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), client_token: None }
    }

    pub(crate) fn of(self, client_token: Option<&str>) -> Self {
        Self { client_token: client_token.map(str::to_owned), ..self }
    }

    /// As whoever asked by MQTT is told. `now` is in seconds since 1970.
    pub fn to_json(&self, now: u64) -> String {
        let mut out = format!("{{\"code\":{},\"message\":", self.code);
        write_text(&self.message, &mut out);
        let _ = write!(out, ",\"timestamp\":{now}");
        if let Some(token) = &self.client_token {
            out.push_str(",\"clientToken\":");
            write_text(token, &mut out);
        }
        out.push('}');
        out
    }
}
