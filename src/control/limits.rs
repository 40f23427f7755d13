//! What the kernel and the environment must allow, looked at before anything starts.
//!
//! An io_uring executor that cannot be made fails with "out of memory" or a panic in another
//! thread; these errors name the limit, what was found, what is needed, and the remedy.

use std::fmt;
use std::fs;
use std::panic;

use glommio::{LocalExecutorBuilder, Placement};
use rlimit::Resource;

/// Memory that may be locked, below which glommio makes no executor.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Descriptors of a shard besides its flows and listeners: three rings, an event, a worker thread.
const SHARD_DESCRIPTORS: u64 = 16;
/// Descriptors of the process besides its shards: standard streams, signals, the control runtime.
const PROCESS_DESCRIPTORS: u64 = 32;
/// Flows that a server must be able to hold to be of any use.
const FLOWS_MIN: u64 = 64;

/// A limit that is too low to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// RLIMIT_MEMLOCK.
    Memlock {
        /// The hard limit, in bytes.
        found: u64,
    },
    /// RLIMIT_NOFILE.
    Nofile {
        /// The hard limit.
        found: u64,
        /// What the shards need at least.
        needed: u64,
    },
    /// `kernel.io_uring_disabled`.
    Disabled {
        /// Its value.
        found: u8,
    },
    /// The kernel has no io_uring, or a filter denies it.
    Denied {
        /// What the attempt said.
        text: String,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memlock { found } => write!(
                f,
                "cannot lock {} KiB of memory for io_uring: the limit is {} KiB; raise \
                 RLIMIT_MEMLOCK (LimitMEMLOCK=, ulimit -l), see tuning/README.md",
                MEMLOCK_BYTES_MIN >> 10,
                found >> 10
            ),
            Self::Nofile { found, needed } => write!(
                f,
                "cannot open the {needed} descriptors that the shards need at least: the limit is \
                 {found}; raise RLIMIT_NOFILE (LimitNOFILE=, ulimit -n), see tuning/README.md"
            ),
            Self::Disabled { found } => write!(
                f,
                "io_uring is switched off: kernel.io_uring_disabled is {found} and must be 0, or 1 \
                 with this user in kernel.io_uring_group, see tuning/README.md"
            ),
            Self::Denied { text } => write!(
                f,
                "io_uring cannot be used: {text}; the kernel must be 5.8 or later and no seccomp \
                 filter (container runtimes have one) may deny io_uring_setup, see \
                 tuning/README.md"
            ),
        }
    }
}

impl std::error::Error for LimitError {}

/// Raises the soft limits to the hard ones and says how many flows each shard can then hold.
///
/// # Errors
/// What cannot be raised far enough for so many shards and listeners.
pub fn prepare(shards: usize, listeners: usize) -> Result<u64, LimitError> {
    let memlock = raise(Resource::MEMLOCK);
    if memlock < MEMLOCK_BYTES_MIN {
        return Err(LimitError::Memlock { found: memlock });
    }
    let nofile = raise(Resource::NOFILE);
    let needed = descriptors(shards, listeners, FLOWS_MIN);
    if nofile < needed {
        return Err(LimitError::Nofile { found: nofile, needed });
    }
    try_io_uring()?;
    Ok((nofile - descriptors(shards, listeners, 0)) / (shards as u64).max(1))
}

/// Descriptors of a server whose shards have so many flows each.
pub fn descriptors(shards: usize, listeners: usize, flows: u64) -> u64 {
    let each = SHARD_DESCRIPTORS + listeners as u64 + flows;
    PROCESS_DESCRIPTORS + shards as u64 * each
}

/// The limit of lockable memory in force, in bytes.
pub fn memlock() -> Option<u64> {
    Resource::MEMLOCK.get().ok().map(|(soft, _)| soft)
}

/// Raises the soft limit to the hard one; the limit in force then.
fn raise(resource: Resource) -> u64 {
    let Ok((soft, hard)) = resource.get() else { return u64::MAX };
    if soft < hard && resource.set(hard, hard).is_ok() { hard } else { soft }
}

/// Makes an executor and drops it.
fn try_io_uring() -> Result<(), LimitError> {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let found = disabled.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if found == 2 {
        return Err(LimitError::Disabled { found });
    }
    // glommio panics where the kernel denies a ring; what it says is part of our own message.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let attempt = std::thread::spawn(|| {
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .make()
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .join();
    panic::set_hook(hook);
    match attempt {
        Ok(Ok(())) => Ok(()),
        _ if found == 1 => Err(LimitError::Disabled { found }),
        Ok(Err(text)) => Err(LimitError::Denied { text }),
        Err(_) => Err(LimitError::Denied { text: "the kernel denies a ring".to_owned() }),
    }
}
