//! Descriptors: how many a run needs, and raising the limit to what the machine allows.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::End;
use crate::cli::Common;

/// Descriptors of the ring, the log, the standard streams and what else is not a connection.
const OTHERS: u64 = 64;

/// How a connection to a callee gives way to the next one.
#[derive(Clone, Copy)]
pub(crate) enum Replaced {
    /// It is closed before.
    Closed,
    /// It may still be open: nothing was said of its end.
    Open,
}

impl Replaced {
    fn connections(self) -> u64 {
        match self {
            Self::Closed => 1,
            Self::Open => 2,
        }
    }
}

/// Sees to it that this process (and the server it starts) may open what the run needs.
///
/// # Errors
/// The hard limit is too low: says so, with the number needed and the remedy.
pub(crate) fn allow_descriptors(common: &Common, replaced: Replaced) -> Result<(), End> {
    // A listener for each callee, to which each shard of the server opens a connection; a listener
    // and a connection for each caller. The server has no listener for each, and so fewer.
    let connections = common.server_cores.len() as u64 * replaced.connections();
    let needed = u64::from(common.callee_connections) * (1 + connections)
        + u64::from(common.caller_connections) * 2
        + OTHERS;
    raise(needed)?;
    // The kernel doubles the table of descriptors when it is full, and in a process with threads
    // waits for an RCU grace period then: 10 ms and more, in the middle of a recovery. So the table
    // gets its size now, while there is one thread.
    let highest = i32::try_from(needed - 1).unwrap_or(i32::MAX);
    let grown = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), highest);
    grown
        .map(drop)
        .map_err(|e| End::usage(format!("cannot make room for {needed} file descriptors: {e}")))
}

fn raise(needed: u64) -> Result<(), End> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(End::usage(format!(
            "too few file descriptors: the hard limit (RLIMIT_NOFILE) is {hard}, this run needs \
             {needed}; raise it (`ulimit -Hn {needed}` as root, or LimitNOFILE= of the service) or \
             lower --callee-connections or --caller-connections"
        )));
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|e| {
        End::usage(format!("cannot raise the limit of file descriptors to {needed}: {e}"))
    })
}
