//! Scenarios: what every call does, from a text of one's own, a built-in one, or a SIPp file.
//!
//! ```text
//! text (own format) ─┐
//! sipp (XML) ────────┴─► program (steps, templates, field files) ─► the engine's interpreter
//! ```

pub(crate) mod builtin;
pub(crate) mod fields;
mod keyword;
pub(crate) mod load;
pub(crate) mod program;
mod sipp;
pub(crate) mod span;
pub(crate) mod template;
mod text;
pub(crate) mod trouble;

use program::{Respond, Step};

/// What a callee does where no scenario says it.
fn ring_and_answer() -> Vec<Step> {
    let respond = |status, reason: &str, sdp| {
        let (reason, headers) = (reason.to_owned(), template::Template::default());
        Step::Respond(Respond { line: 0, status, reason, sdp, headers })
    };
    vec![respond(180, "Ringing", false), respond(200, "OK", true)]
}
