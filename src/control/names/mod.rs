//! Names of devices: looked up, kept for as long as DNS says, and told to the shards when they lead
//! elsewhere.
//!
//! ```text
//!            due                       answered: its targets, due again when their time is over
//!  waiting ───────► asked ─┬──────────────────────────────────────────────► waiting
//!     ▲                    └─ failed: the last targets stay, due again in RETRY ──┐
//!     └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Shards never wait for DNS: they have the targets of the last answer. A device whose name has none
//! yet cannot be called.

mod dns;
mod locate;
mod order;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::config::{Config, DnsConfig};
use crate::options::{Device, HostName, Located, Options};
use crate::target::Target;
use dns::Dns;
use locate::{Failure, Found, Reach};

/// An answer is kept at least so long, whatever its TTL is.
pub(super) const TTL_MIN: Duration = Duration::from_secs(5);
/// An answer is kept no longer.
pub(super) const TTL_MAX: Duration = Duration::from_secs(3600);
/// After a failure a name is looked up again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// Names that are looked up at once; further ones wait.
const LOOKUPS_MAX: usize = 64;
/// How long all the questions for one name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the start waits for the first answers.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// Between two times that shards are told: what changes meanwhile is told together.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Devices of one name that a line of the log names.
const DEVICES_NAMED: usize = 3;

/// What look-ups came to.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// Answered.
    pub(super) answered: AtomicU64,
    /// Answered, with something left out.
    pub(super) cut: AtomicU64,
    /// Without an answer, or with one that leads nowhere.
    pub(super) failed: AtomicU64,
    /// Names that have no targets now.
    pub(super) unknown: AtomicU64,
}

/// The names of all devices.
pub(super) struct Names {
    table: HashMap<HostName, Entry>,
    /// When each is to be looked up; what has another `due` by now is void.
    schedule: BTreeMap<(Instant, u64), HostName>,
    sequence: u64,
    running: JoinSet<(HostName, Result<Found, Failure>)>,
    config: DnsConfig,
    reach: Reach,
    dns: Option<Dns>,
    rng: ChaCha12Rng,
    /// When the shards are told what is new; `None`: nothing is.
    tell: Option<Instant>,
    told: Instant,
    pub(super) lookups: Arc<Lookups>,
}

/// A name, and what is known of it.
#[derive(Default)]
struct Entry {
    located: Option<Located>,
    /// Its key in the schedule; `None` while it is being looked up.
    due: Option<(Instant, u64)>,
    /// The devices that it stands for, as the log calls them.
    devices: String,
    /// True when the last look-up failed and that was told.
    failing: bool,
    /// True when an answer was cut and that was told.
    cut: bool,
}

impl Names {
    /// The names in a configuration; call it in the control runtime. Nothing is asked yet.
    pub(super) fn new(config: &Config, seed: [u8; 32]) -> Self {
        let mut names = Self {
            table: HashMap::new(),
            schedule: BTreeMap::new(),
            sequence: 0,
            running: JoinSet::new(),
            config: config.dns.clone(),
            reach: reach(config),
            dns: None,
            rng: ChaCha12Rng::from_seed(seed),
            tell: None,
            told: Instant::now(),
            lookups: Arc::default(),
        };
        names.enter(&config.options);
        names
    }

    /// Another configuration is in force: new names are due at once, and all of them if they are to be
    /// asked for elsewhere or otherwise.
    pub(super) fn configure(&mut self, config: &Config) {
        let reach = reach(config);
        if (&self.config, &self.reach) != (&config.dns, &reach) {
            self.config = config.dns.clone();
            self.reach = reach;
            self.dns = None;
            // What is under way was asked the old way.
            self.running = JoinSet::new();
            self.schedule.clear();
            let known: Vec<_> = self.table.keys().cloned().collect();
            known.into_iter().for_each(|name| self.schedule(name, Instant::now()));
        }
        self.enter(&config.options);
    }

    /// The same options, with every name where it leads now.
    pub(super) fn located(&self, options: &Options) -> Options {
        options.located(|name| self.table.get(name)?.located.as_ref())
    }

    /// Waits for the first answers, not longer than [`START_PATIENCE`].
    pub(super) async fn first_answers(&mut self) {
        let answers = async {
            while !self.is_idle() {
                self.step().await;
            }
        };
        let _ = timeout(START_PATIENCE, answers).await;
        self.tell = None;
    }

    /// True when nothing is asked, and nothing due.
    fn is_idle(&self) -> bool {
        let next = self.schedule.keys().next();
        self.running.is_empty() && next.is_none_or(|(due, _)| *due > Instant::now())
    }

    /// Ready when names lead elsewhere than was told. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        while !self.step().await {}
    }

    /// Waits until something happens; true when the shards are to be told.
    async fn step(&mut self) -> bool {
        self.start_due();
        let full = self.running.len() >= LOOKUPS_MAX;
        let due = self.schedule.keys().next().map(|(due, _)| *due).filter(|_| !full);
        let tell = self.tell;
        tokio::select! {
            Some(ended) = self.running.join_next() => self.on_ended(ended),
            () = until(due) => {}
            () = until(tell) => {
                self.tell = None;
                self.told = Instant::now();
                return true;
            }
        }
        false
    }

    /// Takes the names of the devices; those of no device are forgotten.
    fn enter(&mut self, options: &Options) {
        let mut devices: HashMap<&HostName, Vec<&Device>> = HashMap::new();
        for device in options.devices() {
            for name in device.looked_up() {
                let here = devices.entry(name).or_default();
                if here.last().is_none_or(|last| !std::ptr::eq(*last, device)) {
                    here.push(device);
                }
            }
        }
        self.table.retain(|name, _| devices.contains_key(name));
        let new: HashSet<_> =
            devices.keys().filter(|name| !self.table.contains_key(**name)).copied().collect();
        for (&name, devices) in &devices {
            self.table.entry(name.clone()).or_default().devices = listed(devices);
        }
        new.into_iter().for_each(|name| self.schedule(name.clone(), Instant::now()));
        let unknown = self.table.values().filter(|entry| entry.located.is_none()).count();
        self.lookups.unknown.store(unknown as u64, Ordering::Relaxed);
    }

    fn schedule(&mut self, name: HostName, at: Instant) {
        self.sequence += 1;
        let Some(entry) = self.table.get_mut(&name) else { return };
        if let Some(before) = entry.due.replace((at, self.sequence)) {
            self.schedule.remove(&before);
        }
        self.schedule.insert((at, self.sequence), name);
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while self.running.len() < LOOKUPS_MAX
            && let Some(next) = self.schedule.first_entry().filter(|next| next.key().0 <= now)
        {
            let (key, name) = next.remove_entry();
            let Some(entry) = self.table.get_mut(&name) else { continue };
            // Void: the name was gone for a while, and is due at another time.
            if entry.due.take_if(|due| *due == key).is_none() {
                continue;
            }
            match self.open_dns() {
                Ok(dns) => {
                    let mut seed = [0; 32];
                    self.rng.fill_bytes(&mut seed);
                    self.running.spawn(look_up(dns, name, self.reach.clone(), seed));
                }
                Err(failure) => self.on_answer(name, Err(failure)),
            }
        }
    }

    fn open_dns(&mut self) -> Result<Dns, Failure> {
        if self.dns.as_ref().is_none_or(Dns::is_stale) {
            self.dns = Some(Dns::open(&self.config)?);
        }
        self.dns.clone().ok_or_else(|| Failure("no DNS server is known".to_owned()))
    }

    fn on_ended(&mut self, ended: Result<(HostName, Result<Found, Failure>), JoinError>) {
        // The task catches what its look-up does.
        if let Ok((name, answer)) = ended {
            self.on_answer(name, answer);
        }
    }

    fn on_answer(&mut self, name: HostName, answer: Result<Found, Failure>) {
        let Some(entry) = self.table.get_mut(&name) else { return };
        let count = match &answer {
            Ok(_) => &self.lookups.answered,
            Err(_) => &self.lookups.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let again = match answer {
            Ok(found) => {
                if !found.cut.is_empty() {
                    self.lookups.cut.fetch_add(1, Ordering::Relaxed);
                }
                let ttl = found.ttl;
                if entry.located.is_none() {
                    self.lookups.unknown.fetch_sub(1, Ordering::Relaxed);
                }
                if entry.take(&name, found) {
                    self.tell.get_or_insert((self.told + TELL_EVERY).max(Instant::now()));
                }
                ttl
            }
            Err(failure) => {
                entry.fail(&name, &failure);
                RETRY
            }
        };
        self.schedule(name, Instant::now() + again);
    }
}

impl Entry {
    /// True when the shards are to be told.
    fn take(&mut self, name: &HostName, found: Found) -> bool {
        let Found { located, ttl: _, cut } = found;
        let (host, devices) = (&name.host, &self.devices);
        if !cut.is_empty() && !self.cut {
            tracing::warn!("{host} ({devices}): left out of the answer: {cut}");
        }
        self.cut = !cut.is_empty();
        let moved = self.located.as_ref().is_none_or(|old| !is_same_set(old, &located));
        if moved || self.failing {
            tracing::info!("{host} ({devices}) is at {}", shown(&located));
        }
        self.failing = false;
        let changed = self.located.as_ref() != Some(&located);
        self.located = Some(located);
        changed
    }

    fn fail(&mut self, name: &HostName, failure: &Failure) {
        if !std::mem::replace(&mut self.failing, true) {
            let (host, devices) = (&name.host, &self.devices);
            let meanwhile = match self.located {
                Some(_) => "its last answer stays in force",
                None => "it cannot be called",
            };
            let seconds = RETRY.as_secs();
            tracing::warn!(
                "{host} ({devices}) was not found: {failure}; {meanwhile}, and DNS is asked again \
                 every {seconds} s"
            );
        }
    }
}

async fn look_up(
    dns: Dns,
    name: HostName,
    reach: Reach,
    seed: [u8; 32],
) -> (HostName, Result<Found, Failure>) {
    // A task of its own: a panic in the resolver is a look-up that failed, and no more.
    let mut task = JoinSet::new();
    let asked = name.clone();
    task.spawn(async move {
        let rng = ChaCha12Rng::from_seed(seed);
        timeout(LOOKUP_TIMEOUT, locate::locate(&dns, &asked, &reach, rng)).await
    });
    let answer = match task.join_next().await {
        Some(Ok(Ok(answer))) => answer,
        Some(Ok(Err(_))) => Err(Failure(format!("no answer in {} s", LOOKUP_TIMEOUT.as_secs()))),
        Some(Err(_)) | None => Err(Failure("the resolver failed".to_owned())),
    };
    (name, answer)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

fn reach(config: &Config) -> Reach {
    Reach::new(&config.server.listen, config.speaks_tls())
}

fn is_same_set(one: &Located, other: &Located) -> bool {
    one.transport == other.transport
        && one.addresses.len() == other.addresses.len()
        && one.addresses.iter().all(|address| other.addresses.contains(address))
}

fn shown(Located { transport, addresses }: &Located) -> String {
    let target = |&address| Target { transport: *transport, address }.to_string();
    addresses.iter().map(target).collect::<Vec<_>>().join(", ")
}

fn listed(devices: &[&Device]) -> String {
    let name = |device: &&Device| {
        let prefix = || format!("prefix {}", device.prefix.as_deref().unwrap_or_default());
        device.dn.clone().unwrap_or_else(prefix)
    };
    let names: Vec<_> = devices.iter().take(DEVICES_NAMED).map(name).collect();
    let (noun, more) = match devices.len() {
        1 => ("device", String::new()),
        count if count <= DEVICES_NAMED => ("devices", String::new()),
        count => ("devices", format!(" and {} more", count - DEVICES_NAMED)),
    };
    format!("{noun} {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_goes_and_comes_back_is_looked_up_once_at_a_time() {
        let config = |contact: &str| {
            let text = format!(
                "[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n[dns]\nservers = [\"127.0.0.1:9\"]\n\
                 [[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"sip:{contact};transport=tcp\"\n"
            );
            Config::parse("a.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
        };
        let [name, address] = ["pbx.example", "127.0.0.2"].map(config);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let mut names = Names::new(&name, [1; 32]);
        names.configure(&address);
        names.configure(&name);
        assert_eq!(names.schedule.len(), 2, "one of them is void");
        names.start_due();
        assert_eq!((names.schedule.len(), names.running.len()), (0, 1));
    }
}
