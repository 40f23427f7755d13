//! Whether a message has what every message needs (RFC 3261 §8.1.1, §8.2, §16.3).

use super::addr::{NameAddr, is_absolute};
use super::frame::FrameError;
use super::head::{HeadError, Start};
use super::method::Method;
use super::name::Name;
use super::uri::Uri;
use super::via::Via;
use super::view::View;

/// Headers that occur once at most, in the order in which a repetition is reported.
const ONCE: [Name; 5] = [Name::From, Name::To, Name::CallId, Name::CSeq, Name::MaxForwards];

/// What every message needs, read once: a view [`with`](View::with) it does not read it again.
#[derive(Clone, Copy, Debug)]
pub struct Essentials<'a> {
    pub(super) via: Via<'a>,
    pub(super) from: NameAddr<'a>,
    pub(super) to: NameAddr<'a>,
    pub(super) cseq: (u32, &'a [u8]),
}

impl<'a> View<'a> {
    /// Checks the start line's contents, and that Via, From, To, Call-ID and CSeq are there, once
    /// where only one makes sense, and can be read; that Max-Forwards and Content-Length can, if
    /// they are there; that CSeq is for this method; that the body is not cut short.
    ///
    /// Only the topmost Via is read: the others are for whoever sent the message.
    ///
    /// # Errors
    /// The first thing found wrong, by [`Head::read`](super::Head::read) or then.
    pub fn check(&self) -> Result<(), HeadError> {
        self.essentials().map(|_| ())
    }

    /// [`check`](Self::check), and what was read for it.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn essentials(&self) -> Result<Essentials<'a>, HeadError> {
        self.head.result?;
        if let Some(&name) = ONCE.iter().find(|&&name| self.head.is_repeated(name)) {
            return Err(HeadError::Repeated(name));
        }
        let via = self.require(Name::Via, self.via())?;
        let from = self.require(Name::From, self.from())?;
        let to = self.require(Name::To, self.to())?;
        self.require(Name::CallId, self.call_id())?;
        let cseq @ (_, cseq_method) = self.require(Name::CSeq, self.cseq())?;
        match self.head.start {
            Start::Request { method, .. } => {
                if cseq_method != self.method_bytes() {
                    let cseq = Method::parse(cseq_method);
                    return Err(HeadError::CSeqMethod { request: method, cseq });
                }
                self.check_request_uri()?;
                if self.first(Name::MaxForwards).is_some() && self.max_forwards().is_none() {
                    return Err(HeadError::Value(Name::MaxForwards));
                }
            }
            Start::Response { status, .. } => {
                if !(100..700).contains(&status) {
                    return Err(HeadError::Status(status));
                }
            }
            Start::None => return Err(HeadError::StartLine),
        }
        self.check_content_length()?;
        Ok(Essentials { via, from, to, cseq })
    }

    /// Tells a missing header from one that cannot be read.
    fn require<T>(&self, name: Name, read: Option<T>) -> Result<T, HeadError> {
        read.ok_or_else(|| match self.first(name) {
            None => HeadError::Missing(name),
            Some(_) => HeadError::Value(name),
        })
    }

    /// Other schemes are for the application to refuse, with 416.
    fn check_request_uri(&self) -> Result<(), HeadError> {
        let uri = self.request_uri();
        let scheme_len = uri.iter().position(|&byte| byte == b':').unwrap_or(0);
        let scheme = &uri[..scheme_len];
        let is_sip = scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips");
        let is_sane = if is_sip { Uri::parse(uri).is_some() } else { is_absolute(uri) };
        if is_sane { Ok(()) } else { Err(HeadError::RequestUri) }
    }

    fn check_content_length(&self) -> Result<(), HeadError> {
        let content_length = match self.head.content_length(self.bytes) {
            Ok(length) => length,
            Err(FrameError::NoContentLength) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let found = self.after_head().len();
        if found < content_length {
            return Err(HeadError::BodyTooShort { content_length, found });
        }
        Ok(())
    }
}
