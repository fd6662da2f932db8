//! What the fuzzers of `fuzz/` call. Their corpus runs as an ordinary test as well, so that what a fuzzer has
//! found once is looked at on every run.

mod decoder;
mod session;
mod watcher;

pub use decoder::decoder;
pub use session::session;

/// The fuzzer's bytes, taken from the front; zeros once they are used up.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        head
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{}", folder.display());
        for file in files {
            println!("{}", file.display());
            run(&std::fs::read(&file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_the_decoder_holds() {
        replay("mqtt_decoder", super::decoder);
    }

    #[test]
    fn the_corpus_of_the_session_holds() {
        replay("mqtt_session", super::session);
    }
}
