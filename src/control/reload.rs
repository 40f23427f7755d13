//! A new configuration for a server that runs.
//!
//! ```text
//! file changed, and unchanged since the look before ─┐
//! SIGHUP ────────────────────────────────────────────┴─► load ─┬─ problems: told, nothing changes
//!                                                              └─ valid: to every shard at once
//! ```
//!
//! The certificates and authorities of `[tls]` are part of it: a new one is in force for the next handshake,
//! and no open connection is touched.
//!
//! The files are looked at, not watched by the kernel: that works for every editor and file system,
//! and one that is being written is left alone until it stays the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::config::Config;
use super::names::Names;
use crate::net::tls::Contexts;
use crate::options::Options;
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

    /// True when it is another one than it was then.
    pub(super) fn has_changed(&self) -> bool {
        Stamp::of(&self.path) != self.stamp
    }

    /// The same for several.
    pub(super) fn all(paths: &[PathBuf]) -> Vec<Self> {
        paths.iter().map(|path| Self::new(path)).collect()
    }
}

/// Looks at the file, and at those that it names.
pub(super) struct Watch {
    /// As it was loaded last.
    file: Watched,
    /// What TLS needs, as it was loaded last.
    tls: Vec<Watched>,
    ticks: Interval,
    /// What the last look saw.
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// Watches a file that was loaded, and those of TLS; call it in the control runtime.
    pub(super) fn new(file: Watched, tls: Vec<Watched>) -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self { file, tls, ticks, seen: Vec::new() };
        watch.seen = watch.loaded().collect();
        watch
    }

    /// What was loaded, the file first.
    fn loaded(&self) -> impl Iterator<Item = Option<Stamp>> {
        [&self.file].into_iter().chain(&self.tls).map(|file| file.stamp)
    }

    /// Ready when a file is another one than the one that was loaded, and none is being written. May be dropped
    /// and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.ticks.tick().await;
            if self.look() {
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let files = [&self.file].into_iter().chain(&self.tls);
        let now: Vec<_> = files.map(|file| Stamp::of(&file.path)).collect();
        // One that is not there is being written, or a new configuration does without it.
        let file = now.first().copied().flatten();
        let whole = now.iter().all(Option::is_some) || (file.is_some() && file != self.file.stamp);
        let still = self.seen == now && whole;
        let changed = now.iter().copied().ne(self.loaded());
        self.seen = now;
        still && changed
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

/// The configuration and what is in the files that TLS needs, or all that is wrong with it. `files` becomes those
/// that a valid configuration names, whether or not they are good.
fn load(path: &Path, files: &mut Vec<Watched>) -> Result<(Config, Option<Contexts>), String> {
    let config = Config::load(path).map_err(|problems| problems.to_string())?;
    *files = Watched::all(&config.tls_files());
    let contexts =
        config.tls_contexts().map_err(|error| format!("{}: [tls] {error}", path.display()))?;
    Ok((config, contexts))
}

/// What is in force.
pub(super) struct InForce {
    pub(super) config: Config,
    /// Where the names in it lead.
    pub(super) names: Names,
    /// What the shards have.
    options: Arc<Options>,
}

impl InForce {
    /// What shards are started with.
    pub(super) fn new(config: Config, names: Names) -> Self {
        let options = Arc::new(names.located(&config.options));
        Self { config, names, options }
    }

    /// What the shards have, or are to be started with.
    pub(super) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options)
    }

    /// Gives every shard the configuration, with its names where they lead now. Returns when all have it, so
    /// that the last holder of the old one is this thread: to free it takes a while.
    pub(super) async fn tell(&mut self, shards: &Handle) {
        let options = Arc::new(self.names.located(&self.config.options));
        shards.tell(|| Command::Options(Arc::clone(&options))).await;
        // Each shard answers when all that it was told before is in force.
        shards.snapshots().await;
        self.options = options;
    }
}

/// Loads the file and puts it in the place of what is `in_force`; if anything is wrong with it, that is told
/// and nothing changes. Returns when the new options are in force on every shard.
pub(super) async fn reload(
    watch: &mut Watch,
    in_force: &mut InForce,
    shards: &Handle,
    reloads: &Reloads,
) {
    let path = watch.file.path.clone();
    watch.file = Watched::new(&path);
    let known: Vec<_> = watch.tls.iter().map(|file| file.path.clone()).collect();
    let mut files = Watched::all(&known);
    // A large file takes a while, and signals and scrapes do not wait.
    let loading = tokio::task::spawn_blocking(move || {
        let loaded = load(&path, &mut files);
        (loaded, files)
    });
    let Ok((loaded, files)) = loading.await else { return };
    watch.tls = files;
    let (config, contexts) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            reloads.refused.fetch_add(1, Ordering::Relaxed);
            for line in problems.lines() {
                tracing::error!("{line}");
            }
            tracing::error!("configuration refused: the one in force stays as it is");
            return;
        }
    };
    for line in config.warnings.to_string().lines() {
        tracing::warn!("{line}");
    }
    let (config, changes) = config.succeed(&in_force.config);
    in_force.names.configure(&config);
    in_force.config = config;
    if let Some(contexts) = contexts {
        shards.tell(|| Command::Tls(contexts.clone())).await;
    }
    in_force.tell(shards).await;
    reloads.applied.fetch_add(1, Ordering::Relaxed);
    tracing::info!("configuration in force: {changes}");
    for option in changes.at_start {
        tracing::warn!("{option} has a new value, which is read at the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until nothing moves any more; true when something is to be loaded.
    fn look(watch: &mut Watch) -> bool {
        let first = watch.look();
        watch.look() || first
    }

    #[test]
    fn a_file_that_is_gone_keeps_no_new_configuration_from_being_loaded() {
        let [config, tls] = ["toml", "pem"].map(|end| {
            std::env::temp_dir().join(format!("holdfast-watch-{}.{end}", std::process::id()))
        });
        fs::write(&config, "old").unwrap();
        fs::write(&tls, "old").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _context = runtime.enter();
        let watched = || (Watched::new(&config), vec![Watched::new(&tls)]);
        let (file, files) = watched();
        let mut watch = Watch::new(file, files);
        assert!(!look(&mut watch));
        fs::remove_file(&tls).unwrap();
        assert!(!look(&mut watch), "it may be being written");
        fs::write(&config, "longer").unwrap();
        assert!(look(&mut watch));
        // It is refused: it names the same file.
        (watch.file, watch.tls) = watched();
        assert!(!look(&mut watch), "it was told");
        fs::write(&tls, "longer").unwrap();
        assert!(look(&mut watch));
        fs::remove_file(&config).unwrap();
        fs::remove_file(&tls).unwrap();
    }
}
