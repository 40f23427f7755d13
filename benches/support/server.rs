//! An endpoint between the bytes that are read and the bytes that are written, without sockets.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::Options;
use holdfast::sip::message::{Frame, Framer, Head};
use holdfast::sip::{Action, Actions, Endpoint, FlowError, Input, NewFlow, Stats};
use holdfast::time::Instant;

/// What is queued for the sockets before it counts as written: a buffer of the socket layer.
const WRITE_BYTES: usize = 16 << 10;

/// Something that happened to an endpoint.
pub(crate) enum Event {
    /// A peer connected.
    Accept(NewFlow),
    /// These bytes of [`Trace::bytes`] were read.
    Read { flow: FlowId, bytes: Range<usize> },
    /// A connection is open.
    Opened(FlowId),
    /// A connection was reset.
    Failed(FlowId),
    /// Timers are due.
    Timeout,
}

/// Everything that happened to an endpoint, in order.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) steps: Vec<(Instant, Event)>,
    pub(crate) bytes: Vec<u8>,
}

/// One shard's endpoint, its framer, and a buffer that stands for the sockets.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) actions: Actions,
    /// One for all flows: what a peer writes here is whole messages.
    framer: Framer,
    head: Head,
    outbox: Vec<u8>,
    /// Bytes of messages that were sent.
    pub(crate) written: u64,
}

impl Server {
    pub(crate) fn new(options: &Arc<Options>) -> Self {
        Self {
            endpoint: Endpoint::new(ShardId(0), [7; 32], Arc::clone(options)),
            actions: Actions::new(),
            framer: Framer::new(options.limits.message_bytes_max),
            head: Head::new(),
            outbox: Vec::with_capacity(WRITE_BYTES * 2),
            written: 0,
        }
    }

    /// Takes a connection.
    pub(crate) fn accept(&mut self, now: Instant, new: NewFlow) -> FlowId {
        self.endpoint.accept(now, new).expect("room for a flow")
    }

    /// Lets one thing happen; what comes of it is in `actions`.
    pub(crate) fn handle(&mut self, now: Instant, event: &Event, bytes: &[u8]) {
        let Self { endpoint, actions, framer, head, .. } = self;
        match event {
            Event::Accept(new) => {
                self.accept(now, *new);
            }
            Event::Read { flow, bytes: range } => {
                framer.feed(&bytes[range.clone()], head, |frame| {
                    let Frame::Message(message) = frame else { panic!("{frame:?} is no message") };
                    let input = Input::Framed { flow: *flow, message, waited: Duration::ZERO };
                    endpoint.handle(now, input, actions);
                })
            }
            Event::Opened(flow) => {
                endpoint.handle(now, Input::FlowOpened { flow: *flow }, actions);
            }
            Event::Failed(flow) => {
                let error = FlowError::Reset;
                endpoint.handle(now, Input::FlowFailed { flow: *flow, error }, actions);
            }
            Event::Timeout => endpoint.handle(now, Input::Timeout, actions),
        }
    }

    /// Lets a part of what was recorded happen again, up to the bytes that a socket would be given.
    pub(crate) fn replay(&mut self, trace: &Trace, steps: Range<usize>) {
        for (now, event) in &trace.steps[steps] {
            self.handle(*now, event, &trace.bytes);
            self.write();
        }
    }

    /// Copies what is to be sent to where a socket would take it from.
    fn write(&mut self) {
        for action in self.actions.iter() {
            let Action::Send { bytes, .. } = action else { continue };
            self.outbox.extend_from_slice(bytes);
            self.written += bytes.len() as u64;
            if self.outbox.len() >= WRITE_BYTES {
                self.outbox.clear();
            }
        }
        self.actions.clear();
    }

    pub(crate) fn stats(&self) -> Stats {
        self.endpoint.stats()
    }
}
