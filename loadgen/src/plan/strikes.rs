//! Who suffers what, from when to when.

use std::time::Duration;

use super::random::{Purpose, Random};
use super::{FAULTS_MAX, Fault, STRIKES_MAX, Side, What};

/// One party is struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    /// Since the start.
    pub(crate) at: Duration,
    /// When it is lifted; `None`: nothing is to be lifted, or never.
    pub(crate) until: Option<Duration>,
    pub(crate) side: Side,
    pub(crate) party: u32,
    pub(crate) what: What,
}

impl Strike {
    /// Something is to be lifted, or would be if there were an end.
    fn lasts(&self) -> bool {
        self.until.is_some() || !self.what.is_momentary()
    }
}

impl Fault {
    /// The strikes of this fault alone, as the first of its run; sorted by instant.
    ///
    /// # Errors
    ///
    /// More parties than there are, or more strikes than a run may have.
    #[cfg(test)]
    pub(crate) fn strikes(
        &self,
        seed: u64,
        callees: u32,
        callers: u32,
    ) -> Result<Vec<Strike>, String> {
        strikes(std::slice::from_ref(self), seed, callees, callers)
    }

    /// `number` is the fault's place in its run.
    fn add_strikes(&self, seed: u64, number: u32, parties: u32, into: &mut Vec<Strike>) {
        let chosen = choose(seed, number, self.share.of(parties), parties);
        let count = chosen.len() as u32;
        for time in 0..self.times {
            for (place, party) in chosen.iter().enumerate() {
                let offset = self.over.as_nanos() * place as u128 / u128::from(count);
                let at = self.at + self.every * time + Duration::from_nanos(offset as u64);
                let until = self.away.map(|away| at + away);
                let what = self.what.clone();
                into.push(Strike { at, until, side: self.side, party: *party, what });
            }
        }
    }

    fn check_parties(&self, callees: u32, callers: u32) -> Result<u32, String> {
        let (parties, name) = match self.side {
            Side::Callee => (callees, "callees"),
            Side::Caller => (callers, "callers"),
        };
        match self.share {
            super::Share::Count(count) if count > parties => {
                Err(format!("fault `{self}`: {count} {name}, of {parties} that there are"))
            }
            _ => Ok(parties),
        }
    }
}

/// So many different parties, in an order that the seed fixes.
fn choose(seed: u64, number: u32, count: u32, parties: u32) -> Vec<u32> {
    let mut random = Random::new(seed, Purpose::Strikes(number));
    let mut all: Vec<u32> = (0..parties).collect();
    for place in 0..count as usize {
        let other = place + random.below(all.len() as u64 - place as u64) as usize;
        all.swap(place, other);
    }
    all.truncate(count as usize);
    all
}

/// The strikes of all faults of a run, sorted by instant; at one instant in the order of the faults.
///
/// A party suffers one lasting thing at a time: the next one that begins ends the one before, whose
/// `until` becomes that instant. What is momentary and has no `away` leaves what lasts alone.
/// At one instant what ends is to be lifted before what begins.
///
/// # Errors
///
/// More parties than there are, more faults or more strikes than a run may have.
pub(crate) fn strikes(
    faults: &[Fault],
    seed: u64,
    callees: u32,
    callers: u32,
) -> Result<Vec<Strike>, String> {
    if faults.len() > FAULTS_MAX {
        return Err(format!("{} faults, at most {FAULTS_MAX} are allowed", faults.len()));
    }
    let mut all = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let parties = fault.check_parties(callees, callers)?;
        let more = u64::from(fault.share.of(parties)) * u64::from(fault.times);
        if all.len() as u64 + more > STRIKES_MAX as u64 {
            return Err(format!("fault `{fault}`: more than {STRIKES_MAX} strikes in one run"));
        }
        fault.add_strikes(seed, number as u32, parties, &mut all);
    }
    all.sort_by_key(|strike| strike.at);
    join(&mut all, callees, callers);
    Ok(all)
}

/// Brings forward the end of what another strike takes the place of.
fn join(strikes: &mut [Strike], callees: u32, callers: u32) {
    const NONE: u32 = u32::MAX;
    let mut lasting = [vec![NONE; callers as usize], vec![NONE; callees as usize]];
    for place in 0..strikes.len() {
        let strike = &strikes[place];
        if !strike.lasts() {
            continue;
        }
        let at = strike.at;
        let side = usize::from(strike.side == Side::Callee);
        let slot = &mut lasting[side][strike.party as usize];
        let before = std::mem::replace(slot, place as u32);
        if let Some(before) = strikes.get_mut(before as usize)
            && before.until.is_none_or(|until| until > at)
        {
            before.until = Some(at);
        }
    }
}
