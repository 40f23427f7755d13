//! The layer rule, read from the source: who imports whom, and what the core must not name.
//!
//! ```text
//! control ─► shard ─► net ─► sip ─► base        (an arrow means: may import)
//! within sip: endpoint ─► agent, proxy ─► session ─► recovery, dialog ─► transaction ─► the floor
//! ```
//!
//! Paths are read from tokens, not from lines: a `use` tree over many lines, a path in an
//! expression and an inline module are all seen; comments, strings and `pub(in …)` are not.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A test reads files.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file; a longer one says too many things.
const LINES_MAX: usize = 650;

/// The directories of `src`, each with the layers it may import besides itself; the files of `src`
/// are the base.
const LAYERS: [(&str, &[&str]); 5] = [
    ("base", &[]),
    ("sip", &["base"]),
    ("net", &["base", "sip"]),
    ("shard", &["base", "sip", "net"]),
    ("control", &["base", "sip", "net", "shard"]),
];

/// The modules of `sip` from the floor upwards: each may import those below it. On the floor they
/// may import each other.
const SIP: [&[&str]; 6] = [
    &["actions", "admission", "counters", "flow", "kept", "message", "timer", "token", "wheel"],
    &["transaction"],
    &["dialog", "recovery"],
    &["session"],
    &["agent", "proxy"],
    &["endpoint"],
];

/// What `sip` re-exports and its modules name by that shorter path, with the module it is in.
const RE_EXPORTED: [(&str, &str); 1] = [("Token", "token")];

/// What the protocol and the base must not name: they are deterministic, synchronous, total.
const BANNED: [(&str, &str); 14] = [
    ("std::fs", "files belong to control"),
    ("std::thread", "a shard is one thread"),
    ("std::process", "the core has no process"),
    ("std::env", "options are arguments"),
    ("std::os", "the core has no operating system"),
    ("std::time::Instant", "time is an argument: crate::time::Instant"),
    ("std::time::SystemTime", "time is an argument"),
    ("glommio", "sockets belong to net"),
    ("tokio", "the control thread's"),
    ("rustls", "sockets belong to net"),
    ("socket2", "sockets belong to net"),
    ("futures_lite", "the core never waits"),
    ("hickory_resolver", "names are looked up in control"),
    ("toml", "files belong to control"),
];

/// All that the core may name of `std::net`: addresses, no sockets.
const ADDRESSES: [&str; 7] = [
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Identifiers and single punctuation marks; comments, strings and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let start = i;
        match chars[i] {
            '/' if at(i + 1) == '/' => i = find(&chars, i, |i| at(i) == '\n'),
            '/' if at(i + 1) == '*' => i = block_comment_end(&chars, i),
            '"' => i = string_end(&chars, i),
            '\'' if at(i + 1) == '\\' => i = 1 + find(&chars, i + 3, |i| at(i) == '\''),
            '\'' if at(i + 2) == '\'' => i += 3,
            '\'' => i = find(&chars, i + 1, |i| !is_word(at(i))),
            c if is_word(c) => {
                i = find(&chars, i, |i| !is_word(at(i)));
                let word: String = chars[start..i].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                if raw && at(i + hashes) == '"' {
                    i = raw_string_end(&chars, i + hashes + 1, hashes);
                } else if matches!(word.as_str(), "b" | "c") && at(i) == '"' {
                    i = string_end(&chars, i);
                } else {
                    tokens.push(Token { text: word, line });
                }
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line });
                }
                i += 1;
            }
        }
        i = i.min(chars.len());
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first position from `i` on at which `is_end`, or the end of the text.
fn find(chars: &[char], i: usize, is_end: impl Fn(usize) -> bool) -> usize {
    (i..chars.len()).find(|i| is_end(*i)).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string_end(chars: &[char], start: usize, hashes: usize) -> usize {
    let closes = |i: usize| {
        chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    find(chars, start, closes) + 1 + hashes
}

/// A path that a file names, resolved: `crate::sip::flow::Flows`, `std::fs::read`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    line: usize,
}

/// All paths of a file whose module is `module`, such as `["sip", "flow"]`.
fn paths(source: &str, module: &[String]) -> Vec<Named> {
    let tokens = tokens(source);
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut named = Vec::new();
    let mut module = module.to_vec();
    // For each open brace: does it close an inline module?
    let mut braces = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "{" => {
                let is_module = i >= 2 && text(i - 2) == "mod";
                if is_module {
                    module.push(text(i - 1).to_owned());
                }
                braces.push(is_module);
                i += 1;
            }
            "}" => {
                if braces.pop() == Some(true) {
                    module.pop();
                }
                i += 1;
            }
            "use" => i = tree(&tokens, i + 1, &[], &module, &mut named),
            // `pub(in crate::sip)` names who may import, not what is imported.
            "in" if text(i.wrapping_sub(1)) == "(" => {
                i = (i..tokens.len()).find(|i| text(*i) == ")").unwrap_or(tokens.len());
            }
            word if word.starts_with(is_word) => {
                let line = tokens[i].line;
                let (path, end) = simple_path(&tokens, i);
                i = end;
                // `pub(super)`, `self.field`: no path.
                if path.len() == 1 && matches!(word, "self" | "super" | "crate") {
                    continue;
                }
                named.push(Named { path: resolve(&path, &module), line });
            }
            _ => i += 1,
        }
    }
    named
}

fn simple_path(tokens: &[Token], start: usize) -> (Vec<String>, usize) {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut path = vec![text(start).to_owned()];
    let mut i = start + 1;
    while text(i) == ":" && text(i + 1) == ":" && text(i + 2).starts_with(is_word) {
        path.push(text(i + 2).to_owned());
        i += 3;
    }
    (path, i)
}

/// Reads a `use` tree that begins at `i` under `prefix`; gives the position after it.
fn tree(
    tokens: &[Token],
    mut i: usize,
    prefix: &[String],
    module: &[String],
    named: &mut Vec<Named>,
) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut path = prefix.to_vec();
    let line = tokens.get(i).map_or(0, |token| token.line);
    loop {
        match text(i) {
            "" => return i,
            ":" => i += 1,
            "{" => {
                i += 1;
                while !matches!(text(i), "}" | "") {
                    i = tree(tokens, i, &path, module, named);
                }
                i += 1;
                return i + usize::from(matches!(text(i), "," | ";"));
            }
            "," | ";" | "}" => {
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                named.push(Named { path: resolve(&path, module), line });
                return i + usize::from(text(i) != "}");
            }
            "as" => i += 2,
            segment => {
                path.push(segment.to_owned());
                i += 1;
            }
        }
    }
}

/// Makes `super` and `self` absolute; other paths stay as they are.
fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let mut rest = path;
    let mut base = module.to_vec();
    let mut relative = false;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "super" => {
                base.pop();
            }
            "self" if path.len() > 1 => {}
            _ => break,
        }
        (relative, rest) = (true, tail);
    }
    if !relative {
        return path.to_vec();
    }
    std::iter::once("crate".to_owned()).chain(base).chain(rest.iter().cloned()).collect()
}

/// `src/sip/agent/mod.rs` is the module `["sip", "agent"]`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

/// The layer of a module, or of a path below `crate`.
fn layer(module: &[String]) -> &str {
    match module.first() {
        Some(first) if LAYERS.iter().any(|(name, _)| name == first) => first,
        Some(_) | None => "base",
    }
}

fn sip_height(module: &str) -> Option<usize> {
    SIP.iter().position(|modules| modules.contains(&module))
}

/// Everything in which a file breaks the rule, as `file:line: what`.
fn violations(file: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{file}: {lines} lines are more than {LINES_MAX}"));
    }
    if file == "src/main.rs" {
        return found;
    }
    let module = module_of(file);
    let own = layer(&module);
    if own == "base" && file.matches('/').count() > 1 {
        found.push(format!("{file}: the directory {} belongs to no layer", module[0]));
    }
    let is_core = matches!(own, "base" | "sip");
    for Named { path, line } in paths(source, &module) {
        let mut report = |what: String| found.push(format!("{file}:{line}: {what}"));
        if let Some((first, rest)) = path.split_first()
            && first == "crate"
        {
            if let Some(what) = wrong_way(own, &module, rest) {
                report(what);
            }
        } else if is_core && let Some(what) = banned(&path) {
            report(what);
        }
    }
    found
}

fn wrong_way(own: &str, module: &[String], target: &[String]) -> Option<String> {
    let to = layer(target);
    let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == own)?;
    let shown = target.join("::");
    if to != own && !allowed.contains(&to) {
        return Some(format!("{own} must not import {to} ({shown})"));
    }
    // The root of `sip` itself re-exports.
    if (own, to) != ("sip", "sip") || module.len() < 2 {
        return None;
    }
    let target = target.get(1).map_or("*", String::as_str);
    let re_exported = RE_EXPORTED.iter().find(|(name, _)| *name == target);
    let target = re_exported.map_or(target, |(_, module)| module);
    if target == module[1] {
        return None;
    }
    match (sip_height(&module[1]), sip_height(target)) {
        (None, _) => Some(format!("sip::{} has no place in the order of `sip`", module[1])),
        (_, None) => Some(format!("sip::{target} is no module in the order of `sip`: name one")),
        (Some(0), Some(0)) => None,
        (Some(from), Some(to)) if to < from => None,
        _ => Some(format!("sip::{} must not import sip::{target}", module[1])),
    }
}

fn banned(path: &[String]) -> Option<String> {
    let shown = path.join("::").replacen("core::", "std::", 1);
    if matches!(shown.as_str(), "async" | "await") {
        return Some(format!("{shown}: the core never waits"));
    }
    if shown == "std::net" || shown.starts_with("std::net::") {
        let item = path.get(2).map_or("", String::as_str);
        return (!ADDRESSES.contains(&item)).then(|| format!("{shown}: sockets belong to net"));
    }
    let is = |name: &str| shown == name || shown.starts_with(&format!("{name}::"));
    if let Some((name, reason)) = BANNED.iter().find(|(name, _)| is(name)) {
        return Some(format!("{name}: {reason}"));
    }
    let clock =
        path.windows(2).any(|pair| pair == ["Instant", "now"] || pair == ["SystemTime", "now"]);
    // A whole module imported is a way around: `use std::time; time::Instant::now()`.
    (clock || matches!(shown.as_str(), "std" | "std::*" | "std::time" | "std::time::*"))
        .then(|| format!("{shown}: time is an argument"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory can be read to its end").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All files of `src`, with their text.
fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        let name = path.strip_prefix(root).expect("it is below the root").display().to_string();
        (name, text)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_import_goes_down_and_the_core_names_no_socket_file_thread_or_clock() {
    let sources = all_sources();
    assert!(sources.iter().any(|(file, _)| file == "src/sip/endpoint.rs"));
    let found: Vec<_> =
        sources.iter().flat_map(|(file, source)| violations(file, source)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn clippy_bans_clocks_threads_and_locks_and_only_the_outer_layers_lift_the_ban() {
    let clippy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("clippy.toml"));
    let clippy = clippy.expect("clippy.toml is there");
    for path in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::thread::spawn",
        "std::thread::sleep",
        "std::sync::Mutex",
        "std::sync::RwLock",
        "std::collections::hash_map::RandomState",
    ] {
        assert!(clippy.contains(&format!("path = \"{path}\"")), "{path} is not banned");
    }
    for (file, source) in all_sources() {
        let module = module_of(&file);
        let lifts = source.contains("clippy::disallowed_");
        let is_core = matches!(layer(&module), "base" | "sip") && file != "src/main.rs";
        assert!(!(is_core && lifts), "{file} lifts the ban on clocks, threads and locks");
        if file == "src/main.rs" || (!is_core && module.len() == 1) {
            assert!(lifts, "{file} is the head of an outer layer and lifts no ban");
        }
    }
}

/// The violations of a snippet, without the name of the file.
fn snippet(file: &str, source: &str) -> Vec<String> {
    let found = violations(file, source);
    found.iter().map(|found| found.replacen(file, "", 1)).collect()
}

#[test]
fn an_import_of_a_higher_layer_is_found() {
    for (file, source, expected) in [
        ("src/key.rs", "use crate::sip::Endpoint;", ":1: base must not import sip (sip::Endpoint)"),
        ("src/sip/flow.rs", "use crate::net::Net;", ":1: sip must not import net (net::Net)"),
        (
            "src/net/tcp.rs",
            "fn f() { crate::shard::turn() }",
            ":1: net must not import shard (shard::turn)",
        ),
        (
            "src/shard/mod.rs",
            "use super::{key, control::config};",
            ":1: shard must not import control (control::config)",
        ),
        (
            "src/sip/flow.rs",
            "use std::rc::Rc;\nuse super::{\n    message,\n    agent::{self, Agent},\n};",
            ":4: sip::flow must not import sip::agent",
        ),
        (
            "src/sip/recovery.rs",
            "mod inner { mod deep {} use super::super::session::X; }",
            ":1: sip::recovery must not import sip::session",
        ),
        (
            "src/sip/transaction/key.rs",
            "fn f() -> super::super::dialog::Dialog {}",
            ":1: sip::transaction must not import sip::dialog",
        ),
        (
            "src/sip/agent/mod.rs",
            "use super::proxy::P;",
            ":1: sip::agent must not import sip::proxy",
        ),
        (
            "src/sip/flow.rs",
            "use super::Endpoint;",
            ":1: sip::Endpoint is no module in the order of `sip`: name one",
        ),
        ("src/sip/new.rs", "use super::flow;", ":1: sip::new has no place in the order of `sip`"),
        ("src/ha/mod.rs", "", ": the directory ha belongs to no layer"),
    ] {
        let found = snippet(file, source);
        assert_eq!(found.first().map(String::as_str), Some(expected), "{file}: {source}");
    }
}

#[test]
fn sockets_files_threads_and_clocks_in_the_core_are_found() {
    for source in [
        "async fn f() {}",
        "fn f() { g().await }",
        "use glommio::net::TcpStream;",
        "use tokio as runtime;",
        "use std::{collections::HashMap, fs};",
        "use std::net;",
        "use std::net::{IpAddr, TcpStream};",
        "fn f(s: std::net::UdpSocket) {}",
        "fn f() { std::thread::yield_now() }",
        "use std::time::{Duration, Instant};",
        "use std::time;",
        "fn f() { Instant::now() }",
        "use ::std::env;",
    ] {
        for file in ["src/time.rs", "src/sip/wheel.rs"] {
            assert_eq!(snippet(file, source).len(), 1, "{source}: {:?}", snippet(file, source));
        }
        assert_eq!(snippet("src/net/tcp.rs", source), [""; 0], "{source}");
    }
}

#[test]
fn what_goes_down_is_no_violation_and_neither_is_a_word_in_a_text() {
    for (file, source) in [
        ("src/sip/wheel.rs", "use crate::key::TimerKey;\nuse std::net::{IpAddr, SocketAddr};"),
        ("src/sip/wheel.rs", "use std::time::Duration; // std::fs\n/* tokio /* x */ std::net */"),
        ("src/sip/wheel.rs", "const A: &str = \"std::fs \\\" tokio\"; const B: char = '\"';"),
        (
            "src/sip/wheel.rs",
            "const A: &str = r#\"std::fs \" tokio\"#; const B: &[u8] = b\"tokio\";",
        ),
        ("src/sip/wheel.rs", "fn f<'tokio>(x: &'tokio str) -> char { '\\'' }"),
        ("src/sip/transaction/client.rs", "pub(in crate::sip) struct S; use super::Stack;"),
        ("src/sip/agent/mod.rs", "use crate::sip::{session::Leg, timer::{self, Timer}};"),
        ("src/sip/flow.rs", "#[cfg(test)] mod tests { use super::*; use crate::key::Key; }"),
        ("src/sip/mod.rs", "mod agent; pub use agent::Agent; pub use self::wheel::Wheel;"),
        ("src/control/serve.rs", "use crate::shard::Plan; use std::fs; use tokio::sync;"),
        ("src/main.rs", "use std::thread;"),
    ] {
        assert_eq!(snippet(file, source), [""; 0], "{file}: {source}");
    }
}

#[test]
fn a_file_that_is_too_long_is_found() {
    assert_eq!(snippet("src/net/tcp.rs", &"\n".repeat(LINES_MAX)), [""; 0]);
    let found = snippet("src/net/tcp.rs", &"\n".repeat(LINES_MAX + 1));
    assert_eq!(found, [": 651 lines are more than 650"]);
}
