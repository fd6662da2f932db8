//! `[store]`, and what a namespace says of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use settings::{Period, Size, Text};
use store::{Durability, Namespace as Kept, Retention, Settings};

use super::broker::Namespace;

/// `[store]`: messages on the disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Store {
    directory: Option<PathBuf>,
    durability: Option<Text<Durability>>,
    max_age: Period,
    max_bytes: Size,
    min_free_bytes: Size,
    idempotency_window: Period,
}

/// `store` of a namespace: bounds of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Bounds {
    max_age: Option<Period>,
    max_bytes: Option<Size>,
    max_messages: Option<u64>,
}

impl Bounds {
    /// What is not said is as for all others.
    fn retention(&self, of_all: Retention) -> Retention {
        let mut retention = of_all;
        retention.max_age = self.max_age.as_ref().map_or(of_all.max_age, |age| age.0);
        retention.max_bytes = self.max_bytes.as_ref().map_or(of_all.max_bytes, |size| size.0 as u64);
        retention.max_messages = self.max_messages.unwrap_or(of_all.max_messages);
        retention
    }
}

impl Default for Store {
    fn default() -> Self {
        let Settings { retention, min_free_bytes, idempotency_window, .. } = Settings::new("");
        Store {
            directory: None,
            durability: None,
            max_age: Period(retention.max_age),
            max_bytes: Size(usize::try_from(retention.max_bytes).unwrap_or(usize::MAX)),
            min_free_bytes: Size(usize::try_from(min_free_bytes).unwrap_or(usize::MAX)),
            idempotency_window: Period(idempotency_window),
        }
    }
}

impl Store {
    /// The store that is asked for, if one is; `data` wins over what is written, which is from `folder`.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn settings(
        &self,
        data: Option<PathBuf>,
        folder: &Path,
        namespaces: &[Namespace],
        in_cluster: bool,
    ) -> Result<Option<Settings>, (String, &'static str)> {
        let Some(directory) =
            data.or_else(|| self.directory.as_ref().map(|directory| folder.join(directory)))
        else {
            // Beside a cluster they are NATS'.
            let namespaces: &[Namespace] = if in_cluster { &[] } else { namespaces };
            return self.check_unused(namespaces).map(|()| None);
        };
        let mut settings = Settings::new(directory);
        settings.retention.max_age = self.max_age.0;
        settings.retention.max_bytes = self.max_bytes.0 as u64;
        settings.min_free_bytes = self.min_free_bytes.0 as u64;
        settings.idempotency_window = self.idempotency_window.0;
        if let Some(durability) = &self.durability {
            settings.durability = durability.0;
        }
        for space in namespaces {
            let durability = space.durability.as_ref().map_or(settings.durability, |durability| durability.0);
            let mut kept = Kept::new(space.name.clone(), durability);
            kept.retention = space.store.as_ref().map(|bounds| bounds.retention(settings.retention));
            settings.namespaces.push(kept);
        }
        Ok(Some(settings))
    }

    /// Without a store nothing may say that it keeps something.
    fn check_unused(&self, namespaces: &[Namespace]) -> Result<(), (String, &'static str)> {
        const NEEDS: &str = "needs a store: `store.directory`, or --data";
        let keeps = |durability: &Option<Text<Durability>>| {
            durability.as_ref().is_some_and(|durability| durability.0 != Durability::Memory)
        };
        if keeps(&self.durability) {
            return Err(("store.durability".to_owned(), NEEDS));
        }
        for (at, space) in namespaces.iter().enumerate() {
            if keeps(&space.durability) {
                return Err((format!("namespaces[{at}].durability"), NEEDS));
            }
            if space.store.is_some() {
                return Err((format!("namespaces[{at}].store"), NEEDS));
            }
        }
        Ok(())
    }
}
