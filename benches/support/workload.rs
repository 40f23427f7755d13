//! The work that is measured, each with an endpoint in the state in which it is measured.
//!
//! Between two operations 10 ms pass, and each bench warms up for longer than a transaction lasts after its 2xx
//! (64·T1, 32 s): as many transactions end while it is measured as begin, and no table grows.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use holdfast::options::Options;
use holdfast::sip::Stats;

use super::exchange::{Exchange, RETRY_AFTER, proxy_options, server_options};
use super::server::{Server, Trace};

/// Established calls that the operations take in turn.
const CALLS: usize = 1_000;
/// Operations that are measured.
pub(crate) const OPERATIONS: usize = 1_000;
/// Operations before them.
const WARM_UP: usize = 3_500;
/// Between two operations.
const PERIOD: Duration = Duration::from_millis(10);
/// Longer than a transaction lasts.
const SETTLE: Duration = Duration::from_secs(70);

/// Something to measure.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// How often the operation is done in one run.
    pub(crate) operations: usize,
    options: Arc<Options>,
    trace: Trace,
    measured: Range<usize>,
    stats: Stats,
    written: u64,
}

impl Workload {
    /// All of them; `legs` of the outage.
    pub(crate) fn all(legs: usize) -> Vec<Self> {
        vec![Self::reinvite(), Self::call(), Self::proxy_reinvite(), Self::outage(legs)]
    }

    /// A re-INVITE, its 200 and its ACK on one of 1,000 calls.
    pub(crate) fn reinvite() -> Self {
        Self::reinvites("reinvite-relay", server_options())
    }

    /// The same through the proxy, which knows no calls.
    pub(crate) fn proxy_reinvite() -> Self {
        Self::reinvites("reinvite-proxy", proxy_options())
    }

    fn reinvites(name: &'static str, options: Arc<Options>) -> Self {
        let mut exchange = Exchange::new(&options);
        let calls: Vec<String> = (0..CALLS).map(|call| exchange.establish(call)).collect();
        exchange.pass(SETTLE);
        Self::record(name, options, exchange, |exchange, n| {
            let (call, cseq) = (n % CALLS, 2 + (n / CALLS) as u32);
            exchange.request("INVITE", call, &calls[call], cseq);
        })
    }

    /// A call from INVITE to the 200 of its BYE.
    pub(crate) fn call() -> Self {
        let options = server_options();
        let exchange = Exchange::new(&options);
        Self::record("call", options, exchange, |exchange, n| {
            let to = exchange.establish(n);
            exchange.request("BYE", n, &to, 2);
        })
    }

    fn record(
        name: &'static str,
        options: Arc<Options>,
        mut exchange: Exchange,
        mut operation: impl FnMut(&mut Exchange, usize),
    ) -> Self {
        let mut start = 0;
        for n in 0..WARM_UP + OPERATIONS {
            if n == WARM_UP {
                start = exchange.steps();
            }
            operation(&mut exchange, n);
            exchange.pass(PERIOD);
        }
        Self::finish(name, options, exchange, start, OPERATIONS)
    }

    /// All connections to callees are reset with a re-INVITE on each call, which is sent again after the delay,
    /// and answered.
    pub(crate) fn outage(legs: usize) -> Self {
        let options = server_options();
        let mut exchange = Exchange::new(&options);
        let calls: Vec<String> = (0..legs).map(|call| exchange.establish(call)).collect();
        exchange.pass(SETTLE);
        exchange.answering = false;
        for (call, to) in calls.iter().enumerate() {
            exchange.request("INVITE", call, to, 2);
        }
        exchange.answering = true;
        let start = exchange.steps();
        exchange.reset_callees();
        exchange.pass(RETRY_AFTER + PERIOD);
        let stats = exchange.server.stats();
        assert_eq!(stats.recoveries_succeeded, legs as u64, "{stats:?}");
        Self::finish("outage-leg", options, exchange, start, legs)
    }

    fn finish(
        name: &'static str,
        options: Arc<Options>,
        mut exchange: Exchange,
        start: usize,
        operations: usize,
    ) -> Self {
        let trace = exchange.trace.take().expect("a record");
        let measured = start..trace.steps.len();
        let (stats, written) = (exchange.server.stats(), exchange.server.written);
        assert_eq!((stats.calls_lost, stats.messages_bad), (0, 0), "{name}: {stats:?}");
        Self { name, operations, options, trace, measured, stats, written }
    }

    /// An endpoint in the state in which the work begins.
    pub(crate) fn prepare(&self) -> Server {
        let mut server = Server::new(&self.options);
        server.replay(&self.trace, 0..self.measured.start);
        server
    }

    /// Does the work.
    pub(crate) fn run(&self, server: &mut Server) {
        server.replay(&self.trace, self.measured.clone());
    }

    /// Messages that are read in one run.
    pub(crate) fn messages(&self, before: &Stats) -> u64 {
        self.stats.messages - before.messages
    }

    /// # Panics
    /// When the endpoint did something else than it did while it was recorded.
    pub(crate) fn check(&self, server: &Server) {
        assert_eq!((server.stats(), server.written), (self.stats, self.written), "{}", self.name);
    }
}
