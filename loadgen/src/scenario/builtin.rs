//! The scenarios that come with loadgen: texts like any other, to be copied and changed.

/// Name and text of each.
const BUILTINS: &[(&str, &str)] = &[
    ("call", include_str!("../../scenarios/call.scenario")),
    ("reinvite", include_str!("../../scenarios/reinvite.scenario")),
    ("refresh", include_str!("../../scenarios/refresh.scenario")),
    ("drill", include_str!("../../scenarios/drill.scenario")),
    ("overload", include_str!("../../scenarios/overload.scenario")),
    ("register", include_str!("../../scenarios/register.scenario")),
    ("options", include_str!("../../scenarios/options.scenario")),
    ("standing", include_str!("../../scenarios/standing.scenario")),
    ("mixed", include_str!("../../scenarios/mixed.scenario")),
];

/// The text of one, comments included.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    BUILTINS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|(name, _)| *name)
}

/// One line for each: its name, and what it says of itself.
pub(crate) fn list() -> String {
    let mut list = String::new();
    for (name, text) in BUILTINS {
        let about =
            text.lines().find_map(|line| line.strip_prefix("scenario ")).unwrap_or_default();
        let about = about.split('"').nth(1).unwrap_or_default();
        list.push_str(&format!("{name:<10} {about}\n"));
    }
    list
}
