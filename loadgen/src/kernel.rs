//! Faults that strike in the kernel, on the addresses of this run's own parties.
//!
//! ```text
//! driver ─► orders ─► thread: nft, ss, tc ─► reports ─► driver
//! ```
//!
//! A program takes milliseconds to start, in which no call of the worker would move: so another
//! thread waits for it. Orders that wait together and are alike are one start of a program.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for programs in real time, outside the server's core"
)]

use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::driver::Net;
use crate::net::Side;
use crate::net::kernel::{self, Kernel, Reach};
use crate::plan::{Strike, What};

/// Whether faults of the kernel can strike here, as far as can be told before.
///
/// # Errors
/// Not root, or a program that is not here.
pub(crate) fn check(strikes: &[Strike]) -> Result<(), String> {
    if !strikes.iter().any(|strike| strike.what.is_of_the_kernel()) {
        return Ok(());
    }
    drop(Kernel::new()?);
    for (program, flag, needed) in [
        ("ss", "-V", strikes.iter().any(|strike| strike.what == What::KernelKill)),
        ("tc", "-V", strikes.iter().any(|s| matches!(s.what, What::KernelDelay { .. }))),
    ] {
        if needed {
            kernel::require(program, flag)?;
        }
    }
    Ok(())
}

/// What is to be done to a party in the kernel.
#[derive(Clone, Debug)]
struct Order {
    side: Side,
    party: u32,
    reach: Reach,
    deed: Deed,
    /// How long it lasts.
    away: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Drop,
    Restore,
    Kill,
    Delay(Duration),
}

impl Deed {
    /// One start of a program does this to several parties.
    fn is_joint(self) -> bool {
        matches!(self, Self::Drop | Self::Restore)
    }
}

/// What came of a strike in the kernel, or of its end.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) side: Side,
    pub(crate) party: u32,
    pub(crate) away: Duration,
    /// The instant just before, when it struck a connection; or why it did not.
    pub(crate) struck: Result<Option<Instant>, String>,
}

/// A worker's faults of the kernel; undone when this is dropped.
#[derive(Default)]
pub(crate) struct KernelFaults {
    desk: Option<Desk>,
}

struct Desk {
    orders: Option<Sender<Order>>,
    reports: Receiver<Report>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What connects a party with the server: those it opens, or those it accepts.
fn reach(net: &Net, side: Side, party: u32) -> Reach {
    let own = &net.parties[side as usize][party as usize];
    match side {
        Side::Caller => Reach::Connecting { from: own.ip, to: net.server },
        Side::Callee => Reach::Listening(SocketAddrV4::new(own.ip, own.port)),
    }
}

impl KernelFaults {
    /// Gets ready, so that the first strike need not.
    ///
    /// # Errors
    /// No thread.
    pub(crate) fn prepare(&mut self) -> Result<(), String> {
        if self.desk.is_none() {
            self.desk = Some(Desk::open().map_err(|e| format!("cannot start a thread: {e}"))?);
        }
        Ok(())
    }

    /// Has a party struck; [`reports`](Self::reports) tells what came of it.
    ///
    /// # Errors
    /// Nobody does it.
    pub(crate) fn strike(&mut self, net: &Net, strike: &Strike) -> Result<(), String> {
        let deed = match strike.what {
            What::KernelDrop => Deed::Drop,
            What::KernelKill => Deed::Kill,
            What::KernelDelay { delay } => Deed::Delay(delay),
            _ => return Ok(()),
        };
        self.prepare()?;
        let away = strike.until.map_or(Duration::ZERO, |until| until - strike.at);
        self.order(net, strike.side, strike.party, deed, away)
    }

    /// Lets a party's packets pass again, if they were dropped.
    ///
    /// # Errors
    /// Nobody does it.
    pub(crate) fn lift(&self, net: &Net, side: Side, party: u32) -> Result<(), String> {
        match self.desk {
            Some(_) => self.order(net, side, party, Deed::Restore, Duration::ZERO),
            None => Ok(()),
        }
    }

    fn order(
        &self,
        net: &Net,
        side: Side,
        party: u32,
        deed: Deed,
        away: Duration,
    ) -> Result<(), String> {
        let order = Order { side, party, reach: reach(net, side, party), deed, away };
        let orders = self.desk.as_ref().and_then(|desk| desk.orders.as_ref());
        let sent = orders.is_some_and(|orders| orders.send(order).is_ok());
        sent.then_some(()).ok_or_else(|| "the thread for faults of the kernel is gone".into())
    }

    /// What came of strikes meanwhile.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.desk.as_ref().map(|desk| desk.reports.try_iter().collect()).unwrap_or_default()
    }

    /// Waits until every order is carried out, undoes all, and gives the last reports.
    pub(crate) fn end(&mut self) -> Vec<Report> {
        let Some(mut desk) = self.desk.take() else { return Vec::new() };
        desk.close();
        desk.reports.try_iter().collect()
    }
}

impl Desk {
    fn open() -> std::io::Result<Self> {
        let ((orders, read), (tell, reports)) = (channel(), channel());
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let name = "loadgen-kernel".into();
        let work = move || carry_out(&read, &tell, &flag);
        let thread = Some(thread::Builder::new().name(name).spawn(work)?);
        Ok(Self { orders: Some(orders), reports, over, thread })
    }

    fn close(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Orders that still wait are not carried out: what was done is undone.
        self.over.store(true, Ordering::Relaxed);
        self.close();
    }
}

/// The thread: carries out orders until nobody gives any.
fn carry_out(orders: &Receiver<Order>, reports: &Sender<Report>, over: &AtomicBool) {
    let mut kernel = Kernel::new();
    let mut dropped = HashSet::new();
    while let Ok(first) = orders.recv() {
        let waiting: Vec<Order> = std::iter::once(first).chain(orders.try_iter()).collect();
        let alike = |a: &Order, b: &Order| a.deed == b.deed && a.deed.is_joint();
        for wave in waiting.chunk_by(alike) {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let struck = match &mut kernel {
                Ok(kernel) => execute(kernel, wave, &mut dropped),
                Err(error) => Err(error.clone()),
            };
            for Order { side, party, away, .. } in wave.iter().cloned() {
                // The worker may have given up meanwhile.
                let _ = reports.send(Report { side, party, away, struck: struck.clone() });
            }
        }
    }
}

/// Does the same to some parties, or something to one.
fn execute(
    kernel: &mut Kernel,
    wave: &[Order],
    dropped: &mut HashSet<Reach>,
) -> Result<Option<Instant>, String> {
    let Some(Order { deed, reach, .. }) = wave.first() else { return Ok(None) };
    match deed {
        Deed::Drop => {
            let new = |order: &Order| dropped.insert(order.reach).then_some(order.reach);
            let reaches: Vec<Reach> = wave.iter().filter_map(new).collect();
            let struck = kernel.drop_packets(&reaches);
            if struck.is_err() {
                dropped.retain(|reach| !reaches.contains(reach));
            }
            struck.map(Some)
        }
        Deed::Restore => {
            let known = |order: &Order| dropped.take(&order.reach);
            let reaches: Vec<Reach> = wave.iter().filter_map(known).collect();
            let restored = if reaches.is_empty() { Ok(()) } else { kernel.restore(&reaches) };
            restored.map(|()| None).map_err(|error| format!("it stays: {error}"))
        }
        Deed::Kill => kernel.kill(*reach).map(|(killed, at)| (killed > 0).then_some(at)),
        Deed::Delay(by) => kernel.delay(*reach, *by).map(|_| None),
    }
}
