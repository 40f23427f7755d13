//! Requests and responses, and the words that change them.

use std::ops::RangeInclusive;

use super::block::{Block, Dialog, Names};
use super::words::Words;
use crate::scenario::keyword::{self, Dialect};
use crate::scenario::program::{Body, Direction, Offer, Request, Respond, Step, Target};
use crate::scenario::template::Template;
use crate::scenario::trouble::short;

/// `header` lines under one step.
pub(crate) const HEADERS_MAX: usize = 32;

/// Header fields that the user agent writes itself.
const OWN_HEADERS: &[&str] = &[
    "Via",
    "v",
    "From",
    "f",
    "To",
    "t",
    "Call-ID",
    "i",
    "CSeq",
    "Contact",
    "m",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Content-Length",
    "l",
    "Content-Type",
    "c",
];

const MODIFIERS: &[&str] =
    &["header", "expect", "refused", "timeout", "cancel", "as", "to", "body", "with", "without"];

/// It belongs to the request or response before it.
pub(super) fn is_modifier(verb: &str) -> bool {
    MODIFIERS.contains(&verb)
}

/// Reads a request; false when the verb is none.
pub(super) fn request(
    block: &mut Block,
    line: u32,
    verb: &str,
    words: &mut Words,
    names: &mut Names<'_>,
) -> Result<bool, String> {
    let method = match verb {
        "invite" | "reinvite" => "INVITE".to_owned(),
        "update" | "bye" | "info" | "options" | "message" | "register" => verb.to_uppercase(),
        "request" => method(words)?,
        _ => return Ok(false),
    };
    if verb == "request" && matches!(method.as_str(), "INVITE" | "BYE" | "ACK" | "CANCEL") {
        let other = "invite, reinvite and bye have words of their own, CANCEL is `cancel after`, \
            ACK is automatic";
        return Err(format!("`request {method}`: {other}"));
    }
    let allowed = may_send(block, verb);
    let (offer, to) = (offer(verb, words), target(block, verb));
    let mut request = Request {
        line,
        method,
        to,
        offer,
        body: None,
        headers: Template::default(),
        expect: 200..=299,
        refused: None,
        timeout: None,
        cancel: None,
        mark: None,
    };
    if verb == "message" {
        let text = words.optional_string().unwrap_or("hello").to_owned();
        request.body = Some(body("text/plain", &text, names)?);
    }
    block.last = Some(block.steps.len());
    // Also when it may not be sent, so that what follows is read as if it could.
    match verb {
        "invite" => block.dialog = Dialog::Invited(block.steps.len()),
        "bye" => block.dialog = Dialog::Over,
        _ => {}
    }
    block.steps.push(Step::Request(request));
    modifiers(block, None, words, names)?;
    allowed.map(|()| true)
}

/// What the response time of a request is called where `as` does not say it.
pub(super) fn usual_mark(request: &Request) -> String {
    match (request.method.as_str(), &request.to) {
        ("INVITE", Target::Dialog) => "reinvite".to_owned(),
        (method, _) => method.to_lowercase(),
    }
}

/// A method in capital letters.
pub(super) fn method(words: &mut Words) -> Result<String, String> {
    let word = words.next("a method like NOTIFY")?;
    let is_name = word.bytes().all(|b| b.is_ascii_uppercase()) && (1..=32).contains(&word.len());
    match is_name {
        true => Ok(word.to_owned()),
        false => Err(format!("`{}`: expected a method like NOTIFY", short(word))),
    }
}

/// The description that a request carries, as its words or its verb have it.
fn offer(verb: &str, words: &mut Words) -> Option<Offer> {
    if !matches!(verb, "invite" | "reinvite" | "update") {
        return None;
    }
    let offer = match words.peek() {
        Some("sendrecv") => Offer::Fresh(Direction::Both),
        Some("sendonly") => Offer::Fresh(Direction::SendOnly),
        Some("recvonly") => Offer::Fresh(Direction::ReceiveOnly),
        Some("inactive") => Offer::Fresh(Direction::Inactive),
        Some("same") if verb != "invite" => Offer::Same,
        // An UPDATE alone has no description (RFC 3311 §5.1).
        _ => return (verb != "update").then_some(Offer::Fresh(Direction::Both)),
    };
    words.skip();
    Some(offer)
}

fn target(block: &Block, verb: &str) -> Target {
    match (verb, block.dialog) {
        ("register", _) => Target::Server,
        ("reinvite" | "update" | "bye" | "info", _) => Target::Dialog,
        ("options", Dialog::None) => Target::Server,
        ("invite", _) | (_, Dialog::None) => Target::Called,
        _ => Target::Dialog,
    }
}

/// Whether a request may stand where the dialog is.
fn may_send(block: &Block, verb: &str) -> Result<(), String> {
    let up = match block.dialog {
        Dialog::Up | Dialog::Unsure => true,
        Dialog::Invited(step) => match block.steps.get(step) {
            Some(Step::Request(invite)) => *invite.expect.start() < 300,
            _ => true,
        },
        Dialog::None | Dialog::Unanswered | Dialog::Over => false,
    };
    let inside = matches!(verb, "reinvite" | "update" | "bye" | "info");
    match verb {
        "invite" if !block.is_caller() => Err("`invite`: a callee makes no calls; use reinvite"),
        "invite" if block.dialog != Dialog::None => {
            Err("`invite` stands twice: use reinvite, or several calls")
        }
        "invite" | "bye" if block.is_in_loop() => {
            return Err(format!("`{verb}` inside `repeat`: a call has one"));
        }
        "register" if !block.is_caller() => Err("`register`: a callee registers nothing"),
        _ if up => Ok(()),
        _ if !block.is_caller() => Err("no request before `answer`, nor after the call is over"),
        _ if inside && block.dialog == Dialog::None => {
            return Err(format!("`{verb}` without `invite` before it"));
        }
        _ if block.dialog == Dialog::None || verb == "register" => Ok(()),
        _ => return Err(format!("`{verb}`: the call is over there")),
    }
    .map_err(str::to_owned)
}

/// Reads a response; false when the verb is none.
pub(super) fn response(
    block: &mut Block,
    line: u32,
    verb: &str,
    words: &mut Words,
    names: &mut Names<'_>,
) -> Result<bool, String> {
    let (status, sdp) = match verb {
        "ring" => (180, false),
        "progress" => (words.number("a provisional status", 101, 199)? as u16, false),
        "answer" => (200, true),
        "reject" => (words.number("a final status that is no success", 300, 699)? as u16, false),
        _ => return Ok(false),
    };
    let reason = words.optional_string().unwrap_or_else(|| phrase(status)).to_owned();
    if reason.chars().any(char::is_control) {
        return Err("a reason phrase is one line".to_owned());
    }
    let allowed = may_respond(block, verb);
    block.last = Some(block.steps.len());
    let headers = Template::default();
    block.steps.push(Step::Respond(Respond { line, status, reason, sdp, headers }));
    match verb {
        "answer" => block.dialog = Dialog::Up,
        "reject" => block.dialog = Dialog::Over,
        _ => {}
    }
    modifiers(block, None, words, names)?;
    allowed.map(|()| true)
}

fn may_respond(block: &Block, verb: &str) -> Result<(), String> {
    if block.is_caller() {
        return Err(format!("`{verb}` stands under `callee` only"));
    }
    match block.dialog {
        Dialog::Unanswered | Dialog::Unsure => {}
        _ => return Err(format!("`{verb}` after the final response")),
    }
    if block.is_in_loop() && matches!(verb, "answer" | "reject") {
        return Err(format!("`{verb}` inside `repeat`: a call has one final response"));
    }
    Ok(())
}

/// Usual reason phrases (RFC 3261 §21).
fn phrase(status: u16) -> &'static str {
    match status {
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        302 => "Moved Temporarily",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        430 => "Flow Failed",
        477 => "Next Hop Unreachable",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => "Answer",
    }
}

/// Reads modifiers of the last step to the end of the line; `first` was taken already.
pub(super) fn modifiers(
    block: &mut Block,
    first: Option<&str>,
    words: &mut Words,
    names: &mut Names<'_>,
) -> Result<(), String> {
    let mut next = first.map(str::to_owned);
    while next.is_some() || !words.is_at_end() {
        let word = match next.take() {
            Some(word) => word,
            None => words.next("a modifier")?.to_owned(),
        };
        match block.last.and_then(|last| block.steps.get_mut(last)) {
            Some(Step::Request(request)) => of_request(request, &word, words, names)?,
            Some(Step::Respond(respond)) => of_response(respond, &word, words, names)?,
            _ => {
                return Err(format!("`{}`: no request or response stands before it", short(&word)));
            }
        }
    }
    Ok(())
}

fn of_request(
    request: &mut Request,
    word: &str,
    words: &mut Words,
    names: &mut Names<'_>,
) -> Result<(), String> {
    let invites = request.method == "INVITE";
    match word {
        "header" => header(&mut request.headers, words, names)?,
        "expect" => request.expect = statuses(words)?,
        "refused" => request.refused = Some(statuses(words)?),
        "timeout" => request.timeout = Some(words.duration()?),
        "cancel" => cancel(request, words)?,
        "as" => request.mark = Some(names.mark(words.next("a name")?)?),
        "to" => to(request, words, names)?,
        "without" if invites || request.method == "UPDATE" => {
            if !words.take("sdp") {
                return Err("`without`: expected `without sdp`".to_owned());
            }
            request.offer = None;
        }
        "body" => own_body(request, words, names)?,
        word => {
            return Err(format!(
                "`{}`: expected header, expect, refused, timeout, cancel after, as, to, body, \
                 without sdp, or the end of the line",
                short(word)
            ));
        }
    }
    Ok(())
}

fn cancel(request: &mut Request, words: &mut Words) -> Result<(), String> {
    if request.method != "INVITE" {
        return Err("`cancel`: only an INVITE can be cancelled".to_owned());
    }
    if !words.take("after") {
        return Err("`cancel`: expected `cancel after TIME`".to_owned());
    }
    request.cancel = Some(words.span()?);
    if request.expect == (200..=299) {
        request.expect = 487..=487;
    }
    Ok(())
}

fn own_body(request: &mut Request, words: &mut Words, names: &mut Names<'_>) -> Result<(), String> {
    if request.offer.is_some() {
        return Err("`body`: this request has an SDP; say `without sdp` first".to_owned());
    }
    let media_type = words.string("a media type")?.to_owned();
    if !is_media_type(&media_type) {
        let found = short(&media_type);
        return Err(format!("`{found}`: expected a media type like text/plain"));
    }
    let text = words.string("the text of the body")?.to_owned();
    request.body = Some(body(&media_type, &text, names)?);
    Ok(())
}

fn of_response(
    respond: &mut Respond,
    word: &str,
    words: &mut Words,
    names: &mut Names<'_>,
) -> Result<(), String> {
    match word {
        "header" => header(&mut respond.headers, words, names),
        "with" | "without" if words.take("sdp") => {
            if word == "with" && respond.status >= 300 {
                return Err("`with sdp`: a rejection has none".to_owned());
            }
            respond.sdp = word == "with";
            Ok(())
        }
        word => Err(format!(
            "`{}`: expected header, with sdp, without sdp, or the end of the line",
            short(word)
        )),
    }
}

fn to(request: &mut Request, words: &mut Words, names: &mut Names<'_>) -> Result<(), String> {
    if matches!(request.to, Target::Dialog) {
        return Err("`to`: a request of the dialog goes to its peer".to_owned());
    }
    if words.take("server") {
        request.to = Target::Server;
        return Ok(());
    }
    let user = words.string("a user or `server`")?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || "<>@\"".contains(c);
    if user.is_empty() || user.split('[').next().unwrap_or_default().contains(bad) {
        return Err(format!("`{}`: expected the user part of a SIP URI", short(user)));
    }
    let user = user.to_owned();
    request.to = Target::User(compile(&user, names)?);
    Ok(())
}

fn header(headers: &mut Template, words: &mut Words, names: &mut Names<'_>) -> Result<(), String> {
    let line = words.string("a header line like \"X-Name: value\"")?.to_owned();
    let bad = || format!("`{}`: expected a header line like \"X-Name: value\"", short(&line));
    let (name, _) = line.split_once(':').ok_or_else(bad)?;
    let name = name.trim_end();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!%*+`'~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) || line.contains(['\r', '\n']) {
        return Err(bad());
    }
    if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("`{name}`: the user agent writes this header itself"));
    }
    if headers.line_ends() >= HEADERS_MAX {
        return Err(format!("more headers than the limit of {HEADERS_MAX}"));
    }
    headers.append(compile(&format!("{line}\r\n"), names)?);
    Ok(())
}

fn body(media_type: &str, text: &str, names: &mut Names<'_>) -> Result<Body, String> {
    Ok(Body { media_type: media_type.to_owned(), text: compile(text, names)? })
}

fn compile(text: &str, names: &mut Names<'_>) -> Result<Template, String> {
    let template = keyword::compile(text, Dialect::Own, &mut names.fields);
    let template = template.map_err(|(_, text)| text)?;
    names.keeps_messages |= template.uses_last();
    Ok(template)
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// `486`, `200..299` or `2xx`: final responses.
fn statuses(words: &mut Words) -> Result<RangeInclusive<u16>, String> {
    let word = words.next("a final status")?;
    let bad = || format!("`{}`: expected 486, 200..299 or 2xx; 200 to 699", short(word));
    let (low, high) = match word.split_once("..") {
        Some((low, high)) => (low.parse().ok(), high.parse().ok()),
        None => match word.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok()) {
            Some(class @ 2..=6) => (Some(class * 100), Some(class * 100 + 99)),
            Some(_) => return Err(bad()),
            None => (word.parse().ok(), word.parse().ok()),
        },
    };
    let (Some(low), Some(high)) = (low, high) else { return Err(bad()) };
    let fits = (200..700).contains(&low) && (low..700).contains(&high);
    fits.then_some(low..=high).ok_or_else(bad)
}
