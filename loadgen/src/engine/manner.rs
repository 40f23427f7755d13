//! Answers that a party gives while something is wrong with it.

use std::time::{Duration, Instant};

use super::agent::{Id, Side};
use super::{Engine, Wish};
use crate::message::Message;
use crate::net::Place;
use crate::plan::What;
use crate::text::Answer;

/// How long a party that answers late keeps a re-INVITE before it leaves its connection.
const LATE: Duration = Duration::from_millis(100);

/// What a party does with INVITEs, first ones and later ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As the program says.
    #[default]
    Well,
    /// Reads a re-INVITE and says nothing.
    Silent,
    /// Says 100 to a re-INVITE and no more.
    Trying,
    /// Refuses with a status and these lines.
    Refuses(&'static str, Vec<u8>),
    /// Answers a re-INVITE with 200, twice.
    Twice,
    /// Loses its connection under a re-INVITE and answers it on a new one.
    LateOnNewConnection,
}

impl Manner {
    /// What a strike of the plan makes of a party; `None` when it is no matter of answers.
    pub(crate) fn of(what: &What) -> Option<Self> {
        Some(match what {
            What::Unavailable { error_info, retry_after } => {
                let mut lines = Vec::new();
                if *error_info {
                    lines.extend_from_slice(b"Error-Info: transport-error\r\n");
                }
                if let Some(seconds) = retry_after {
                    lines.extend_from_slice(format!("Retry-After: {seconds}\r\n").as_bytes());
                }
                Self::Refuses("503 Service Unavailable", lines)
            }
            What::FlowFailed430 => Self::Refuses("430 Flow Failed", Vec::new()),
            What::Status477 => Self::Refuses("477 Send failed", Vec::new()),
            What::LateOnNewConnection => Self::LateOnNewConnection,
            What::Duplicate => Self::Twice,
            _ => return None,
        })
    }
}

impl Engine {
    pub(super) fn manner(&self, place: Place) -> Manner {
        let manners = &self.manners[place.side as usize];
        manners.get(place.party as usize).cloned().unwrap_or_default()
    }

    /// Changes how a party behaves from now on.
    pub(crate) fn set_manner(&mut self, side: Side, party: u32, manner: Manner) {
        if let Some(place) = self.manners[side as usize].get_mut(party as usize) {
            *place = manner;
        }
    }

    /// Changes how all callees behave.
    pub(crate) fn set_manners(&mut self, manner: &Manner) {
        self.manners[Side::Callee as usize].fill(manner.clone());
    }

    /// Does what the party's manner is; false when it behaves well. `id` is none for a first INVITE.
    pub(super) fn misbehave(
        &mut self,
        place: Place,
        id: Option<Id>,
        message: &Message<'_>,
        now: Instant,
    ) -> bool {
        match (self.manner(place), id) {
            (Manner::Well | Manner::Twice, _)
            | (Manner::Silent | Manner::Trying | Manner::LateOnNewConnection, None) => false,
            (Manner::Silent, Some(_)) => true,
            (Manner::Trying, Some(id)) => {
                self.respond(id, message, "100 Trying", &Answer::default());
                true
            }
            (Manner::Refuses(status, lines), Some(id)) => {
                let answer = Answer { headers: &lines, ..Answer::default() };
                self.respond(id, message, status, &answer);
                true
            }
            (Manner::Refuses(status, lines), None) => {
                let tag = b"d-refused";
                let answer = Answer { tag, headers: &lines, ..Answer::default() };
                self.out.message(place.conn, |out| {
                    crate::text::write_response(out, message, status, &answer);
                });
                true
            }
            (Manner::LateOnNewConnection, Some(id)) => {
                let kept = self.agent(id).kept();
                kept.request.clear();
                kept.request.extend_from_slice(message.raw);
                let (at, party) = (now + LATE, place.party);
                self.wishes.push(Wish::AnswerLate { at, side: place.side, party });
                true
            }
        }
    }

    /// The party has a new connection: what it kept is answered there.
    pub(crate) fn answer_late(&mut self, side: Side, party: u32, conn: u32) {
        let agents = self.agents(side).of_party(party).to_vec();
        for index in agents {
            let id = Id { side, index };
            let agent = self.agent(id);
            let Some(kept) = agent.kept.as_mut().filter(|kept| !kept.request.is_empty()) else {
                continue;
            };
            let request = std::mem::take(&mut kept.request);
            agent.conn = conn;
            if let crate::message::Frame::Message(message, _) = crate::message::next(&request) {
                self.answer_reinvite(id, &message);
            }
        }
    }
}
