//! Descriptors: how many a run needs, and raising the limit to what the machine allows.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::End;

/// Descriptors of the ring, the log, the standard streams and what else is not a connection.
const OTHERS: u64 = 64;

/// Sees to it that this process (and the server it starts) may open what the run needs.
///
/// # Errors
/// The hard limit is too low: says so, with the number needed and the remedy.
pub(crate) fn allow_descriptors(callees: u32, callers: u32) -> Result<(), End> {
    // A listener, a connection and one that replaces it for each callee; a listener and a
    // connection for each caller; the server has fewer.
    let needed = u64::from(callees) * 3 + u64::from(callers) * 2 + OTHERS;
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
