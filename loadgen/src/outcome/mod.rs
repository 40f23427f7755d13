//! What a run found, from the first sample to the page that people read.
//!
//! ```text
//! Recorder (one a worker) ─merge─► into_outcome ─► Outcome ─► table, JSON, HTML, .hgrm, HdrHistogram log
//!    └─ tick ─► Progress ─► Live (terminal, JSON lines)          └─► goals, verdict; compare of several
//! ```
//!
//! Instants are `Duration` since the start of the run. `docs/LOADGEN-SCHEMA.md` describes the
//! JSON; a number that changes its meaning changes [`SCHEMA`].

mod compare;
mod file;
mod gather;
mod goal;
mod honesty;
mod html;
mod live;
mod manifest;
mod recorder;
mod recovery;
mod result;
mod series;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod timing;

pub(crate) use compare::{Comparison, Side, sides};
pub(crate) use gather::Gather;
#[cfg(test)]
pub(crate) use gather::Line;
pub(crate) use goal::Goal;
pub(crate) use live::{Live, Look};
pub(crate) use manifest::{Manifest, ServerBuild};
pub(crate) use recorder::{About, End, Latency, Progress, Recorder};
#[cfg(test)]
pub(crate) use recovery::Recovery;
pub(crate) use recovery::{Fate, RecoverySample};
#[cfg(test)]
pub(crate) use result::{Calls, Verdict, Violations};
pub(crate) use result::{GoalResult, Outcome, ResponseTime, ServerUse, Usage};
#[cfg(test)]
pub(crate) use series::Interval;
#[cfg(test)]
pub(crate) use timing::Timing;

/// Names the layout of the JSON.
pub(crate) const SCHEMA: &str = "holdfast-loadgen/2";
