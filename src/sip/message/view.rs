//! A message, borrowed: each part is found when it is asked for.

use super::addr::NameAddr;
use super::check::Essentials;
use super::frame::content_length;
use super::head::{Entry, Head, Start};
use super::lex::{Values, digits_at, is_lws, is_one_word, is_token_text, number, skip_lws};
use super::method::Method;
use super::name::Name;
use super::via::Via;

/// A message through the table that was read of it.
///
/// An accessor reads its header when it is called, but for the [`Essentials`] that the view was given,
/// and answers `None` for what is missing or malformed; none panics or allocates, whatever the bytes.
/// [`check`](Self::check) tells once whether what every message needs is there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) head: &'a Head,
    /// What was read of it already.
    known: Option<&'a Essentials<'a>>,
}

/// One header as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which.
    pub name: Name,
    /// The name as written.
    pub name_bytes: &'a [u8],
    /// The value without white space around it; folds within are kept.
    pub value: &'a [u8],
    /// All of it, to behind its last CRLF.
    pub line: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `bytes`, of which `head` was read.
    pub fn new(bytes: &'a [u8], head: &'a Head) -> Self {
        Self { bytes, head, known: None }
    }

    /// The same view, which gives out what was read of this message when it was checked.
    pub fn with(self, essentials: &'a Essentials<'a>) -> Self {
        Self { known: Some(essentials), ..self }
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// True for a request, false for a response.
    pub fn is_request(&self) -> bool {
        matches!(self.head.start, Start::Request { .. })
    }

    /// The method: of the request line, or of a response's CSeq ([`Method::Other`] when that
    /// cannot be read).
    pub fn method(&self) -> Method {
        match self.head.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } | Start::None => Method::parse(self.method_bytes()),
        }
    }

    /// The method as written.
    pub fn method_bytes(&self) -> &'a [u8] {
        match self.head.start {
            Start::Request { method_end, .. } => {
                self.bytes.get(..method_end.into()).unwrap_or_default()
            }
            Start::Response { .. } | Start::None => self.cseq().map_or(&[], |(_, method)| method),
        }
    }

    /// The request URI; empty for a response.
    pub fn request_uri(&self) -> &'a [u8] {
        match self.head.start {
            Start::Request { uri, .. } => uri.of(self.bytes),
            Start::Response { .. } | Start::None => &[],
        }
    }

    /// The status code; 0 for a request.
    pub fn status(&self) -> u16 {
        match self.head.start {
            Start::Response { status, .. } => status,
            Start::Request { .. } | Start::None => 0,
        }
    }

    /// The reason phrase, any bytes; empty for a request.
    pub fn reason(&self) -> &'a [u8] {
        match self.head.start {
            Start::Response { reason, .. } => reason.of(self.bytes),
            Start::Request { .. } | Start::None => &[],
        }
    }

    /// All headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + 'a {
        let bytes = self.bytes;
        self.head.headers.iter().map(move |entry| Header {
            name: entry.name,
            name_bytes: entry.name_bytes(bytes),
            value: entry.value.of(bytes),
            line: entry.line.of(bytes),
        })
    }

    /// The value of the first header of that name. O(1).
    #[inline]
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        Some(self.head.first(name)?.value.of(self.bytes))
    }

    /// How many headers have that name.
    pub fn count(&self, name: Name) -> usize {
        self.entries(name).count()
    }

    /// The single values of all headers of that name, in order, split at commas outside quotes and
    /// brackets.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.entries(name).flat_map(move |entry| Values::new(entry.value.of(bytes)))
    }

    fn entries(&self, name: Name) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let none_before = self.head.first(name).is_none();
        let headers = if none_before { &[][..] } else { &self.head.headers[..] };
        headers.iter().filter(move |entry| entry.name == name)
    }

    /// Everything before the body.
    pub fn head_bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.head.body.into()).unwrap_or(self.bytes)
    }

    /// The body: what follows the head, up to Content-Length where that is less.
    pub fn body(&self) -> &'a [u8] {
        let rest = self.after_head();
        match self.first(Name::ContentLength).map(content_length) {
            Some(Ok(len)) => rest.get(..len).unwrap_or(rest),
            Some(Err(_)) | None => rest,
        }
    }

    /// Everything behind the head.
    pub(super) fn after_head(&self) -> &'a [u8] {
        self.bytes.get(self.head.body.into()..).unwrap_or_default()
    }

    /// The topmost Via: the first value of the first Via header.
    pub fn via(&self) -> Option<Via<'a>> {
        match self.known {
            Some(known) => Some(known.via),
            None => Via::parse(self.first(Name::Via)?),
        }
    }

    /// From.
    pub fn from(&self) -> Option<NameAddr<'a>> {
        match self.known {
            Some(known) => Some(known.from),
            None => NameAddr::parse(self.first(Name::From)?),
        }
    }

    /// To.
    pub fn to(&self) -> Option<NameAddr<'a>> {
        match self.known {
            Some(known) => Some(known.to),
            None => NameAddr::parse(self.first(Name::To)?),
        }
    }

    /// True when To can be read and has no tag: the request belongs to no dialog yet (RFC 3261 §12.2).
    pub fn is_outside_dialog(&self) -> bool {
        self.to().is_some_and(|to| to.tag.is_none())
    }

    /// The first Contact; `None` also for `*`.
    pub fn contact(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse_first(self.first(Name::Contact)?)
    }

    /// The number and the method of CSeq; `None` also for a number of 2^31 or more
    /// (RFC 3261 §8.1.1.5).
    pub fn cseq(&self) -> Option<(u32, &'a [u8])> {
        if let Some(known) = self.known {
            return Some(known.cseq);
        }
        let value = self.first(Name::CSeq)?;
        let (digits, rest) = value.split_at(digits_at(value, 0));
        let method = rest.get(skip_lws(rest, 0)..)?;
        let is_apart = method.len() < rest.len();
        let number = u32::try_from(number(digits)?).ok().filter(|&number| number < 1 << 31)?;
        (is_apart && is_token_text(method)).then_some((number, method))
    }

    /// Call-ID; `None` when it is empty or has white space or control characters in it.
    pub fn call_id(&self) -> Option<&'a [u8]> {
        let value = self.first(Name::CallId)?;
        (!value.is_empty() && is_one_word(value)).then_some(value)
    }

    /// Max-Forwards; `None` when it is missing or not a number up to 255.
    pub fn max_forwards(&self) -> Option<u8> {
        u8::try_from(number(self.first(Name::MaxForwards)?)?).ok()
    }

    /// The single Record-Route values, topmost first.
    pub fn record_routes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(Name::RecordRoute)
    }

    /// The single Route values, topmost first.
    pub fn routes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(Name::Route)
    }

    /// True when there is a body that holds, or may hold, a session description: `application/sdp`
    /// or `multipart/*`.
    pub fn has_offer(&self) -> bool {
        let multipart = |start: &[u8]| start.eq_ignore_ascii_case(b"multipart/");
        let may_hold = self.media_type().get(..10).is_some_and(multipart);
        self.is_sdp() || (may_hold && !self.body().is_empty())
    }

    /// True when the body is a session description and nothing else.
    pub fn is_sdp(&self) -> bool {
        self.media_type().eq_ignore_ascii_case(b"application/sdp") && !self.body().is_empty()
    }

    /// The type and subtype of Content-Type; empty without.
    fn media_type(&self) -> &'a [u8] {
        let value = self.first(Name::ContentType).unwrap_or_default();
        let end = value.iter().position(|&byte| byte == b';' || is_lws(byte));
        &value[..end.unwrap_or(value.len())]
    }

    /// The seconds of Retry-After, whatever comment and parameters follow them; at most 2^32 - 1.
    pub fn retry_after(&self) -> Option<u32> {
        self.seconds(Name::RetryAfter)
    }

    /// The seconds of Session-Expires (RFC 4028 §4); at most 2^32 - 1.
    pub fn session_expires(&self) -> Option<u32> {
        self.seconds(Name::SessionExpires)
    }

    fn seconds(&self, name: Name) -> Option<u32> {
        let value = self.first(name)?;
        let (digits, rest) = value.split_at(digits_at(value, 0));
        match rest.first() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(') if !digits.is_empty() => {
                // More than fits is a very long time, not none at all.
                Some(number(digits).and_then(|secs| secs.try_into().ok()).unwrap_or(u32::MAX))
            }
            None | Some(_) => None,
        }
    }
}
