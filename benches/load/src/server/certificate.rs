//! The certificate that servers under test get.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// An ECDSA certificate for `localhost` and 127.0.0.1, signed by itself, as files that go with it.
pub(super) struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    /// # Errors
    /// When nothing can be written below the folder for temporary files.
    pub(super) fn make() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fanwire-load-").tempdir()?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).map_err(io::Error::other)?;
        let this = Self { folder };
        std::fs::write(this.file(), cert.pem())?;
        std::fs::write(this.key_file(), signing_key.serialize_pem())?;
        Ok(this)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Fills `{cert}` and `{key}` in.
    pub(super) fn fill(&self, word: &str) -> String {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        word.replace("{cert}", &text(&self.file())).replace("{key}", &text(&self.key_file()))
    }

    /// Whether one is needed for this command.
    pub(super) fn is_asked_for(command: &[String]) -> bool {
        command.iter().any(|word| word.contains("{cert}") || word.contains("{key}"))
    }
}
