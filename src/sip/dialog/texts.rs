//! The texts of a dialog, one behind the other in one buffer: among a million calls the way to each is a cache miss.

use crate::sip::kept::{Kept, Pool};

/// One of the texts. Those that every request in the dialog is compared with come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    CallId,
    /// The peer's tag, with `;tag=` before it; nothing until the peer's first response that has one.
    RemoteTag,
    /// URI of the peer's Contact.
    RemoteTarget,
    /// From or To of ours, without tag.
    Local,
    /// From or To of the peer's, without tag.
    Remote,
    /// The route that a dialog of ours begins with, as in `Routes`: an outbound proxy, or nothing.
    Preloaded,
    /// Route values, next hop first, each behind its length.
    Routes,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::CallId,
        Self::RemoteTag,
        Self::RemoteTarget,
        Self::Local,
        Self::Remote,
        Self::Preloaded,
        Self::Routes,
    ];
}

const TAG: &[u8] = b";tag=";

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Kept,
    /// Where each ends.
    ends: [u32; Part::ALL.len()],
}

impl Texts {
    /// One of them.
    pub(super) fn get(&self, part: Part) -> &[u8] {
        let end = |place: usize| self.ends.get(place).map_or(0, |&end| end as usize);
        let place = part as usize;
        let start = place.checked_sub(1).map_or(0, end);
        self.bytes.get(start..end(place)).unwrap_or_default()
    }

    /// Writes all of them anew: `write` is asked for each in turn, and may copy it from what was before.
    pub(super) fn rewrite(
        &mut self,
        pool: &mut Pool,
        mut write: impl FnMut(Part, &Self, &mut Vec<u8>),
    ) {
        let mut out = pool.take_buffer();
        let mut ends = self.ends;
        for (part, end) in Part::ALL.into_iter().zip(&mut ends) {
            write(part, self, &mut out);
            *end = out.len() as u32;
        }
        self.ends = ends;
        pool.replace(&mut self.bytes, &out);
        pool.put_buffer(out);
    }

    /// See [`Kept::touch`].
    pub(super) fn touch(&self) -> u8 {
        self.bytes.touch()
    }

    /// The peer's tag.
    pub(super) fn remote_tag(&self) -> Option<&[u8]> {
        self.get(Part::RemoteTag).strip_prefix(TAG)
    }

    /// The Route values, next hop first.
    pub(super) fn routes(&self) -> Routes<'_> {
        Routes(self.get(Part::Routes))
    }

    /// The buffer is needed no more.
    pub(super) fn give_back(self, pool: &mut Pool) {
        pool.give_back(self.bytes);
    }
}

/// Appends the text of [`Part::RemoteTag`].
pub(super) fn write_tag(out: &mut Vec<u8>, tag: Option<&[u8]>) {
    if let Some(tag) = tag {
        out.extend_from_slice(TAG);
        out.extend_from_slice(tag);
    }
}

/// Appends one value to the text of [`Part::Routes`].
pub(super) fn write_route(out: &mut Vec<u8>, route: &[u8]) {
    out.extend_from_slice(&(route.len() as u32).to_le_bytes());
    out.extend_from_slice(route);
}

/// Values that lie one behind the other.
#[derive(Clone, Debug)]
pub(super) struct Routes<'a>(&'a [u8]);

impl<'a> Iterator for Routes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (route, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that say their own name, `times` over.
    fn texts(pool: &mut Pool, times: usize) -> Texts {
        let mut texts = Texts::default();
        texts.rewrite(pool, |part, _, out| match part {
            Part::RemoteTag => write_tag(out, Some(&named(part, times))),
            Part::Routes => {
                write_route(out, b"");
                write_route(out, &named(part, times));
            }
            _ => out.extend_from_slice(&named(part, times)),
        });
        texts
    }

    fn named(part: Part, times: usize) -> Vec<u8> {
        format!("{part:?}").repeat(times).into_bytes()
    }

    #[test]
    fn each_text_is_found_whatever_its_length() {
        let mut pool = Pool::default();
        for times in [0, 1, 100, 20_000] {
            let texts = texts(&mut pool, times);
            for part in [Part::CallId, Part::Local, Part::Remote, Part::RemoteTarget] {
                assert_eq!(texts.get(part), named(part, times), "{part:?} {times} times");
            }
            assert_eq!(texts.get(Part::Preloaded), named(Part::Preloaded, times));
            assert_eq!(texts.remote_tag(), Some(&named(Part::RemoteTag, times)[..]));
            let routes: Vec<_> = texts.routes().map(<[u8]>::to_vec).collect();
            assert_eq!(routes, [vec![], named(Part::Routes, times)]);
            texts.give_back(&mut pool);
        }
    }

    #[test]
    fn no_texts_are_empty_and_no_tag_is_not_an_empty_one() {
        let mut pool = Pool::default();
        let mut texts = Texts::default();
        assert!(Part::ALL.into_iter().all(|part| texts.get(part).is_empty()));
        assert_eq!((texts.remote_tag(), texts.routes().next()), (None, None));
        texts.rewrite(&mut pool, |part, _, out| {
            if part == Part::RemoteTag {
                write_tag(out, Some(b""));
            }
        });
        assert_eq!(texts.remote_tag(), Some(&b""[..]));
    }

    #[test]
    fn a_new_text_in_the_middle_leaves_the_others_as_they_were() {
        let mut pool = Pool::default();
        for new in [&b""[..], b"x", &[b'y'; 70_000]] {
            let mut texts = texts(&mut pool, 3);
            texts.rewrite(&mut pool, |part, before, out| match part {
                Part::RemoteTarget => out.extend_from_slice(new),
                _ => out.extend_from_slice(before.get(part)),
            });
            assert_eq!(texts.get(Part::RemoteTarget), new);
            assert_eq!(texts.get(Part::Remote), named(Part::Remote, 3));
            assert_eq!(texts.remote_tag(), Some(&named(Part::RemoteTag, 3)[..]));
            assert_eq!(texts.get(Part::Preloaded), named(Part::Preloaded, 3));
            assert_eq!(texts.routes().nth(1), Some(&named(Part::Routes, 3)[..]));
        }
    }
}
