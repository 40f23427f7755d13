//! Bytes that wait to be written, by connection.

/// Buffers kept for connections that have something to write; idle ones keep none.
const SPARE_MAX: usize = 256;
/// A buffer that grew beyond this is not kept.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// What waits for each connection, and which of them have something new.
///
/// A connection over UDP keeps the boundaries of its messages.
#[derive(Debug)]
pub(crate) struct Outboxes {
    boxes: Vec<Option<Box<Outbox>>>,
    dirty: Vec<u32>,
    spare: Vec<Vec<u8>>,
    bytes_max: usize,
}

/// What waits for one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) bytes: Vec<u8>,
    /// Where each message ends, of a connection that keeps boundaries.
    pub(super) ends: Vec<u32>,
    datagrams: bool,
    overflown: bool,
}

impl Default for Outboxes {
    fn default() -> Self {
        let bytes_max = super::Limits::default().outbox_bytes;
        Self { boxes: Vec::new(), dirty: Vec::new(), spare: Vec::new(), bytes_max }
    }
}

impl Outboxes {
    /// Appends what `write` writes as one whole message; it goes nowhere when the connection is
    /// gone, or when more than the limit would wait: the connection is closed then.
    pub(crate) fn message<T>(&mut self, conn: u32, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let Some(Some(outbox)) = self.boxes.get_mut(conn as usize) else {
            let mut nowhere = self.spare.pop().unwrap_or_default();
            let result = write(&mut nowhere);
            self.recycle(nowhere);
            return result;
        };
        if outbox.bytes.capacity() == 0 {
            outbox.bytes = self.spare.pop().unwrap_or_default();
        }
        let before = outbox.bytes.len();
        let result = write(&mut outbox.bytes);
        let len = outbox.bytes.len();
        if len > self.bytes_max {
            outbox.bytes.truncate(before);
            outbox.overflown = true;
            self.dirty.push(conn);
        } else if len > before {
            if outbox.datagrams {
                outbox.ends.push(len as u32);
            }
            if before == 0 {
                self.dirty.push(conn);
            }
        }
        result
    }

    /// True while messages to `conn` go anywhere.
    pub(crate) fn is_open(&self, conn: u32) -> bool {
        self.boxes.get(conn as usize).is_some_and(Option::is_some)
    }

    /// Nothing waits for any connection.
    pub(crate) fn is_empty(&self) -> bool {
        self.boxes.iter().flatten().all(|outbox| outbox.bytes.is_empty())
    }

    /// Makes room for connection `conn`.
    pub(crate) fn open(&mut self, conn: u32, datagrams: bool) {
        if self.boxes.len() <= conn as usize {
            self.boxes.resize_with(conn as usize + 1, || None);
        }
        self.boxes[conn as usize] = Some(Box::new(Outbox { datagrams, ..Outbox::default() }));
    }

    /// Forgets what waits for a connection that is gone.
    pub(crate) fn close(&mut self, conn: u32) {
        if let Some(outbox) = self.boxes.get_mut(conn as usize) {
            *outbox = None;
        }
    }

    /// Bytes that may wait for a connection.
    pub(super) fn set_limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// What waits for `conn`: its bytes and the ends of its messages.
    pub(crate) fn take(&mut self, conn: u32) -> (Vec<u8>, Vec<u32>) {
        match self.boxes.get_mut(conn as usize) {
            Some(Some(outbox)) => {
                (std::mem::take(&mut outbox.bytes), std::mem::take(&mut outbox.ends))
            }
            Some(None) | None => Default::default(),
        }
    }

    /// Takes back a buffer whose bytes are written.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        let capacity = bytes.capacity();
        if self.spare.len() < SPARE_MAX && capacity > 0 && capacity <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// The connections that have something new since the last call.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes back the list of [`take_dirty`](Self::take_dirty), for its room.
    pub(super) fn keep_room(&mut self, mut dirty: Vec<u32>) {
        if self.dirty.is_empty() {
            dirty.clear();
            self.dirty = dirty;
        }
    }

    /// More than the limit would have waited for `conn`.
    pub(super) fn is_overflown(&self, conn: u32) -> bool {
        let outbox = self.boxes.get(conn as usize).and_then(Option::as_ref);
        outbox.is_some_and(|outbox| outbox.overflown)
    }

    /// Nothing is new since the last [`take_dirty`](Self::take_dirty).
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }
}
