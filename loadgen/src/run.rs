//! A run from its command line to its outcome: addresses, server's process, workers, what they tell.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::End;
use crate::cli::Common;
use crate::engine::Settings;
use crate::oracle::{self, events::Events};
use crate::outcome::{
    About, Gather, Live, Look, Manifest, Outcome, Recorder, ServerBuild, ServerUse,
};
use crate::plan::{Purpose, Random, Strike};
use crate::scenario::program::Mixture;
use crate::server::{self, Server};
use crate::setup::{self, Setup};
use crate::usage;
use crate::worker::{self, Done, Job, News, Point, Work};

/// Between the start of the server and the look at its memory.
const IDLE: Duration = Duration::from_millis(300);
/// Between two looks at whether the server still runs.
const LOOK: Duration = Duration::from_millis(100);
/// The series' intervals.
const INTERVAL: Duration = Duration::from_millis(100);
/// The server's events are read so many bytes at a time.
const EVENTS_BUFFER: usize = 1 << 20;
/// How long workers may take to end after they were asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// What outlives a run that hangs: the wish to stop, and what is to be cleared up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) stop: Arc<AtomicBool>,
    /// Process of the server that was started here; 0: none.
    pub(crate) server: Arc<AtomicU32>,
    /// The folder of the run.
    pub(crate) dir: Arc<OnceLock<PathBuf>>,
}

impl Watch {
    /// Ends the server, undoes faults of the kernel and removes the folder, in place of owners that
    /// hang.
    pub(crate) fn clear_up(&self) {
        let pid = self.server.load(Ordering::Relaxed);
        if pid != 0 {
            server::end_child(pid);
        }
        if let Err(error) = crate::net::kernel::abandon() {
            crate::last_words(&format!("faults of the kernel are left: {error}"));
        }
        if let Some(dir) = self.dir.get() {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// The server that was named, or one that is started.
///
/// Called before a thread is pinned: a child inherits the CPUs of its parent.
///
/// # Errors
/// It cannot be started.
pub(crate) fn server(setup: &Setup, common: &Common, watch: &Watch) -> Result<Server, End> {
    if let Some(address) = common.server {
        let server = Server::running(address, common.server_pid);
        if let (Some(pid), None) = (common.server_pid, server.usage()) {
            return Err(End::usage(format!("--server-pid: there is no process {pid}")));
        }
        return Ok(server);
    }
    let server = Server::start(&program(common)?, setup, &watch.stop)?;
    watch.server.store(server.pid.unwrap_or(0), Ordering::Relaxed);
    std::thread::sleep(IDLE);
    Ok(server)
}

fn program(common: &Common) -> Result<PathBuf, End> {
    if let Some(path) = &common.holdfast {
        return Ok(path.clone());
    }
    let own = std::env::current_exe()
        .map_err(|e| End::usage(format!("cannot tell where this program is: {e}")))?;
    Ok(own.with_file_name("holdfast"))
}

/// What the workers are to do.
pub(crate) struct Task<'a> {
    pub(crate) command: &'static str,
    pub(crate) mixture: &'a Mixture,
    /// The work of worker `n` of so many.
    pub(crate) work: &'a dyn Fn(u32, u32) -> Work,
    /// Of all parties.
    pub(crate) strikes: Vec<Strike>,
    pub(crate) open_loop: bool,
}

/// Runs the workers and puts together what they found. Goals and verdict are still to come.
///
/// # Errors
/// What the machine does not allow, the timeout, or a signal.
pub(crate) fn play(
    task: &Task<'_>,
    setup: &Setup,
    common: &Common,
    server: &mut Server,
    watch: &Watch,
) -> Result<(Recorder, About), End> {
    let workers = common.workers();
    let (sender, news) = channel();
    let deadline =
        (common.timeout > 0).then(|| Instant::now() + Duration::from_secs(common.timeout.into()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut room = Room::new(workers, common, server)?;
    let mut threads = Vec::new();
    for number in 0..workers {
        let job = Job {
            number,
            core: common.cores.get(number as usize).copied(),
            settings: settings(setup, common, number),
            mixture: task.mixture.clone(),
            callers: setup.callers_of(number, workers).to_vec(),
            callees: setup.callees_of(number, workers).to_vec(),
            server: setup.server,
            transport: setup.transport,
            tls: setup.tls.clone(),
            strikes: setup.strikes_of(&task.strikes, number, workers),
            work: (task.work)(number, workers),
            deadline,
            stop: Arc::clone(&stop),
            news: sender.clone(),
        };
        let spawned = worker::spawn(job);
        threads.push(spawned.map_err(|e| End::usage(format!("cannot start a thread: {e}")))?);
    }
    drop(sender);
    let told = room.listen(&news, server, watch, &stop);
    for thread in threads {
        // A worker that panicked has printed why.
        let ended = thread.join();
        ended.map_err(|_| End::usage("a worker ended by a fault of its own".into()))?;
    }
    told?;
    room.conclude(task, setup, common, server)
}

fn settings(setup: &Setup, common: &Common, worker: u32) -> Settings {
    Settings {
        // Workers tell their calls apart by it.
        run: setup.run.wrapping_add(worker),
        seed: Random::new(setup.seed, Purpose::Programs(worker)).number(),
        address: setup.server,
        server: setup.server.to_string(),
        transport: setup::name_of(setup.transport),
        datagrams: setup.transport == crate::net::Transport::Udp,
        delay: common.delay(),
        interval: INTERVAL,
    }
}

/// Where the workers' news come in.
struct Room {
    gather: Gather,
    live: Live<std::io::Stderr>,
    lines: Option<(PathBuf, BufWriter<File>)>,
    /// How many workers came to each point.
    points: [u32; 4],
    usage: ServerUse,
    done: Vec<Done>,
    failed: Option<End>,
    failures: Vec<String>,
    workers: u32,
}

impl Room {
    fn new(workers: u32, common: &Common, server: &Server) -> Result<Self, End> {
        let lines = common.json_lines.as_ref().map(|path| match File::create(path) {
            Ok(file) => Ok((path.clone(), BufWriter::new(file))),
            Err(e) => Err(End::usage(format!("cannot write {}: {e}", path.display()))),
        });
        Ok(Self {
            gather: Gather::new(workers as usize),
            live: Live::new(std::io::stderr(), Look::of_stderr()),
            lines: lines.transpose()?,
            points: [0; 4],
            usage: ServerUse { pid: server.pid, ..ServerUse::default() },
            done: Vec::new(),
            failed: None,
            failures: Vec::new(),
            workers,
        })
    }

    /// Takes news until every worker is done.
    fn listen(
        &mut self,
        news: &Receiver<News>,
        server: &mut Server,
        watch: &Watch,
        stop: &AtomicBool,
    ) -> Result<(), End> {
        let mut asked: Option<Instant> = None;
        loop {
            match news.recv_timeout(LOOK) {
                Ok(one) => {
                    if let Err(end) = self.take(one, server) {
                        self.failed.get_or_insert(end);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.failures.is_empty()
                && let Some(status) = server.has_ended()
            {
                let words = server.last_words();
                self.failures.push(format!("the server ended during the run: {status}{words}"));
            }
            if watch.stop.load(Ordering::Relaxed) || self.failed.is_some() {
                stop.store(true, Ordering::Relaxed);
                let since = *asked.get_or_insert_with(Instant::now);
                if since.elapsed() > END_MAX {
                    break;
                }
            }
        }
        self.live.end();
        match self.failed.take() {
            Some(end) => Err(end),
            None => Ok(()),
        }
    }

    fn take(&mut self, news: News, server: &Server) -> Result<(), End> {
        match news {
            News::Progress(worker, progress) => {
                for line in self.gather.news(worker as usize, progress) {
                    self.live.show(&line);
                    self.write(&line.to_json_line())?;
                }
            }
            News::Point(point) => {
                let at = &mut self.points[point as usize];
                *at += 1;
                if *at == self.workers {
                    let usage = server.usage();
                    match point {
                        Point::Ready => self.usage.idle = usage,
                        Point::Up => self.usage.up = usage,
                        Point::Recovered => self.usage.recovered = usage,
                        Point::After => self.usage.after = usage,
                    }
                }
            }
            News::Done(worker, done) => match *done {
                Ok(done) => {
                    for line in self.gather.ended(worker as usize, INTERVAL) {
                        self.live.show(&line);
                        self.write(&line.to_json_line())?;
                    }
                    self.done.push(done);
                }
                Err(end) => {
                    self.failed.get_or_insert(end);
                }
            },
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> Result<(), End> {
        let Some((path, file)) = &mut self.lines else { return Ok(()) };
        let written = file.write_all(line.as_bytes()).and_then(|()| file.flush());
        written.map_err(|e| End::usage(format!("cannot write {}: {e}", path.display())))
    }

    fn conclude(
        mut self,
        task: &Task<'_>,
        setup: &Setup,
        common: &Common,
        server: &mut Server,
    ) -> Result<(Recorder, About), End> {
        let mut about = About {
            command: task.command.into(),
            scenario: task.mixture.name.clone(),
            manifest: manifest(setup, common),
            open_loop: task.open_loop,
            failures: std::mem::take(&mut self.failures),
            rss_peak_kib: usage::of(std::process::id()).map_or(0, |own| own.rss_peak_kib),
            server: self.usage.pid.map(|_| self.usage.clone()),
            ..About::default()
        };
        let mut sum: Option<Recorder> = None;
        let mut violations = oracle::Violations::default();
        for done in self.done.drain(..) {
            about.duration = about.duration.max(done.measured);
            about.failures.extend(done.failures);
            violations.merge(&done.violations);
            for (number, calls) in &done.seen {
                server.seen.entry(number.clone()).or_default().add(calls);
            }
            match sum.as_mut() {
                Some(sum) => sum.merge(done.recorder),
                None => sum = Some(done.recorder),
            }
        }
        about.violations.add(&violations);
        let recorder = sum.ok_or_else(|| End::usage("no worker came to its end".into()))?;
        Ok((recorder, about))
    }
}

/// What is wrong in the events of a server that has ended, against what was seen in the run of
/// length `time`. Nothing where it wrote none.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn events(
    setup: &Setup,
    server: &Server,
    time: Duration,
) -> Result<oracle::Violations, End> {
    let mut violations = oracle::Violations::default();
    let Some(path) = &setup.events else { return Ok(violations) };
    let file = File::open(path).map(|file| BufReader::with_capacity(EVENTS_BUFFER, file));
    let events = file.and_then(|file| Events::read(file, Duration::ZERO));
    let fail = |e| End::usage(format!("cannot read the server's events {}: {e}", path.display()));
    let events = events.map_err(fail)?;
    let seen = server.seen.iter().map(|(number, calls)| (number.as_str(), *calls));
    events.compare(seen, time, &mut violations);
    Ok(violations)
}

fn manifest(setup: &Setup, common: &Common) -> Manifest {
    let cores = common.cores.iter().map(|core| u32::from(*core)).collect();
    let mut manifest = Manifest::collect(setup.seed, cores);
    if common.server.is_none() {
        manifest.server = Some(ServerBuild::new(env!("CARGO_PKG_VERSION"), &setup.config));
    }
    manifest
}

/// Files that cannot be written are told of before the run, not after it.
///
/// # Errors
/// The first of them.
pub(crate) fn check_files(common: &Common) -> Result<(), End> {
    let fail = |path: &Path, e: std::io::Error| {
        End::usage(format!("cannot write {}: {e}", path.display()))
    };
    for path in [&common.json, &common.json_lines, &common.html].into_iter().flatten() {
        let there = std::fs::metadata(path);
        // To open a pipe would wait for its reader.
        if there.as_ref().is_ok_and(|file| !file.is_file() && !file.is_dir()) {
            continue;
        }
        let opened = File::options().append(true).create(true).open(path);
        opened.map_err(|e| fail(path, e))?;
        if there.is_err() {
            let _ = std::fs::remove_file(path);
        }
    }
    match &common.histograms {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|e| fail(dir, e)),
        None => Ok(()),
    }
}

/// The last line of the JSON lines, and every file that was asked for.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write_files(outcome: &Outcome, common: &Common) -> Result<(), End> {
    let fail = |path: &Path, e: &dyn std::fmt::Display| {
        End::usage(format!("cannot write {}: {e}", path.display()))
    };
    if let Some(path) = &common.json {
        std::fs::write(path, outcome.to_json()).map_err(|e| fail(path, &e))?;
    }
    if let Some(path) = &common.json_lines {
        let file = File::options().append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(outcome.to_json_line().as_bytes()));
        written.map_err(|e| fail(path, &e))?;
    }
    if let Some(path) = &common.html {
        std::fs::write(path, outcome.to_html()).map_err(|e| fail(path, &e))?;
    }
    if let Some(path) = &common.histograms {
        write_histograms(outcome, path).map_err(|e| fail(path, &e))?;
    }
    Ok(())
}

fn write_histograms(outcome: &Outcome, dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    for (name, bytes) in outcome.hdr_files()? {
        std::fs::write(dir.join(name), bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}
