//! A new configuration for a server that runs.
//!
//! ```text
//! file changed, and unchanged since the look before ─┐
//! SIGHUP ────────────────────────────────────────────┴─► load ─┬─ problems: told, nothing changes
//!                                                              └─ valid: to every shard at once
//! ```
//!
//! The file is looked at, not watched by the kernel: that works for every editor and file system,
//! and a file that is being written is left alone until it stays the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::config::Config;
use crate::shard::{Command, Handle};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What tells two states of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// `None` while there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        let modified = (data.mtime(), data.mtime_nsec());
        Some(Self { modified, size: data.size(), inode: data.ino() })
    }
}

/// A file, and its state before it was loaded: what changes from then on is seen.
#[derive(Clone, Debug)]
pub struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl Watched {
    /// Call it before the file is loaded.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: Stamp::of(path) }
    }
}

/// Looks at the file.
pub(super) struct Watch {
    /// As it was loaded last.
    file: Watched,
    ticks: Interval,
    /// What the last look saw.
    seen: Option<Stamp>,
}

impl Watch {
    /// Watches a file that was loaded; call it in the control runtime.
    pub(super) fn new(file: Watched) -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = file.stamp;
        Self { file, ticks, seen }
    }

    /// Ready when the file is another one than the one that was loaded, and is not being written.
    /// May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.ticks.tick().await;
            let before = std::mem::replace(&mut self.seen, Stamp::of(&self.file.path));
            if self.seen == before && self.seen.is_some() && self.seen != self.file.stamp {
                return;
            }
        }
    }
}

/// How often the configuration was loaded while the server runs.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
}

impl Reloads {
    /// Those that were taken, and those that were refused.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.applied.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// Loads the file and puts it in the place of `running`; if anything is wrong with it, that is told
/// and nothing changes. Returns when the new options are in force on every shard.
pub(super) async fn reload(
    watch: &mut Watch,
    running: &mut Config,
    shards: &Handle,
    reloads: &Reloads,
) {
    let path = watch.file.path.clone();
    watch.file = Watched::new(&path);
    // A large file takes a while, and signals and scrapes do not wait.
    let Ok(loaded) = tokio::task::spawn_blocking(move || Config::load(&path)).await else { return };
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => {
            reloads.refused.fetch_add(1, Ordering::Relaxed);
            for line in problems.to_string().lines() {
                tracing::error!("{line}");
            }
            tracing::error!("configuration refused: the one in force stays as it is");
            return;
        }
    };
    for line in config.warnings.to_string().lines() {
        tracing::warn!("{line}");
    }
    let (config, changes) = config.succeed(running);
    *running = config;
    let options = Arc::new(running.options.clone());
    shards.tell(|| Command::Options(Arc::clone(&options))).await;
    // Each shard answers when all that it was told before is in force.
    shards.snapshots().await;
    reloads.applied.fetch_add(1, Ordering::Relaxed);
    tracing::info!("configuration in force: {changes}");
    for option in changes.at_start {
        tracing::warn!("{option} has a new value, which is read at the next start");
    }
}
