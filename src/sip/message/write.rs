//! Writes messages by appending to a buffer that its caller reuses.
//!
//! ```text
//! request_line / status_line,  then header / line …,  then body
//! ```
//!
//! Nothing is checked: what a [`View`](super::View) gave out has no line end in it but folds, and
//! fits; text from elsewhere must be looked at first.

use std::rc::Rc;

use crate::target::Transport;

/// `METHOD uri SIP/2.0`
pub fn request_line(out: &mut Vec<u8>, method: &[u8], uri: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(uri);
    out.extend_from_slice(b" SIP/2.0\r\n");
}

/// `SIP/2.0 code reason`, for a code of three digits. The space before an empty reason stays
/// (RFC 3261 §7.2).
pub fn status_line(out: &mut Vec<u8>, code: u16, reason: &[u8]) {
    out.extend_from_slice(b"SIP/2.0 ");
    number(out, code.into());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// `name: value`
pub fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A header as it was received, CRLF included.
pub fn line(out: &mut Vec<u8>, raw: &[u8]) {
    out.extend_from_slice(raw);
}

/// A request of ours, whose Via is its first header, with another transport in it (RFC 3261 §18.1.1).
pub fn with_via_transport(request: &[u8], transport: Transport) -> Rc<[u8]> {
    const VIA: &[u8] = b"\r\nVia: SIP/2.0/";
    let mut bytes: Rc<[u8]> = Rc::from(request);
    let name = transport.in_via().as_bytes();
    let at = memchr::memmem::find(request, VIA).map(|at| at + VIA.len());
    if let Some(at) = at
        && let Some(bytes) = Rc::get_mut(&mut bytes)
        && let Some(old) = bytes.get_mut(at..at + name.len())
    {
        old.copy_from_slice(name);
    }
    bytes
}

/// A decimal number.
pub fn number(out: &mut Vec<u8>, n: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = n;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Retry-After, in seconds.
pub fn retry_after(out: &mut Vec<u8>, seconds: u64) {
    out.extend_from_slice(b"Retry-After: ");
    number(out, seconds);
    out.extend_from_slice(b"\r\n");
}

/// Content-Length, the empty line, and the body: the end of the message.
pub fn body(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(b"Content-Length: ");
    number(out, body.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// The reason phrase of a status code (RFC 3261 §21 and the extensions); of its class for a code
/// that is not known.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        555 => "Push Notification Service Not Supported",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => match code / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Bad Request",
            5 => "Server Internal Error",
            _ => "Global Failure",
        },
    }
}
