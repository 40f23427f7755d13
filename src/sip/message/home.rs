//! Which shard a message belongs to, without a table and without reading all of it.

use super::MESSAGE_BYTES_MAX;
use super::addr::NameAddr;
use super::head::is_response;
use super::lex::trim;
use super::lines::{Event, Lines};
use super::name::{self, Name};
use super::via::Via;
use crate::key::ShardId;

/// The shard that made what the message refers to: for a response, the branch of its topmost Via;
/// for a request, the tag of To. `None` when it was not one of ours.
///
/// Stops at the line it looks for. Agrees with what a [`View`](super::View) of the same bytes says,
/// on every input.
pub fn home(bytes: &[u8]) -> Option<ShardId> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let (wanted, letter) = if is_response(bytes) { (Name::Via, b'v') } else { (Name::To, b't') };
    let mut lines = Lines::default();
    loop {
        match lines.next(bytes) {
            Event::Line { start: 0, .. } => {}
            Event::Line { start, end } => {
                if bytes[start] | 0x20 != letter {
                    continue;
                }
                let Some((name, _, value)) = name::read(&bytes[start..], end - start) else {
                    continue;
                };
                if name == wanted {
                    let value = trim(&bytes[start + value..end]);
                    let token = match wanted {
                        Name::Via => Via::parse(value)?.token()?,
                        _ => NameAddr::parse(value)?.token()?,
                    };
                    return Some(token.shard);
                }
            }
            Event::More | Event::End { .. } | Event::Refused { .. } => return None,
        }
    }
}
