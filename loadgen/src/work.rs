//! What each command does, from its options to its exit status.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Common, CompareArgs, DrillArgs, Expect, Moment, RunArgs, TransportArg};
use crate::drill::DrillPlan;
use crate::limits::Replaced;
use crate::load::{LoadPlan, share_of};
use crate::outcome::{self, About, Comparison, Goal, Outcome, Recorder, Side};
use crate::plan::{self, Fault, Knee, Load, Profile, Strike};
use crate::run::{self, Task, Watch};
use crate::scenario::builtin;
use crate::scenario::load::{self, Extras};
use crate::scenario::program::{Mixture, Scenario};
use crate::scenario::trouble::Trouble;
use crate::server::Server;
use crate::setup::Setup;
use crate::worker::Work;
use crate::{End, catch_signals, limits, print, watchdog};

/// What must hold at the knee when no goal is given.
const KNEE_GOALS: [&str; 2] = ["failed<0.1%", "p99(invite)<50ms"];

/// A run that may begin: addresses, a server, and what ends both.
struct Ready {
    // Before the folder that its log is in.
    server: Server,
    setup: Setup,
    watch: Watch,
}

impl Ready {
    /// Ends the server; what was wrong with its end, or else what is in its events.
    fn end(&mut self, about: &mut About) -> Result<(), End> {
        match self.server.end() {
            // What it did not come to write is not missing.
            Some(complaint) => about.failures.push(complaint),
            None => about.violations.add(&run::events(&self.setup, &self.server, about.duration)?),
        }
        Ok(())
    }
}

/// `None` when only the configuration was asked for.
fn ready(common: &Common, replaced: Replaced) -> Result<Option<Ready>, End> {
    let mut setup = Setup::new(common)?;
    if common.print_config {
        print(&setup.config)?;
        return Ok(None);
    }
    limits::allow_descriptors(common, replaced)?;
    run::check_files(common)?;
    let watch = Watch::default();
    catch_signals(&watch)?;
    let _ = watch.dir.set(setup.dir.clone());
    setup.prepare(common)?;
    let server = run::server(&setup, common, &watch)?;
    // The first touch of a huge page clears 2 MiB: for as long the generator would be late, and
    // measure itself. A server started before does not inherit it. Where the kernel knows no such
    // call, it has none of them either.
    let _ = nix::sys::prctl::set_thp_disable(true);
    Ok(Some(Ready { server, setup, watch }))
}

/// `loadgen drill`.
///
/// # Errors
/// What the machine does not allow, the timeout, or a signal.
pub(crate) fn drill(args: &DrillArgs) -> Result<u8, End> {
    let common = &args.common;
    if common.transport == TransportArg::Udp && args.fault == Moment::After100 {
        let text = "--fault after-100 over UDP: a 100 ends the retransmissions, and no connection dies \
                    that would make the server send again; allowed are before-read and after-read";
        return Err(End::usage(text.into()));
    }
    let (mixture, warnings) = scenario(&args.scenario, None, None)?;
    for warning in warnings {
        crate::warn(&warning);
    }
    // Its connections are reset.
    let Some(mut ready) = ready(common, Replaced::Closed)? else { return Ok(0) };
    let _watchdog = (common.timeout > 0).then(|| watchdog(common.timeout, ready.watch.clone()));
    let work = |worker, workers| Work::Drill(DrillPlan::new(args, worker, workers));
    let task = Task {
        command: "drill",
        mixture: &mixture,
        work: &work,
        strikes: Vec::new(),
        open_loop: false,
    };
    let Ready { setup, server, watch } = &mut ready;
    let (recorder, mut about) = run::play(&task, setup, common, server, watch)?;
    about.parameters = parameters(common);
    about.parameters.extend([
        ("calls".into(), json!(args.calls)),
        ("rate".into(), json!(args.rate)),
        ("in_flight".into(), json!(args.in_flight)),
        ("fault".into(), json!(args.fault.text())),
        ("return_after_ms".into(), json!(args.return_after)),
        ("expect".into(), json!(args.expect.text())),
    ]);
    ready.end(&mut about)?;
    about.failures.extend(unexpected(&recorder, args));
    finish(recorder, about, common)
}

/// What a drill's calls came to and should not have.
fn unexpected(recorder: &Recorder, args: &DrillArgs) -> Vec<String> {
    let calls = recorder.calls();
    let wanted = match args.expect {
        Expect::Kept => calls.kept,
        Expect::Released => calls.released,
    };
    let all = u64::from(args.calls);
    let mut failures = Vec::new();
    if calls.set_up < all {
        failures.push(format!("{} of {all} calls were not set up", all - calls.set_up));
    }
    if wanted < all {
        let word = args.expect.text();
        failures.push(format!("{} of {all} calls were not {word}", all - wanted));
    }
    failures
}

/// `loadgen run`.
///
/// # Errors
/// What the machine does not allow, a scenario that cannot be read, the timeout, or a signal.
pub(crate) fn run(args: &RunArgs) -> Result<u8, End> {
    let (callee, fields) = (args.callee.as_deref(), args.fields.as_deref());
    let (mixture, warnings) = scenario(&args.scenario, callee, fields)?;
    for warning in warnings {
        crate::warn(&warning);
    }
    let common = &args.common;
    role(args, &mixture)?;
    // Bad faults are told of before anything is started.
    let faults = faults(args, &mixture)?;
    let kernel = crate::kernel::check(&strikes(args, &faults, 0)?);
    kernel.map_err(End::usage)?;
    goals(common, &mixture)?;
    fits_timeout(args)?;
    let Some(mut ready) = ready(common, Replaced::Open)? else { return Ok(0) };
    let strikes = strikes(args, &faults, ready.setup.seed)?;
    let texts = faults.iter().map(Fault::to_string).collect();
    let timeline = Timeline { texts, strikes };
    match args.profile.load() {
        Load::Knee(sweep) => knee(args, &mixture, &mut ready, Knee::new(sweep), &timeline),
        Load::Open | Load::Closed { .. } => {
            let _watchdog =
                (common.timeout > 0).then(|| watchdog(common.timeout, ready.watch.clone()));
            let (recorder, mut about) = once(args, &args.profile, &mixture, &mut ready, &timeline)?;
            ready.end(&mut about)?;
            about.failures.extend(losses(&recorder, common));
            about.failures.extend(nobody(&recorder, &mixture));
            finish(recorder, about, common)
        }
    }
}

/// A scenario that starts no calls needs somebody who does.
fn role(args: &RunArgs, mixture: &Mixture) -> Result<(), End> {
    let name = &args.scenario;
    let text = match args.profile.load() {
        _ if !mixture.only_answers() => return Ok(()),
        Load::Knee(_) => format!("--profile: {name} starts no calls, so it has no knee"),
        _ if args.common.server.is_some() => return Ok(()),
        _ => format!(
            "{name} starts no calls: name who calls (--server ADDR), or play it under a caller \
             (loadgen run CALLER --callee {name})"
        ),
    };
    Err(End::usage(text))
}

/// Who waits to be called and is not has shown nothing.
fn nobody(recorder: &Recorder, mixture: &Mixture) -> Option<String> {
    (mixture.only_answers() && recorder.calls().started == 0).then(|| "nobody called".into())
}

/// Faults of a run, as they were written, and whom they strike.
struct Timeline {
    texts: Vec<String>,
    strikes: Vec<Strike>,
}

/// Without goals, a call that was lost after it stood is what must not be, and no good one at all.
fn losses(recorder: &Recorder, common: &Common) -> Option<String> {
    let calls = recorder.calls();
    let lost = calls.lost + calls.released;
    if !common.goals.is_empty() {
        return None;
    }
    if lost > 0 {
        return Some(format!("{lost} calls were lost or released (give a --goal for another aim)"));
    }
    (calls.started > 0 && calls.kept + calls.refused == 0)
        .then(|| format!("not one of {} calls came to its end", calls.started))
}

/// How long faults may strike: in a closed loop the warm-up comes before the profile.
fn length(args: &RunArgs) -> Duration {
    let warm_up = match args.profile.load() {
        Load::Closed { .. } => Duration::from_secs(args.warm_up.into()),
        Load::Open | Load::Knee(_) => Duration::ZERO,
    };
    args.profile.duration() + warm_up
}

/// A run that must be cut off before its profile is over is not begun.
fn fits_timeout(args: &RunArgs) -> Result<(), End> {
    let needed = length(args).as_secs();
    let timeout = args.common.timeout;
    if timeout == 0 || needed < timeout.into() {
        return Ok(());
    }
    Err(End::usage(format!(
        "the profile takes {needed} s, but --timeout {timeout} ends the run; allowed is more than \
         {needed}, or 0 for no limit"
    )))
}

/// A scenario by name or file; what a file has that makes no difference is told in words.
fn scenario(
    name: &str,
    callee: Option<&Path>,
    fields: Option<&Path>,
) -> Result<(Mixture, Vec<String>), End> {
    let bad = |troubles: Vec<Trouble>| {
        let lines: Vec<String> = troubles.iter().map(Trouble::to_string).collect();
        End::usage(lines.join("\n         "))
    };
    let fields: Vec<String> = fields.iter().map(|path| path.display().to_string()).collect();
    let extras = Extras { fields: &fields, pause: Duration::ZERO };
    let read = load::disk(Path::new(name));
    let mut loaded = load::load(name, extras, &read).map_err(bad)?;
    if let Some(callee) = callee {
        let answers = load::load(&callee.to_string_lossy(), extras, &read).map_err(bad)?;
        loaded.warnings.extend(answers.warnings);
        let (Some(calls), Some(answers)) =
            (loaded.mixture.parts.first_mut(), answers.mixture.parts.into_iter().next())
        else {
            return Err(End::usage(format!("{name} has no scenario")));
        };
        let joined = load::join(calls.scenario.clone(), answers.scenario);
        calls.scenario = joined.map_err(End::usage)?;
    }
    Ok((loaded.mixture, loaded.warnings.iter().map(Trouble::to_string).collect()))
}

/// A goal on a response time that is never measured would be missed for no fault of the server.
fn goals(common: &Common, mixture: &Mixture) -> Result<(), End> {
    let known = crate::engine::response_names(mixture);
    for goal in &common.goals {
        if let Some(name) = goal.response_name().filter(|name| !known.iter().any(|n| n == name)) {
            let known = known.join(", ");
            let text = format!("--goal: nothing measures {name:?}, the scenario has {known}");
            return Err(End::usage(text));
        }
    }
    Ok(())
}

/// The faults of the command line and of the scenario.
fn faults(args: &RunArgs, mixture: &Mixture) -> Result<Vec<Fault>, End> {
    let mut faults = args.strikes.clone();
    let length = length(args);
    if let Some(late) = faults.iter().find(|fault| fault.at >= length) {
        let length = length.as_secs_f64();
        let text = format!("--strike `{late}`: the run ends after {length} s, before it begins");
        return Err(End::usage(text));
    }
    let of_parts = mixture.parts.iter().flat_map(|part| &part.scenario.faults);
    for (line, text) in mixture.faults.iter().chain(of_parts) {
        let fault = Fault::parse(text);
        let place = format!("{}:{line}", args.scenario);
        let fault = fault.map_err(|e| End::usage(format!("{place}: {e}")))?;
        if fault.at >= length {
            let length = length.as_secs_f64();
            crate::warn(&format!(
                "{place}: the run ends after {length} s, before `{fault}` begins"
            ));
        }
        faults.push(fault);
    }
    Ok(faults)
}

fn strikes(args: &RunArgs, faults: &[Fault], seed: u64) -> Result<Vec<Strike>, End> {
    let Common { callee_connections, caller_connections, .. } = args.common;
    plan::strikes(faults, seed, callee_connections, caller_connections).map_err(End::usage)
}

/// One run of a profile.
fn once(
    args: &RunArgs,
    profile: &Profile,
    mixture: &Mixture,
    ready: &mut Ready,
    timeline: &Timeline,
) -> Result<(Recorder, About), End> {
    let seed = ready.setup.seed;
    let work = |worker, workers| {
        Work::Load(LoadPlan {
            profile: profile.clone(),
            spacing: args.spacing.spacing(),
            seed,
            share: (worker, workers),
            warm_up: Duration::from_secs(args.warm_up.into()),
            drain: Duration::from_secs(args.drain.into()),
            standing: share_of(args.calls.into(), worker, workers),
        })
    };
    let open_loop = profile.load() == Load::Open && !mixture.only_answers();
    let strikes = timeline.strikes.clone();
    let task = Task { command: "run", mixture, work: &work, strikes, open_loop };
    let Ready { setup, server, watch } = ready;
    let (recorder, mut about) = run::play(&task, setup, &args.common, server, watch)?;
    about.parameters = parameters(&args.common);
    about.parameters.extend([
        ("profile".into(), json!(profile.to_string())),
        ("spacing".into(), json!(format!("{:?}", args.spacing).to_lowercase())),
        ("warm_up_s".into(), json!(args.warm_up)),
    ]);
    if !timeline.texts.is_empty() {
        about.parameters.insert("strikes".into(), json!(timeline.texts));
    }
    if profile.load() != Load::Open {
        about.parameters.insert("calls".into(), json!(args.calls));
    }
    Ok((recorder, about))
}

/// Seeks the highest rate at which the goals hold; the result is the run at that rate.
fn knee(
    args: &RunArgs,
    mixture: &Mixture,
    ready: &mut Ready,
    mut knee: Knee,
    timeline: &Timeline,
) -> Result<u8, End> {
    let common = &args.common;
    let default: Vec<Goal> = match common.goals.is_empty() {
        true => KNEE_GOALS.iter().filter_map(|goal| Goal::parse(goal).ok()).collect(),
        false => common.goals.clone(),
    };
    let each = args.profile.duration();
    let (mut last, mut best) = (None, None);
    while let Some(rate) = knee.next_rate(last) {
        let profile = Profile::constant(rate, each);
        let _watchdog = (common.timeout > 0).then(|| watchdog(common.timeout, ready.watch.clone()));
        let (recorder, about) = once(args, &profile, mixture, ready, timeline)?;
        let outcome = recorder.into_outcome(about, &default);
        let held = outcome.verdict.status() == 0;
        let word = if held { "holds" } else { "does not hold" };
        crate::warn(&format!("{rate:.0} calls/s {word}{}", reasons(&outcome)));
        if held {
            best = Some(outcome);
        }
        last = Some((rate, held));
    }
    let found = knee.found();
    let mut end = About::default();
    ready.end(&mut end)?;
    let rate = found.holds.unwrap_or_default();
    print(&format!(
        "knee: {rate:.0} calls/s hold{}{}\n",
        found.fails.map_or_else(String::new, |fails| format!(", {fails:.0} do not")),
        if found.not_monotonic { "; not monotonic: a lower rate failed, too" } else { "" }
    ))?;
    let Some(mut outcome) = best else {
        return Err(End { status: 1, text: "the goals hold at no rate of the range".into() });
    };
    outcome.parameters.insert("knee".into(), serde_json::to_value(&found).unwrap_or(Value::Null));
    outcome.fail(end.failures, &end.violations);
    conclude(&outcome, common)
}

fn reasons(outcome: &Outcome) -> String {
    match outcome.reasons.is_empty() {
        true => String::new(),
        false => format!(": {}", outcome.reasons.join("; ")),
    }
}

fn parameters(common: &Common) -> BTreeMap<String, Value> {
    [
        ("callee_connections", json!(common.callee_connections)),
        ("caller_connections", json!(common.caller_connections)),
        ("transport", json!(format!("{:?}", common.transport).to_lowercase())),
        ("delay_ms", json!(common.delay)),
        ("window_s", json!(common.window)),
        ("server_cores", json!(common.server_cores)),
        ("workers", json!(common.workers())),
        ("events", json!(common.has_events())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn finish(recorder: Recorder, about: About, common: &Common) -> Result<u8, End> {
    conclude(&recorder.into_outcome(about, &common.goals), common)
}

fn conclude(outcome: &Outcome, common: &Common) -> Result<u8, End> {
    // Whichever cannot be written, the other still is.
    let printed = print(&outcome.table());
    run::write_files(outcome, common)?;
    printed?;
    Ok(outcome.verdict.status())
}

/// `loadgen scenarios`.
///
/// # Errors
/// No such scenario.
pub(crate) fn scenarios(name: Option<&str>) -> Result<u8, End> {
    match name {
        Some(name) => {
            let names: Vec<&str> = builtin::names().collect();
            let text = builtin::text(name).ok_or_else(|| {
                End::usage(format!("no scenario {name:?}, there are {}", names.join(", ")))
            })?;
            print(text)?;
        }
        None => print(&builtin::list())?,
    }
    Ok(0)
}

/// `loadgen import`.
///
/// # Errors
/// A file that cannot be read, or something in it that cannot be played.
pub(crate) fn import(file: &Path) -> Result<u8, End> {
    let (mixture, warnings) = scenario(&file.to_string_lossy(), None, None)?;
    for warning in &warnings {
        print(&format!("{warning}\n"))?;
    }
    for part in &mixture.parts {
        let Scenario { name, caller, callee, .. } = &part.scenario;
        let (caller, callee) = (caller.len(), callee.len());
        print(&format!("{name}: {caller} steps of the caller, {callee} of the callee\n"))?;
    }
    Ok(0)
}

/// `loadgen compare`.
///
/// # Errors
/// A file that is not a result.
pub(crate) fn compare(args: &CompareArgs) -> Result<u8, End> {
    let sides = outcome::sides(&args.files, &args.after).map_err(End::usage)?;
    let sides: Result<Vec<Side>, String> = sides.iter().map(|files| Side::read(files)).collect();
    let comparison = Comparison::new(sides.map_err(End::usage)?);
    print(&comparison.table())?;
    if let Some(file) = &args.html {
        let written = std::fs::write(file, comparison.to_html());
        written.map_err(|e| End::usage(format!("cannot write {}: {e}", file.display())))?;
    }
    Ok(0)
}
