//! `[sse]`

use front::{Common, Outbox, Section};
use settings::{Setting as _, Size, Span};

use crate::config::Config;

settings::section!(
    /// `[sse]`: what of the front can be set in a configuration.
    pub Sse: Config {
        keep_alive: Span,
        outbox: Outbox,
        max_filters: usize,
        max_request_bytes: Size,
        max_streams: usize,
        max_pipe_bytes: Size,
        announce_position: bool,
    }
);

impl Section for Sse {
    type Config = Config;
    const NAME: &'static str = "sse";

    fn into_config(self, common: &Common) -> Config {
        Config {
            origins: common.origins.clone(),
            token_sources: common.token_sources.clone(),
            intake: common.intake.clone(),
            ..self.into_value()
        }
    }
}
