//! Every order of events around a re-INVITE that loses its flow, up to a length: nothing is drawn.
//!
//! ```text
//! re-INVITE is out ─► step ─► step ─► … ─► the peer answers the newest attempt ─► is all as it must be?
//!                      │ the flow is reset, time goes by, CANCEL, any answer to any attempt
//! ```
//!
//! `HOLDFAST_ORDERS` sets the number of steps.

use crate::message::Msg;
use crate::scenarios::DELAY;
use crate::script::{A, B, Script, reinvite};

/// Steps in an ordinary run.
const STEPS: usize = 5;
/// Attempts that steps answer; later ones are answered at the end.
const ATTEMPTS_MAX: usize = 3;
/// One wait for the next attempt, and a little more.
const WAIT: u64 = 600;

/// What the peer answers.
const STATUSES: [u16; 8] = [100, 180, 200, 481, 487, 491, 500, 503];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reset,
    Wait,
    Cancel,
    Answer(usize, u16),
}

/// An attempt as the peer knows it.
#[derive(Debug)]
struct Attempt {
    /// Requests that came before it.
    place: usize,
    cseq: u32,
    branch: String,
    /// A 1xx was sent: a final response is owed.
    taken: bool,
    answered: Option<u16>,
    /// Final responses, in their order.
    answers: Vec<u16>,
}

/// One order as it goes on.
struct Order {
    s: Script,
    now: u64,
    /// Requests that the peer received, whatever they are.
    received: usize,
    attempts: Vec<Attempt>,
    /// Final response to the caller.
    caller: Option<u16>,
    cancelled: bool,
    /// The dialog was denied while the operation was under way.
    denied: bool,
    ended: bool,
    /// ACKs that came since the last step.
    acks: Vec<Msg>,
}

impl Order {
    /// `offered`: the re-INVITE has an offer, so that its 2xx is acknowledged before the caller has it.
    fn new(offered: bool) -> Self {
        let mut s = Script::established().option(DELAY, 500);
        let received = s.requests_of_b();
        let reinvite = if offered { reinvite() } else { reinvite().without_offer() };
        s.at(0).a_sends(reinvite);
        let mut order = Self {
            s,
            now: 0,
            received,
            attempts: Vec::new(),
            caller: None,
            cancelled: false,
            denied: false,
            ended: false,
            acks: Vec::new(),
        };
        order.look();
        order
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Reset, Step::Wait];
        if self.caller.is_none() && !self.cancelled {
            steps.push(Step::Cancel);
        }
        for (index, attempt) in self.attempts.iter().take(ATTEMPTS_MAX).enumerate() {
            match attempt.answered {
                None => steps.extend(STATUSES.map(|status| Step::Answer(index, status))),
                // Repeated, as 2xx are; of a peer that a proxy gave up with 503.
                Some(200 | 503) => steps.push(Step::Answer(index, 200)),
                Some(_) => {}
            }
        }
        steps
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        self.acks.clear();
        match step {
            Step::Reset => self.s.reset(B),
            Step::Wait => {
                self.now += WAIT;
                self.s.at(self.now);
            }
            Step::Cancel => {
                self.cancelled = true;
                self.s.a_cancels();
            }
            Step::Answer(index, status) => return self.answer(index, status),
        }
        self.look_and_judge()
    }

    fn answer(&mut self, index: usize, status: u16) -> Result<(), String> {
        let newest = index + 1 == self.attempts.len();
        let open = self.caller.is_none() && !self.ended;
        let attempt = &mut self.attempts[index];
        match status {
            200.. => {
                attempt.answered = Some(status);
                attempt.answers.push(status);
            }
            _ => attempt.taken = true,
        }
        let back = self.received - 1 - attempt.place;
        let (cseq, branch) = (attempt.cseq, attempt.branch.clone());
        self.denied |= open && matches!(status, 408 | 481);
        let headers: &[(&str, &str)] = match status {
            500 => &[("Retry-After", "1")],
            503 => &[("Error-Info", "<transport-error>")],
            _ => &[],
        };
        self.s.b_answers_earlier_with(back, status, headers);
        self.look_and_judge()?;
        let acknowledged = self.acks.iter().any(|ack| {
            let same = ack.branch() == branch;
            ack.cseq().0 == cseq && (if status < 300 { !same } else { same })
        });
        if status >= 200 && !acknowledged {
            return Err(format!("{status} to attempt {index} was not acknowledged"));
        }
        if status == 200 && newest && open && self.caller != Some(200) {
            return Err(format!("200 to the newest attempt, and the caller has {:?}", self.caller));
        }
        Ok(())
    }

    /// Takes in what came to both ends.
    fn look(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.look_at_the_peer(&mut wrong);
        self.look_at_the_caller(&mut wrong);
        // The ACK that waited for the caller's.
        self.look_at_the_peer(&mut wrong);
        wrong
    }

    fn look_at_the_peer(&mut self, wrong: &mut Vec<String>) {
        while let Some(msg) = self.s.takes(B) {
            match msg.method() {
                _ if msg.is_response() => {}
                "INVITE" => {
                    let (cseq, branch) = (msg.cseq().0, msg.branch());
                    self.attempts.push(Attempt {
                        place: self.received,
                        cseq,
                        branch,
                        taken: false,
                        answered: None,
                        answers: Vec::new(),
                    });
                    self.received += 1;
                }
                "ACK" => self.acks.push(msg),
                "CANCEL" => {
                    let branch = msg.branch();
                    let of = self.attempts.iter().find(|attempt| attempt.branch == branch);
                    match of.map(|attempt| attempt.answered) {
                        Some(None) => {}
                        of => wrong.push(format!("CANCEL of {of:?}")),
                    }
                }
                "BYE" => {
                    self.received += 1;
                    self.ended = true;
                }
                method => wrong.push(format!("the peer received {method}")),
            }
        }
    }

    fn look_at_the_caller(&mut self, wrong: &mut Vec<String>) {
        while let Some(msg) = self.s.takes(A) {
            if !msg.is_response() {
                self.ended |= msg.method() == "BYE";
                continue;
            }
            if msg.method() != "INVITE" || msg.status() < 200 {
                continue;
            }
            if let Some(before) = self.caller {
                wrong.push(format!("the caller got {} after {before}", msg.status()));
            }
            self.caller = Some(msg.status());
            self.s.a_acknowledges();
        }
    }

    fn look_and_judge(&mut self) -> Result<(), String> {
        let wrong = self.look();
        if let Some(text) = wrong.into_iter().next() {
            return Err(text);
        }
        if self.ended && !self.denied {
            return Err("the call was ended".to_owned());
        }
        let passed = self.caller.filter(|status| !matches!(status, 200 | 487));
        if let Some(status) = passed
            && !self.attempts.iter().any(|attempt| attempt.answers.contains(&status))
        {
            return Err(format!("the caller got {status}, which nobody answered"));
        }
        Ok(())
    }

    /// The peer answers what is asked of it from now on.
    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..60 {
            if self.ended || self.caller.is_some() {
                break;
            }
            let last = self.attempts.len() - 1;
            let owed = |(index, attempt): (usize, &Attempt)| {
                (attempt.answered.is_none() && (index == last || attempt.taken)).then_some(index)
            };
            match self.attempts.iter().enumerate().rev().find_map(owed) {
                Some(index) => self.take(Step::Answer(index, 200))?,
                None => self.take(Step::Wait)?,
            }
        }
        if !self.ended && self.caller.is_none() {
            return Err("the caller has no answer".to_owned());
        }
        // Everything late is over, also an INVITE whose call ended while it was taken: timer C.
        self.now += 300_000;
        self.s.at(self.now);
        self.look_and_judge()?;
        let stats = self.s.stats();
        if stats.clients + stats.servers + stats.timers + stats.waiting > 0 {
            return Err(format!("something is left: {stats:?}"));
        }
        if stats.calls != usize::from(!self.ended) {
            return Err(format!("{} calls", stats.calls));
        }
        if !self.ended {
            self.s.call_is_up();
        }
        Ok(())
    }
}

/// Plays one order; `choices` says which step to take at each point, and gets how many there were.
fn play(
    choices: &mut Vec<(usize, usize)>,
    length: usize,
    offered: bool,
) -> Result<(), (Vec<Step>, String)> {
    let mut order = Order::new(offered);
    let mut taken = Vec::new();
    for at in 0..length {
        if order.ended {
            choices.truncate(at);
            break;
        }
        let steps = order.steps();
        if at == choices.len() {
            choices.push((0, steps.len()));
        }
        let step = steps[choices[at].0];
        taken.push(step);
        order.take(step).map_err(|error| (taken.clone(), error))?;
    }
    order.finish().map_err(|error| (taken, error))
}

/// The next order in the enumeration; false after the last one.
fn advance(choices: &mut Vec<(usize, usize)>) -> bool {
    while let Some((choice, count)) = choices.pop() {
        if choice + 1 < count {
            choices.push((choice + 1, count));
            return true;
        }
    }
    false
}

#[test]
fn no_order_of_answers_and_losses_loses_a_call_or_leaves_anything_behind() {
    play_all(true);
}

#[test]
fn no_order_of_answers_and_losses_loses_a_call_whose_reinvite_has_no_offer() {
    play_all(false);
}

fn play_all(offered: bool) {
    let length = std::env::var("HOLDFAST_ORDERS").ok().and_then(|text| text.parse().ok());
    let length = length.unwrap_or(STEPS);
    let (mut choices, mut count, mut wrong) = (Vec::new(), 0u64, Vec::new());
    loop {
        count += 1;
        if let Err((steps, error)) = play(&mut choices, length, offered) {
            wrong.push(format!("{steps:?}: {error}"));
        }
        if !advance(&mut choices) {
            break;
        }
    }
    println!("{count} orders of {length} steps, wrong: {}", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}
