//! Reads the configuration: a TOML file becomes [`Options`], or a list of everything wrong with it.
//!
//! ```text
//! file ─► text (capped, UTF-8) ─► toml, with spans ─► read ─┬─► Config: values, origins, warnings
//!                                                           └─► Problems: file, line, what, range
//! ```
//!
//! Nothing is half-applied: one error refuses the file. Every error is told, not only the first,
//! unless the file is no TOML. What each option means is in `docs/OPTIONS.md`.

mod address;
mod changes;
mod device;
mod dns;
mod front;
mod pair;
mod problem;
mod read;
mod show;
mod spec;
mod tls;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{CONTACT_BYTES_MAX, Contact, Host, parse_contact};
pub use changes::Changes;
pub use device::NUMBER_BYTES_MAX;
pub use dns::{DNS_SERVERS_MAX, DnsConfig};
pub use problem::{PROBLEMS_MAX, Problem, Problems};
pub use spec::{DEVICE_TSERVER, NUMBERS, Number, SECTIONS, Section};
pub use tls::TlsConfig;

use crate::options::Options;
use crate::target::Target;

/// Bytes of a file; a larger one is refused. Room for some 150,000 devices: their number has no
/// other bound.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Addresses to listen on; more are refused.
pub const LISTEN_MAX: usize = 64;
/// Shards that `cores` may ask for; more are refused.
pub const CORES_MAX: usize = crate::shard::SHARDS_MAX;
/// Pairs of servers that a proxy may have; more are refused.
pub const PAIRS_MAX: usize = 1024;
/// Entries of `proxy-protocol-from`; more are refused.
pub const FRONTS_MAX: usize = 256;
/// Certificates of ours; more are refused.
pub const TLS_CERTIFICATES_MAX: usize = 64;
/// The highest number of a core that `cores` may name.
pub const CORE_NUMBER_MAX: u64 = 1023;

/// A configuration that is whole and valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is read once, at the start.
    pub server: ServerConfig,
    /// What the core reads.
    pub options: Options,
    /// What TLS needs.
    pub tls: TlsConfig,
    /// How names of devices are looked up.
    pub dns: DnsConfig,
    /// What is allowed and yet may not be what was meant.
    pub warnings: Problems,
    origins: Origins,
}

/// What the server needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: Vec<Target>,
    /// Which cores run a shard.
    pub cores: Cores,
    /// Whether memory may be in transparent huge pages.
    pub huge_pages: bool,
    /// How long established calls may go on after a drain began.
    pub drain_timeout: Duration,
    /// Where metrics are served, over HTTP; a loopback address.
    pub metrics: Option<SocketAddr>,
    /// Who is told of events.
    pub events: EventsConfig,
}

/// Who is told of events, and how many may wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsConfig {
    /// A file that gets a line for each.
    pub file: Option<PathBuf>,
    /// A Unix socket whose readers get a line for each.
    pub socket: Option<PathBuf>,
    /// Events of all shards that wait; a further one is lost.
    pub queue_max: usize,
}

impl EventsConfig {
    /// True when anybody is told.
    pub fn wanted(&self) -> bool {
        self.file.is_some() || self.socket.is_some()
    }
}

/// Which cores run a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// One shard on every core that the process may use.
    #[default]
    All,
    /// One shard for each entry; a core named twice runs two.
    List(Vec<usize>),
}

impl Config {
    /// Reads a file of at most [`FILE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let file = path.display().to_string();
        match read_file(path) {
            Ok(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => Self::parse(&file, text),
                Err(error) => {
                    let before = &bytes[..error.valid_up_to()];
                    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                    let byte = bytes[error.valid_up_to()];
                    let text = format!("byte 0x{byte:02x} is not UTF-8");
                    Err(Problems::one(&file, Some(line), text))
                }
            },
            Err(text) => Err(Problems::one(&file, None, text)),
        }
    }

    /// Reads the text of a file; `file` is what messages call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        if text.len() > FILE_BYTES_MAX {
            return Err(Problems::one(file, None, too_large()));
        }
        read::read(file, text)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err("is a directory; expected a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}

fn too_large() -> String {
    format!("is larger than {FILE_BYTES_MAX} bytes")
}

/// Where the values of a configuration come from.
#[derive(Clone, Debug, Default)]
struct Origins {
    file: String,
    settings: Vec<Setting>,
    devices: Vec<DeviceOrigin>,
    pairs: Vec<PairOrigin>,
}

/// A value in force outside the devices.
#[derive(Clone, Debug)]
struct Setting {
    section: &'static str,
    name: &'static str,
    /// As TOML.
    value: String,
    unit: &'static str,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    Line(usize),
    /// Nothing was said; the text says what that means where the value does not.
    Default(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct PairOrigin {
    line: usize,
    name: Option<usize>,
    primary: Option<usize>,
    backup: Option<usize>,
    sources: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct DeviceOrigin {
    line: usize,
    dn: Option<usize>,
    prefix: Option<usize>,
    kind: Option<usize>,
    contact: Option<usize>,
    backups: Option<usize>,
    outbound: Option<usize>,
    tls_name: Option<usize>,
    retry_after: Option<usize>,
}
