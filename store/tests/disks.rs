//! Disks that are full, read only, gone and frozen. Only root can make them: elsewhere each says that it was skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Broker, Channel, Config, Filter, HistoryQuery, LogConfig, NamespaceConfig, Publish, PublishError,
};
use store::{Durability, Namespace, OpenError, Settings, State, Store, check};

/// A file system of its own, unmounted when it is dropped.
struct Disk {
    folder: tempfile::TempDir,
    at: PathBuf,
}

fn run(command: &str, arguments: &[&str]) -> bool {
    Command::new(command).args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// In memory, of a size; `None`, and a line that says so, where it cannot be had.
    fn in_memory(size: &str) -> Option<Self> {
        Self::mounted(|_, at| run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at]))
    }

    /// ext4 in a file.
    fn ext4() -> Option<Self> {
        Self::mounted(|folder, at| {
            let image = folder.join("image");
            let made = fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).is_ok();
            let image = image.to_str().expect("a name");
            made && run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0", image])
                && run("mount", &["-o", "loop,errors=remount-ro", image, at])
        })
    }

    fn mounted(mount: impl FnOnce(&Path, &str) -> bool) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a directory");
        let at = folder.path().join("disk");
        fs::create_dir(&at).expect("a directory");
        if !mount(folder.path(), at.to_str().expect("a name")) {
            eprintln!("skipped: only root can mount a file system");
            return None;
        }
        Some(Self { folder, at })
    }

    fn path(&self) -> &str {
        self.at.to_str().expect("a name")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for _ in 0..50 {
            if run("umount", &[self.path()]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{} is mounted still in {}", self.path(), self.folder.path().display());
    }
}

struct Life {
    broker: Broker,
    store: Arc<Store>,
}

impl Life {
    fn begin(disk: &Disk, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(disk.at.join("store"));
        settings.namespaces = vec![Namespace::new("memory", Durability::Memory)];
        settings.min_free_bytes = 0;
        settings.reopen_after = Duration::from_millis(100);
        change(&mut settings);
        let store = Arc::new(Store::open(settings).expect("it opens"));
        let mut config = Config::default();
        config.namespaces = vec![NamespaceConfig::new("memory", LogConfig::default())];
        Self { broker: Broker::with_engine(config, Arc::clone(&store) as _), store }
    }

    /// What nothing can be made of smaller.
    async fn publish(&self, n: u64, bytes: usize) -> Result<(), PublishError> {
        let mut random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        })
        .take(bytes)
        .collect();
        let publish = Publish::new(Channel::parse("orders").expect("a name"), payload);
        soon(self.broker.publish_wait(publish)).await.map(drop)
    }

    /// How many are there.
    async fn count(&self) -> usize {
        let mut query = HistoryQuery::default();
        query.limit = 1_000_000;
        let filter = Filter::parse("orders").expect("a filter");
        soon(self.broker.read_history(&filter, query)).await.expect("it can be read").messages.len()
    }

    async fn becomes(&self, wanted: impl Fn(&State) -> bool) {
        soon(async {
            while !wanted(&self.store.state()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    fn memory_goes_on(&self) {
        let publish = Publish::new(Channel::parse("memory/a").expect("a name"), "x");
        assert!(self.broker.publish(publish).is_ok());
    }

    async fn end(self) {
        soon(self.broker.drained()).await;
        self.broker.close();
        self.store.close();
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}

fn is_refused(result: &Result<(), PublishError>) -> bool {
    matches!(result, Err(PublishError::Unavailable { what: "store", .. } | PublishError::Unknown))
}

fn is_ready(state: &State) -> bool {
    *state == State::Ready
}

fn is_refusing(state: &State) -> bool {
    matches!(state, State::Refusing(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_is_written_again_when_there_is_room() {
    let Some(disk) = Disk::in_memory("48m") else { return };
    let ballast = disk.at.join("ballast");
    fs::write(&ballast, vec![7; 24 << 20]).expect("room");
    let life = Life::begin(&disk, |_| {});
    let (mut acknowledged, mut refusals) = (0, 0);
    // What a failed write had begun is cut when it is opened again, so that a little more may go in.
    while refusals < 3 {
        match life.publish(acknowledged, 64 << 10).await {
            Ok(()) => acknowledged += 1,
            refused => {
                assert!(is_refused(&refused), "{refused:?}");
                refusals += 1;
                life.memory_goes_on();
                tokio::time::sleep(Duration::from_millis(1_200)).await;
            }
        }
        assert!(acknowledged < 1_000, "it is full at last");
    }
    assert!(acknowledged > 50, "{acknowledged}");
    fs::remove_file(&ballast).expect("it is there");
    life.becomes(is_ready).await;
    life.publish(acknowledged, 64 << 10).await.expect("there is room");
    // What nobody was told of may be there, too.
    let there = life.count().await as u64;
    assert!((acknowledged + 1..=acknowledged + 1 + refusals).contains(&there), "{there} of {acknowledged}");
    life.end().await;
    let report = check(&disk.at.join("store")).expect("it opens");
    assert!(report.damaged.is_empty(), "{report:?}");
    let life = Life::begin(&disk, |_| {});
    assert_eq!(life.count().await as u64, there);
    life.end().await;
}

#[tokio::test]
async fn it_refuses_before_the_disk_is_full_and_takes_again() {
    let Some(disk) = Disk::in_memory("48m") else { return };
    let life = Life::begin(&disk, |settings| settings.min_free_bytes = 16 << 20);
    life.publish(1, 100).await.expect("there is room");
    let ballast = disk.at.join("ballast");
    fs::write(&ballast, vec![7; 36 << 20]).expect("room");
    life.becomes(is_refusing).await;
    let refused = life.publish(2, 100).await;
    assert!(matches!(refused, Err(PublishError::Unavailable { what: "store", .. })), "{refused:?}");
    assert!(life.store.stats().free_bytes < 16 << 20);
    life.memory_goes_on();
    assert_eq!(life.count().await, 1, "it is read");
    fs::remove_file(&ballast).expect("it is there");
    life.becomes(is_ready).await;
    life.publish(3, 100).await.expect("there is room");
    assert_eq!(life.count().await, 2, "nothing of what was refused");
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_acknowledges_nothing_and_is_no_end() {
    let Some(disk) = Disk::ext4() else { return };
    let life = Life::begin(&disk, |_| {});
    life.publish(1, 100).await.expect("there is room");
    // As after an error in its own structures.
    let device =
        Command::new("findmnt").args(["-n", "-o", "SOURCE", disk.path()]).output().expect("it runs").stdout;
    let device = String::from_utf8_lossy(&device).trim().rsplit('/').next().unwrap_or_default().to_owned();
    if fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "test").is_err() {
        eprintln!("skipped: this kernel makes no errors on demand");
        return life.end().await;
    }
    let refused = life.publish(2, 100).await;
    assert!(is_refused(&refused), "{refused:?}");
    life.becomes(is_refusing).await;
    // Opened again and again, in vain.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(is_refused(&life.publish(3, 100).await));
    life.memory_goes_on();
    life.broker.close();
    life.store.close();
    drop(life);
    assert!(matches!(check(&disk.at.join("store")), Err(OpenError::Io { .. })));
    assert!(run("umount", &[disk.path()]));
    let image = disk.folder.path().join("image");
    assert!(run("mount", &["-o", "loop", image.to_str().expect("a name"), disk.path()]));
    let life = Life::begin(&disk, |_| {});
    assert!((1..=2).contains(&life.count().await), "what was acknowledged is there");
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_does_not_end_is_told_of_and_at_last_ends_the_process() {
    let Some(disk) = Disk::ext4() else { return };
    let life = Life::begin(&disk, |settings| settings.watchdog = Duration::from_secs(3));
    life.publish(1, 100).await.expect("there is room");
    if !run("fsfreeze", &["-f", disk.path()]) {
        eprintln!("skipped: it cannot be frozen");
        return life.end().await;
    }
    let hanging = life.broker.submit(Publish::new(Channel::parse("orders").expect("a name"), "hangs"));
    let slow =
        |state: &State| matches!(state, State::Refusing(why) if why.starts_with("a write has not ended"));
    life.becomes(slow).await;
    let refused = life.publish(2, 100).await;
    life.memory_goes_on();
    let broken =
        |state: &State| matches!(state, State::Broken(why) if why.starts_with("a write has not ended"));
    life.becomes(broken).await;
    assert!(run("fsfreeze", &["-u", disk.path()]));
    assert!(is_refused(&refused), "{refused:?}");
    soon(hanging).await.expect("it came to its end after all");
    assert_eq!(life.count().await, 2);
    life.end().await;
}
