//! A reader of events on the Unix socket, who may ask for something too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::line::{self, Refusal};
use super::{Batch, Counts};
use crate::shard::Handle;

/// Batches that wait for a reader; further ones are lost to it.
pub(super) const BATCHES_MAX: usize = 128;
/// Refusals that wait for a reader; it is not listened to meanwhile.
const REFUSALS_MAX: usize = 16;
/// Bytes of a request; a longer one ends the connection.
pub(super) const REQUEST_BYTES_MAX: u64 = 4096;

/// The pump's end of a reader.
pub(super) struct Subscriber {
    to: mpsc::Sender<Arc<Batch>>,
    lost: u64,
}

impl Subscriber {
    /// Hands lines over. How many events are lost to it, or `None` when it is gone.
    pub(super) fn tell(&mut self, batch: &Arc<Batch>) -> Option<u64> {
        if self.lost > 0 && !self.tell_gap() {
            return self.lose(batch.events);
        }
        match self.to.try_send(Arc::clone(batch)) {
            Ok(()) => Some(0),
            Err(_) => self.lose(batch.events),
        }
    }

    /// Says how many are missing. False when there is no room yet.
    fn tell_gap(&mut self) -> bool {
        let mut text = Vec::new();
        line::write_gap(&mut text, None, self.lost);
        let told = self.to.try_send(Arc::new(Batch { text, events: 0 })).is_ok();
        if told {
            self.lost = 0;
        }
        told
    }

    fn lose(&mut self, events: u64) -> Option<u64> {
        if self.to.is_closed() {
            return None;
        }
        self.lost += events;
        Some(events)
    }

    /// Tells a reader that is there at the end what is missing at the end.
    pub(super) fn finish(mut self) {
        if self.lost > 0 {
            self.tell_gap();
        }
    }
}

/// Begins to serve a reader; the future ends with it.
pub(super) fn serve(
    stream: UnixStream,
    shards: Handle,
    counts: Arc<Counts>,
) -> (Subscriber, impl Future<Output = ()> + Send) {
    let (to, batches) = mpsc::channel(BATCHES_MAX);
    let (reader, writer) = stream.into_split();
    let future = async move {
        let (refuse, refusals) = mpsc::channel(REFUSALS_MAX);
        tokio::select! {
            () = write_all(writer, batches, refusals) => {}
            () = obey(reader, shards, refuse, &counts) => {}
        }
    };
    (Subscriber { to, lost: 0 }, future)
}

async fn write_all(
    mut writer: OwnedWriteHalf,
    mut batches: mpsc::Receiver<Arc<Batch>>,
    mut refusals: mpsc::Receiver<Refusal>,
) {
    loop {
        let written = tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => writer.write_all(&batch.text).await,
                None => return,
            },
            Some(refusal) = refusals.recv() => {
                let mut text = Vec::new();
                line::write_refusal(&mut text, &refusal);
                writer.write_all(&text).await
            }
        };
        if written.is_err() {
            return;
        }
    }
}

/// Passes requests on until the reader closes.
async fn obey(
    reader: OwnedReadHalf,
    shards: Handle,
    refuse: mpsc::Sender<Refusal>,
    counts: &Counts,
) {
    let mut reader = BufReader::new(reader);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut reader).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut text).await;
        match read {
            Err(_) | Ok(0) => return,
            Ok(_) if text.last() != Some(&b'\n') => {
                let text = format!("a request is one line of at most {REQUEST_BYTES_MAX} bytes");
                let _ = refuse.send(Refusal::new(text)).await;
                counts.requests_refused.fetch_add(1, Ordering::Relaxed);
                // The refusal is written first, if the peer reads at all.
                let _ = refuse.reserve_many(REFUSALS_MAX).await;
                return;
            }
            Ok(_) => {}
        }
        let passed_on = match line::parse_request(text.trim_ascii()) {
            Ok((shard, request)) => {
                let reference = request.reference;
                let there = shards.request(shard, request).await;
                if there { Ok(()) } else { Err(Refusal::no_such_call(reference)) }
            }
            Err(refusal) => Err(refusal),
        };
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(refusal) = passed_on {
            counts.requests_refused.fetch_add(1, Ordering::Relaxed);
            if refuse.send(refusal).await.is_err() {
                return;
            }
        }
    }
}
