//! Events of all shards, written for whoever listens, by one thread of its own.
//!
//! ```text
//! shards ─► queue ─► pump ─┬─► journal: a file
//!        (bounded; what    ├─► subscriber ─► queue ─► Unix socket
//!         finds no room    └─► …           (bounded, each its own)
//!         is counted)            requests: socket ─► shard
//! ```
//!
//! Nobody waits for a slow reader. What it misses is a line `Gap` with the number of lost events.
//! The format is described in `docs/EVENTS.md`.

mod journal;
mod line;
mod subscriber;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::config::EventsConfig;
use crate::key::ShardId;
use crate::shard::{Handle, Told};
use journal::Journal;
use subscriber::Subscriber;

/// Readers of the socket; a further one is closed at once.
const SUBSCRIBERS_MAX: usize = 16;
/// Events of one batch.
const BATCH_MAX: usize = 256;
/// Between two batches: a shard that finds the pump asleep must wake it, so it is let sleep.
const PAUSE: Duration = Duration::from_millis(5);
/// How long readers may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines of so many events.
struct Batch {
    text: Vec<u8>,
    events: u64,
}

/// What was told and lost since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Readers of the socket that are there.
    pub(super) subscribers: AtomicU64,
    /// Events that wait for this thread.
    pub(super) waiting: AtomicU64,
    /// Events that readers of the socket did not get.
    pub(super) lost_to_subscribers: AtomicU64,
    /// Events that the file did not get.
    pub(super) lost_to_file: AtomicU64,
    /// Requests of readers.
    pub(super) requests: AtomicU64,
    /// Those of them that could not be passed on.
    pub(super) requests_refused: AtomicU64,
}

/// Where events go, opened before anything else starts.
pub(super) struct Outlets {
    journal: Option<Journal>,
    socket: Option<Socket>,
}

/// Opens the file and listens on the socket.
///
/// # Errors
/// One of them cannot be had; the text names it.
pub(super) fn open(config: &EventsConfig) -> Result<Outlets, String> {
    let journal = config.file.as_deref().map(Journal::open).transpose()?;
    let socket = config.socket.as_deref().map(Socket::open).transpose()?;
    Ok(Outlets { journal, socket })
}

/// A Unix socket, which goes with us.
struct Socket {
    listener: StdListener,
    path: PathBuf,
}

impl Socket {
    /// A socket that an earlier run left behind is taken away; one that is in use is not.
    fn open(path: &Path) -> Result<Self, String> {
        let cannot =
            |text: String| format!("cannot listen for readers on {}: {text}", path.display());
        if let Ok(data) = fs::symlink_metadata(path) {
            if !data.file_type().is_socket() {
                return Err(cannot("it is there, and no socket".to_owned()));
            }
            if StdStream::connect(path).is_ok() {
                return Err(cannot("it is in use by another process".to_owned()));
            }
            fs::remove_file(path).map_err(|error| cannot(error.to_string()))?;
        }
        let listener = StdListener::bind(path).map_err(|error| cannot(error.to_string()))?;
        // Who reads may also release calls: the owner only, unless the operator says otherwise.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .map_err(|error| cannot(error.to_string()))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The running thread.
pub(super) struct Events {
    pub(super) counts: Arc<Counts>,
    reopen: Arc<Notify>,
    stop: Arc<Notify>,
    thread: JoinHandle<()>,
}

impl Events {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel has no thread or no descriptor left.
    pub(super) fn start(
        outlets: Outlets,
        queue: mpsc::Receiver<Told>,
        shards: Handle,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counts = Arc::new(Counts::default());
        let reopen = Arc::new(Notify::new());
        let Outlets { journal, socket } = outlets;
        let pump = Pump {
            queue,
            journal,
            subscribers: Vec::new(),
            tasks: JoinSet::new(),
            shards,
            last: Vec::new(),
            counts: Arc::clone(&counts),
        };
        let stop = Arc::new(Notify::new());
        let (again, end) = (Arc::clone(&reopen), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || runtime.block_on(pump.run(socket, &again, &end)))?;
        Ok(Self { counts, reopen, stop, thread })
    }

    /// The file is opened again by its name: it was moved away.
    pub(super) fn reopen(&self) {
        self.reopen.notify_one();
    }

    /// Waits until what is queued is written. Call it when the shards have ended.
    pub(super) fn join(self) {
        // The queue may never be closed: tasks of a shard outlive its executor.
        self.stop.notify_one();
        let _ = self.thread.join();
    }
}

struct Pump {
    queue: mpsc::Receiver<Told>,
    journal: Option<Journal>,
    subscribers: Vec<Subscriber>,
    tasks: JoinSet<()>,
    shards: Handle,
    /// The number of the last event of each shard.
    last: Vec<u64>,
    counts: Arc<Counts>,
}

impl Pump {
    async fn run(mut self, socket: Option<Socket>, reopen: &Notify, stop: &Notify) {
        let listener = socket.as_ref().and_then(|socket| {
            let listener = socket.listener.try_clone().and_then(UnixListener::from_std);
            listener.inspect_err(|error| tracing::error!("no readers of events: {error}")).ok()
        });
        let mut told = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                count = self.queue.recv_many(&mut told, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    self.counts.waiting.store(self.queue.len() as u64, Ordering::Relaxed);
                    let full = count == BATCH_MAX;
                    self.publish(&told);
                    told.clear();
                    if full {
                        tokio::task::yield_now().await;
                    } else {
                        sleep(PAUSE).await;
                    }
                }
                stream = accept(listener.as_ref()) => self.admit(stream),
                () = reopen.notified() => {
                    if let Some(journal) = &mut self.journal {
                        journal.reopen();
                    }
                }
                Some(_) = self.tasks.join_next() => self.count_subscribers(),
                () = stop.notified() => break,
            }
        }
        while let Ok(last) = self.queue.try_recv() {
            self.publish(&[last]);
        }
        self.subscribers.drain(..).for_each(Subscriber::finish);
        let _ =
            timeout(LAST_WORDS, async { while self.tasks.join_next().await.is_some() {} }).await;
    }

    fn publish(&mut self, told: &[Told]) {
        let mut text = Vec::with_capacity(told.len() * 320);
        for told in told {
            let lost = self.missing(told.event.shard, told.event.sequence);
            if lost > 0 {
                line::write_gap(&mut text, Some(told.event.shard), lost);
            }
            line::write_event(&mut text, told);
        }
        let events = told.len() as u64;
        if let Some(journal) = &mut self.journal {
            let lost = journal.append(&text, events);
            self.counts.lost_to_file.fetch_add(lost, Ordering::Relaxed);
        }
        let batch = Arc::new(Batch { text, events });
        let counts = &self.counts;
        self.subscribers.retain_mut(|subscriber| match subscriber.tell(&batch) {
            Some(lost) => {
                counts.lost_to_subscribers.fetch_add(lost, Ordering::Relaxed);
                true
            }
            None => false,
        });
    }

    /// Events of the shard between the last one and this one.
    fn missing(&mut self, ShardId(shard): ShardId, sequence: u64) -> u64 {
        let shard = usize::from(shard);
        if shard >= self.last.len() {
            self.last.resize(shard + 1, 0);
        }
        let last = std::mem::replace(&mut self.last[shard], sequence);
        sequence.saturating_sub(last + 1)
    }

    fn admit(&mut self, stream: tokio::net::UnixStream) {
        if self.tasks.len() >= SUBSCRIBERS_MAX {
            tracing::warn!("a reader of events was refused: {SUBSCRIBERS_MAX} are there");
            return;
        }
        let (shards, counts) = (self.shards.clone(), Arc::clone(&self.counts));
        let (subscriber, future) = subscriber::serve(stream, shards, counts);
        self.subscribers.push(subscriber);
        self.tasks.spawn(future);
        self.count_subscribers();
    }

    fn count_subscribers(&self) {
        self.counts.subscribers.store(self.tasks.len() as u64, Ordering::Relaxed);
    }
}

/// The next reader; never, where there is no socket.
async fn accept(listener: Option<&UnixListener>) -> tokio::net::UnixStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // No descriptor: the reader waits in the backlog.
            Err(_) => sleep(PAUSE * 20).await,
        }
    }
}
