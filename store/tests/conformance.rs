//! What every engine must do, over the store.

use std::sync::{Arc, Mutex};

use broker_core::Engine;
use conformance::{Ground, MEMORY};
use store::{Durability, Namespace, Settings, Store};

/// Lives in one directory.
struct Directory {
    directory: tempfile::TempDir,
    store: Mutex<Option<Arc<Store>>>,
}

impl Ground for Directory {
    fn open(&self) -> Arc<dyn Engine> {
        let mut settings = Settings::new(self.directory.path());
        settings.namespaces = vec![Namespace::new(MEMORY, Durability::Memory)];
        settings.min_free_bytes = 0;
        let store = Arc::new(Store::open(settings).expect("it opens"));
        *self.store.lock().expect("no panic") = Some(Arc::clone(&store));
        store
    }

    fn end(&self, _: Arc<dyn Engine>) {
        if let Some(store) = self.store.lock().expect("no panic").take() {
            store.close();
        }
    }
}

fn directory() -> Directory {
    Directory { directory: tempfile::tempdir().expect("a directory"), store: Mutex::default() }
}

conformance::suite!(directory);
