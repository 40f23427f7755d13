//! What is sent again over UDP until somebody answers: timers A, E and G (RFC 3261 §17).
//!
//! ```text
//! INVITE              A: T1, 2·T1, 4·T1 …             until any response, or B
//! other requests      E: T1, 2·T1 … T2, T2 …          until a final response, or F; T2 after a 1xx
//! CANCEL              E, beside the INVITE            until its answer, or the INVITE's
//! 3xx–6xx to INVITE   G: T1, 2·T1 … T2, T2 …          until the ACK, or H
//! ```
//!
//! What goes out again are the same bytes, always. Over TCP none of this exists.

use std::time::Duration;

use super::client::State as ClientState;
use super::invite_server::{self, Event};
use super::{Stack, invite_client, request_client};
use crate::key::{ClientId, ServerId, TimerKey};
use crate::sip::timer::{T1, T2, Timer};

/// A running timer A, E or G.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) timer: TimerKey,
    interval_millis: u32,
}

impl Repeat {
    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_millis.into())
    }
}

impl Stack {
    /// Lets a request be sent again in T1 if it went out over UDP: its own timer A or E, or that of
    /// its CANCEL.
    pub(super) fn repeat_if_unreliable(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        if !client.transport.is_unreliable() {
            return;
        }
        let timer = match client.state {
            ClientState::Invite(invite_client::State::Calling) => Timer::A(id),
            ClientState::Invite(_) | ClientState::Request(_) => Timer::E(id),
        };
        self.repeat_client_in(id, T1, timer);
    }

    pub(super) fn stop_repeating(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && let Some(repeat) = client.repeat.take()
        {
            self.wheel.cancel(repeat.timer);
        }
    }

    /// Timer A: the INVITE again.
    pub(in crate::sip) fn on_timer_a(&mut self, id: ClientId) {
        let Some((state, interval)) = self.take_repeat(id) else { return };
        let ClientState::Invite(state) = state else { return };
        let (_, effect) = invite_client::step(state, invite_client::Event::A);
        if effect == invite_client::Effect::Retransmit {
            self.send_same(id);
            self.repeat_client_in(id, interval * 2, Timer::A(id));
        }
    }

    /// Timer E: the request again, or the CANCEL of an INVITE.
    pub(in crate::sip) fn on_timer_e(&mut self, id: ClientId) {
        let Some((state, interval)) = self.take_repeat(id) else { return };
        let doubled = (interval * 2).min(T2);
        let next = match state {
            ClientState::Invite(_) => {
                self.send_cancel(id);
                doubled
            }
            ClientState::Request(state) => {
                let (after, effect) = request_client::step(state, request_client::Event::E);
                if effect != request_client::Effect::Retransmit {
                    return;
                }
                self.send_same(id);
                if after == request_client::State::Proceeding { T2 } else { doubled }
            }
        };
        self.repeat_client_in(id, next, Timer::E(id));
    }

    /// Lets the final response of an INVITE be sent again in T1.
    pub(super) fn begin_repeating_response(&mut self, id: ServerId) {
        self.repeat_server_in(id, T1);
    }

    /// Timer G: the final response of an INVITE again.
    pub(in crate::sip) fn on_timer_g(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let Some(repeat) = server.repeat.take() else { return };
        let Some(state) = server.invite_state() else { return };
        if invite_server::step(state, Event::G).1 == invite_server::Effect::Retransmit {
            self.answer_again(id);
            self.repeat_server_in(id, (repeat.interval() * 2).min(T2));
        }
    }

    fn take_repeat(&mut self, id: ClientId) -> Option<(ClientState, Duration)> {
        let client = self.clients.get_mut(id)?;
        let repeat = client.repeat.take()?;
        Some((client.state, repeat.interval()))
    }

    pub(super) fn send_same(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(id) {
            self.out.send(client.flow, &client.request);
        }
    }

    fn repeat_client_in(&mut self, id: ClientId, interval: Duration, timer: Timer) {
        self.stop_repeating(id);
        if let Some(client) = self.clients.get_mut(id) {
            let timer = self.wheel.schedule(self.now + interval, timer);
            client.repeat = Some(Repeat { timer, interval_millis: interval.as_millis() as u32 });
        }
    }

    fn repeat_server_in(&mut self, id: ServerId, interval: Duration) {
        if let Some(server) = self.servers.get_mut(id) {
            let timer = self.wheel.schedule(self.now + interval, Timer::G(id));
            server.repeat = Some(Repeat { timer, interval_millis: interval.as_millis() as u32 });
        }
    }
}
