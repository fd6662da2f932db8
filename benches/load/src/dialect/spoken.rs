//! A protocol, plain or inside of TLS.

use std::fmt;
use std::str::FromStr;

use super::Dialect;

/// What stands before the name of a protocol, or of a target, that is spoken inside of TLS.
pub(crate) const TLS_PREFIX: &str = "tls+";

/// What lies under a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    Tls,
}

/// How a server under test is spoken to: `sse`, `tls+mqtt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) dialect: Dialect,
    pub(crate) security: Security,
}

impl Spoken {
    /// How publishers speak to a server that subscribers speak to so, where nothing else is said. The bare server's
    /// control connection and what has a port of its own are plain.
    pub(crate) fn publishing(self) -> Self {
        match self.dialect {
            Dialect::Floor | Dialect::Pushpin => Self { security: Security::Plain, ..self },
            _ => self,
        }
    }
}

impl From<Dialect> for Spoken {
    fn from(dialect: Dialect) -> Self {
        Self { dialect, security: Security::Plain }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.security == Security::Tls { TLS_PREFIX } else { "" };
        write!(f, "{prefix}{}", self.dialect)
    }
}

impl FromStr for Spoken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (security, dialect) = match text.strip_prefix(TLS_PREFIX) {
            Some(dialect) => (Security::Tls, dialect),
            None => (Security::Plain, text),
        };
        Ok(Self { dialect: dialect.parse()?, security })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whether_it_is_inside_of_tls_and_reads_back() {
        for (text, publishing) in [
            ("sse", "sse"),
            ("tls+mqtt5-qos1", "tls+mqtt5-qos1"),
            ("tls+floor", "floor"),
            ("tls+pushpin", "pushpin"),
        ] {
            let spoken: Spoken = text.parse().expect(text);
            assert_eq!(
                (spoken.to_string(), spoken.publishing().to_string()),
                (text.into(), publishing.into())
            );
        }
        assert!("tls+smtp".parse::<Spoken>().is_err());
        assert!("ssl+sse".parse::<Spoken>().is_err());
    }
}
