//! What every engine must do, over the store.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_core::Engine;
use conformance::{Ground, MEMORY};
use store::{Durability, Namespace, Settings, Store};

/// Lives in one directory, which a crash leaves as it is at that moment.
struct Directory {
    directory: Mutex<tempfile::TempDir>,
    store: Mutex<Option<Arc<Store>>>,
    /// How long the disk takes more than it does.
    delay: Duration,
}

impl Ground for Directory {
    fn open(&self) -> Arc<dyn Engine> {
        let mut settings = Settings::new(self.directory.lock().expect("no panic").path());
        settings.namespaces = vec![Namespace::new(MEMORY, Durability::Memory)];
        settings.min_free_bytes = 0;
        let delay = self.delay;
        let store = Store::open_on(settings, move || std::thread::sleep(delay));
        let store = Arc::new(store.expect("it opens"));
        *self.store.lock().expect("no panic") = Some(Arc::clone(&store));
        store
    }

    fn end(&self, _: Arc<dyn Engine>) {
        if let Some(store) = self.store.lock().expect("no panic").take() {
            store.close();
        }
    }

    fn crash(&self, engine: Arc<dyn Engine>) {
        let left = tempfile::tempdir().expect("a directory");
        copy(self.directory.lock().expect("no panic").path(), left.path());
        self.end(engine);
        *self.directory.lock().expect("no panic") = left;
    }
}

/// What is there of files that somebody still writes to.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            fs::create_dir(&to).expect("it is new");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("it can be read");
        }
    }
}

fn on(delay: Duration) -> Directory {
    let directory = Mutex::new(tempfile::tempdir().expect("a directory"));
    Directory { directory, store: Mutex::default(), delay }
}

mod on_this_disk {
    use super::*;

    conformance::suite!(|| on(Duration::ZERO));
}

mod on_a_slow_disk {
    use super::*;

    conformance::suite!(|| on(Duration::from_millis(2)));
}
