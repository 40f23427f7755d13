//! Turns of a worker: what is due is done, faults strike, news go out, then it sleeps.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::End;
use crate::engine::{Engine, Manner, Wish};
use crate::kernel::{KernelFaults, Report};
use crate::net::{Fault, Reconnect, Side, Transport, Wire};
use crate::outcome::Recorder;
use crate::plan::{Strike, What};
use crate::text::Party;
use crate::worker::{Done, News, Point};

/// The longest sleep: what messages ask for in between is at most so late.
const TURN_MAX: Duration = Duration::from_millis(1);
/// A sleep shorter than this is not worth its wake.
const TURN_MIN: Duration = Duration::from_micros(20);

/// Where parties are and what they speak.
pub(crate) struct Net {
    /// Callers, callees.
    pub(crate) parties: [Vec<Party>; 2],
    pub(crate) transport: Transport,
    pub(crate) server: SocketAddrV4,
}

/// What a worker's loops turn.
pub(crate) struct Driver {
    pub(crate) wire: Rc<Wire<Engine>>,
    number: u32,
    news: Sender<News>,
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    net: Net,
    start: Instant,
    strikes: VecDeque<Strike>,
    /// Ends of strikes, soonest first.
    lifts: Vec<(Instant, Side, u32)>,
    kernel: KernelFaults,
    /// How long was measured, and what a closed loop found in that time.
    pub(crate) measured: Duration,
    closed: Option<Recorder>,
    /// Parties that leave their connection and answer on another.
    late: Vec<(Instant, Side, u32)>,
}

impl Driver {
    pub(crate) fn new(
        wire: Rc<Wire<Engine>>,
        number: u32,
        news: Sender<News>,
        stop: Arc<AtomicBool>,
        deadline: Option<Instant>,
        net: Net,
    ) -> Self {
        Self {
            wire,
            number,
            news,
            stop,
            deadline,
            net,
            start: Instant::now(),
            strikes: VecDeque::new(),
            lifts: Vec::new(),
            kernel: KernelFaults::default(),
            measured: Duration::ZERO,
            closed: None,
            late: Vec::new(),
        }
    }

    /// Tells that a point is reached; nobody may listen any more.
    pub(crate) fn point(&self, point: Point) {
        let _ = self.news.send(News::Point(point));
    }

    /// The measured time begins: instants count from now, and strikes follow.
    pub(crate) fn begin(&mut self, strikes: Vec<Strike>) -> Instant {
        self.start = Instant::now();
        if strikes.iter().any(|strike| strike.what.is_of_the_kernel())
            && let Err(error) = self.kernel.prepare()
        {
            self.trouble(error);
        }
        self.strikes = strikes.into();
        let start = self.start;
        let used = crate::usage::thread_cpu();
        self.wire.with(|engine, _| engine.restart(start, used));
        start
    }

    /// The warm-up is over.
    pub(crate) fn begin_measuring(&mut self) -> Instant {
        self.wire.with(|engine, _| engine.notes.recorder.begin_measuring());
        self.point(Point::Up);
        Instant::now()
    }

    /// The measured time of a closed loop is over: what follows is in no figure.
    pub(crate) fn end_measuring(&mut self, start: Instant) {
        self.measured = start.elapsed();
        self.closed = Some(self.wire.with(|engine, _| engine.end_measuring()));
    }

    /// One turn, and sleep until `wake` or what comes first.
    ///
    /// # Errors
    /// The overall timeout, or a signal to end.
    pub(crate) async fn turn(&mut self, wake: Option<Instant>) -> Result<(), End> {
        // Before anything is written: what was written in the turn before has left by now, and is not
        // lost inside the generator with its connection.
        self.wishes();
        self.strike_due();
        self.hear_of_kernel(self.kernel.reports());
        let (more, next) = self.wire.with(|engine, now| (engine.tick(now), engine.next_wake()));
        self.report();
        if self.stop.load(Ordering::Relaxed) {
            return Err(End::interrupted());
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now > deadline) {
            return Err(End::usage("not finished in time (--timeout)".into()));
        }
        let strike = self.strikes.front().map(|strike| self.start + strike.at);
        let until = [wake, next, strike].into_iter().flatten().min();
        let longest = if more { TURN_MIN } else { TURN_MAX };
        let sleep = until.map_or(longest, |at| at.saturating_duration_since(now).min(longest));
        glommio::timer::sleep(sleep.max(TURN_MIN)).await;
        Ok(())
    }

    /// Turns until `done` says so; false when nothing moved for `stall`.
    ///
    /// `done` gives the end, and a number that grows while something moves.
    pub(crate) async fn until(
        &mut self,
        stall: Duration,
        mut done: impl FnMut(&mut Engine, Instant) -> (bool, u64),
    ) -> Result<bool, End> {
        let (mut seen, mut moved) = (u64::MAX, Instant::now());
        loop {
            let (over, mark) = self.wire.with(&mut done);
            if over {
                return Ok(true);
            }
            if mark != seen {
                (seen, moved) = (mark, Instant::now());
            } else if moved.elapsed() > stall {
                return Ok(false);
            }
            self.turn(None).await?;
        }
    }

    pub(crate) async fn pause(&mut self, time: Duration) -> Result<(), End> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Some(until)).await?;
        }
        Ok(())
    }

    fn report(&mut self) {
        let start = self.start;
        let progress = self.wire.with(|engine, now| {
            let (recorder, now) =
                (&mut engine.notes.recorder, now.saturating_duration_since(start));
            // Asking for the CPU time is a system call, and turns are many.
            recorder.is_due(now).then(|| recorder.tick(now, crate::usage::thread_cpu())).flatten()
        });
        if let Some(progress) = progress {
            let _ = self.news.send(News::Progress(self.number, progress));
        }
    }

    fn wishes(&mut self) {
        let wishes = self.wire.with(|engine, _| std::mem::take(&mut engine.wishes));
        for wish in wishes {
            match wish {
                Wish::AnswerLate { at, side, party } => {
                    if !self.late.iter().any(|late| (late.1, late.2) == (side, party)) {
                        self.late.push((at, side, party));
                    }
                }
            }
        }
        let now = Instant::now();
        while let Some(at) = self.late.iter().position(|late| late.0 <= now) {
            let (_, side, party) = self.late.swap_remove(at);
            self.answer_late(side, party);
        }
    }

    /// The party's connections die under what it has not answered; it answers on a new one.
    fn answer_late(&self, side: Side, party: u32) {
        self.reset(side, party);
        let own = &self.net.parties[side as usize][party as usize];
        let (from, to) = (SocketAddr::from((own.ip, 0)), SocketAddr::from(self.net.server));
        let (wire, transport) = (Rc::clone(&self.wire), self.net.transport);
        glommio::spawn_local(async move {
            let made = wire.connect(side, party, from, to, transport, Reconnect::No).await;
            if let Ok(conn) = made {
                wire.with(|engine, _| engine.answer_late(side, party, conn));
            }
        })
        .detach();
    }

    /// Resets a party's connections; calls on them are in danger from then on.
    fn reset(&self, side: Side, party: u32) {
        if let Ok(struck) = self.wire.strike(side, party, Fault::Reset)
            && let Some(first) = struck.first()
        {
            let at = first.at;
            self.wire.with(|engine, _| engine.endanger(side, party, at, Duration::ZERO));
        }
    }

    fn strike_due(&mut self) {
        let now = Instant::now();
        while self.strikes.front().is_some_and(|strike| self.start + strike.at <= now) {
            if let Some(strike) = self.strikes.pop_front() {
                self.strike(&strike);
            }
        }
        while let Some(at) = self.lifts.iter().position(|lift| lift.0 <= now) {
            let (_, side, party) = self.lifts.swap_remove(at);
            self.lift(side, party);
        }
    }

    fn strike(&mut self, strike: &Strike) {
        let (side, party) = (strike.side, strike.party);
        self.wire.with(|engine, _| engine.notes.recorder.count("strikes", 1));
        if let Some(until) = strike.until {
            self.lifts.push((self.start + until, side, party));
        }
        if let Some(manner) = Manner::of(&strike.what) {
            self.wire.with(|engine, _| engine.set_manner(side, party, manner));
            return;
        }
        let struck = match fault_of(&strike.what) {
            Some(fault) => self.strike_sockets(strike, fault),
            None if strike.what == What::OtherPort => self.move_port(side, party).map(|()| None),
            None => self.kernel.strike(&self.net, strike).map(|()| None),
        };
        let away = strike.until.map_or(Duration::ZERO, |until| until - strike.at);
        self.note_strike(side, party, away, struck);
    }

    /// Calls of the party are in danger, or the operator hears why they are not.
    fn note_strike(
        &self,
        side: Side,
        party: u32,
        away: Duration,
        struck: Result<Option<Instant>, String>,
    ) {
        match struck {
            Ok(Some(at)) => {
                self.wire.with(|engine, _| engine.endanger(side, party, at, away));
            }
            Ok(None) => {}
            Err(error) => self.trouble(format!("a fault did not strike: {error}")),
        }
    }

    fn hear_of_kernel(&self, reports: Vec<Report>) {
        for Report { side, party, away, struck } in reports {
            self.note_strike(side, party, away, struck);
        }
    }

    /// The instant just before, when a connection was struck.
    fn strike_sockets(&self, strike: &Strike, fault: Fault) -> Result<Option<Instant>, String> {
        let (side, party, before) = (strike.side, strike.party, Instant::now());
        let refuses = strike.until.is_some() && takes_the_listener(fault);
        if refuses {
            let refused = self.wire.strike(side, party, Fault::Refuse);
            refused.map_err(|error| error.to_string())?;
        }
        let struck = self.wire.strike(side, party, fault).map_err(|error| error.to_string())?;
        // Over UDP there is no connection to strike: who refuses has closed the socket.
        let closed = self.net.transport == Transport::Udp && (refuses || fault == Fault::Refuse);
        Ok(struck.first().map(|first| first.at).or(closed.then_some(before)))
    }

    fn trouble(&self, what: String) {
        self.wire.with(|engine, _| engine.notes.trouble(what));
    }

    fn lift(&mut self, side: Side, party: u32) {
        self.wire.with(|engine, _| engine.set_manner(side, party, Manner::Well));
        if let Err(error) = self.wire.lift(side, party) {
            self.trouble(format!("a listener stays away: {error}"));
        }
        if let Err(error) = self.kernel.lift(&self.net, side, party) {
            self.trouble(format!("a fault of the kernel stays: {error}"));
        }
    }

    /// As after a restart: the connections are gone, the listener is at another port.
    fn move_port(&self, side: Side, party: u32) -> Result<(), String> {
        self.reset(side, party);
        if self.net.transport == Transport::Udp {
            self.wire.with(|engine, now| engine.endanger(side, party, now, Duration::ZERO));
        }
        let port = self.wire.rebind(side, party, 0).map_err(|error| error.to_string())?;
        self.wire.with(|engine, _| engine.listens_at(side, party, port));
        Ok(())
    }

    /// What the engine wrote down.
    pub(crate) fn done(&mut self) -> Done {
        let last = self.kernel.end();
        self.hear_of_kernel(last);
        let (measured, closed) = (self.measured, self.closed.take());
        let tally = self.wire.tally();
        self.wire.with(|engine, now| {
            for (name, count) in [
                ("connects_failed", tally.failed.values().sum()),
                ("handshakes_failed", tally.handshakes_failed),
                ("datagrams_ignored", tally.datagrams_ignored),
                ("connects_peak_per_second", tally.peak_per_second().into()),
            ] {
                if count > 0 {
                    engine.notes.recorder.count(name, count);
                }
            }
            engine.finish(now);
            let rest = engine.end_measuring();
            Done {
                recorder: closed.unwrap_or(rest),
                violations: std::mem::take(&mut engine.notes.violations),
                seen: engine.take_seen_calls(),
                measured,
                failures: std::mem::take(&mut engine.notes.troubles),
            }
        })
    }

    /// Ends the run: nothing strikes any more.
    pub(crate) fn calm(&mut self) {
        self.strikes.clear();
        for (_, side, party) in std::mem::take(&mut self.lifts) {
            self.lift(side, party);
        }
    }
}

/// What the sockets make of a strike.
fn fault_of(what: &What) -> Option<Fault> {
    Some(match what {
        What::Reset => Fault::Reset,
        What::Fin => Fault::Fin,
        What::HalfClose => Fault::HalfClose,
        What::Refuse => Fault::Refuse,
        What::AcceptThenClose => Fault::AcceptThenClose,
        What::Blackhole => Fault::Blackhole,
        What::SlowReader { bytes_per_second } => {
            Fault::SlowReader { bytes_per_second: *bytes_per_second }
        }
        What::SlowWriter { gap } => Fault::SlowWriter { gap: *gap },
        What::StopReading => Fault::StopReading,
        What::CutInside => Fault::CutInside,
        What::TlsAlert => Fault::TlsAlert,
        What::HandshakeStall => Fault::HandshakeStall,
        _ => return None,
    })
}

/// Faults after which a party that is `away` refuses connections.
fn takes_the_listener(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Reset | Fault::Fin | Fault::HalfClose | Fault::CutInside | Fault::TlsAlert
    )
}
