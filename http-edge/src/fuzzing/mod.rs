//! What the fuzzers of `fuzz/` call. Their corpus runs as an ordinary test as well, so that what a fuzzer has found
//! once is looked at on every run.

mod bodies;
mod head;

pub use bodies::bodies;
pub use head::head;

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{}", folder.display());
        for file in files {
            println!("{}", file.display());
            run(&std::fs::read(&file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_heads_holds() {
        replay("http_head", super::head);
    }

    #[test]
    fn the_corpus_of_bodies_holds() {
        replay("http_bodies", super::bodies);
    }
}
