//! Extensions that a request outside a dialog requires (RFC 3261 §8.2.2.3).

use crate::key::ServerId;
use crate::sip::message::{Name, View, write};
use crate::sip::transaction::Stack;

/// Option tags that mean the same on both legs, so that the device behind decides. What names a dialog
/// of the other leg (`replaces`, `join`, `tdialog`) is not among them.
const UNDERSTOOD: [&str; 9] = [
    "100rel",
    "timer",
    "199",
    "precondition",
    "early-session",
    "histinfo",
    "answermode",
    "resource-priority",
    "norefersub",
];

/// True when the request requires what is not understood.
pub(super) fn has_unknown(request: View<'_>) -> bool {
    request.first(Name::Require).is_some() && unknown(&request).next().is_some()
}

/// 420 that names each option which is not understood.
pub(super) fn respond(stack: &mut Stack, server: ServerId, request: View<'_>) {
    stack.respond_with(server, 420, write::reason_phrase(420).as_bytes(), |out| {
        for option in unknown(&request) {
            write::header(out, "Unsupported", option);
        }
        write::body(out, b"");
    });
}

fn unknown<'a>(request: &'a View<'_>) -> impl Iterator<Item = &'a [u8]> {
    let is_known = |option: &[u8]| {
        UNDERSTOOD.iter().any(|known| option.eq_ignore_ascii_case(known.as_bytes()))
    };
    let options = request.values(Name::Require);
    options.filter(move |option| !is_known(option))
}
