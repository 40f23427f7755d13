//! SIPp's `<action>`: none is carried out; those that matter are errors.

use roxmltree::Node;

use super::attributes::Lines;
use crate::scenario::trouble::{Troubles, short};

/// They set variables, which matter only where a message or a branch uses one; that is said
/// there.
const VARIABLES: &[&str] = &[
    "ereg",
    "assign",
    "assignstr",
    "add",
    "subtract",
    "multiply",
    "divide",
    "strcmp",
    "test",
    "todouble",
    "sample",
    "gettimeofday",
    "index",
    "lookup",
    "trim",
    "urldecode",
    "urlencode",
];

/// Says what the actions of a step would have done.
pub(super) fn check(action: Node<'_, '_>, lines: &Lines, troubles: &mut Troubles) {
    for node in action.children().filter(Node::is_element) {
        let (name, at) = (node.tag_name().name(), lines.of(node));
        let checks = ["check_it", "check_it_inverse"]
            .iter()
            .any(|check| node.attribute(*check) == Some("true"));
        match name {
            "ereg" if checks => {
                let text = "<ereg check_it>: a check that fails the call is not understood";
                troubles.error(at, text);
            }
            "log" | "warning" => troubles.warning(at, format!("<{name}>: nothing is logged")),
            "exec" => exec(node, at, troubles),
            name if VARIABLES.contains(&name) => {
                troubles
                    .warning(at, format!("<{name}>: variables are not understood, none is set"));
            }
            name => {
                troubles.error(at, format!("the action <{}> is not understood", short(name)));
            }
        }
    }
}

fn exec(node: Node<'_, '_>, at: u32, troubles: &mut Troubles) {
    for attribute in node.attributes() {
        let name = attribute.name();
        let media = name.starts_with("play_") || name.starts_with("rtp_") || name == "rtpecho";
        match name {
            _ if media => troubles.warning(at, format!("<exec {name}>: no media is sent")),
            "command" => troubles.warning(at, "<exec command>: no command is run"),
            name => troubles.error(at, format!("<exec {}> is not understood", short(name))),
        }
    }
}
