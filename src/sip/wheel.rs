//! Hashed timer wheel: all timers of a shard.
//!
//! ```text
//!            cursor                                   cursor + 65,535 = far edge
//!              ▼                                          ▼
//! slots   ─┬───┬───┬───┬───┬───┬───┬── … ──┬───┬───┬───┬─────┐
//!          │   │ 2 │   │   │ 1 │   │       │   │ 3 │   │ far │   one slot a tick of 1 ms
//!         ─┴───┴─┼─┴───┴───┴─┼─┴───┴── … ──┴───┴─┼─┴───┴──┼──┘
//!                ▼           ▼                   ▼        ▼
//!               e ⇄ e        e               e ⇄ e ⇄ e    entries due beyond the horizon
//! words    …0 1 0 0 1 0…     one bit a slot: it has entries        1,024 words
//! summary  …1 0 0…           one bit a word: it is not zero           16 words
//! top      …1…               one bit a summary word                    1 word
//! ```
//!
//! An entry is threaded into the list of its tick's slot, so that scheduling and cancelling touch
//! the slot and its neighbours and nothing else. The earliest entry is found through the bitmap in
//! a few word operations however far away it is: there is no tick to run while nothing is due.
//!
//! The horizon, 65.5 s, is longer than 64·T1 (32 s) and so than every transaction timer but C. An
//! entry due beyond it parks at the far edge of the moment and is hashed again when the cursor gets
//! there: one move for each 65.5 s that it waits, spread over the slots as the schedulings were.

use std::fmt;

use crate::key::{Key, TimerKey};
use crate::time::Instant;

/// Timers of one wheel, 2²⁸; one more panics. Every timer belongs to something in a slab of its
/// shard, and those are bounded well below this.
pub const TIMERS_MAX: usize = 1 << 28;

/// Scheduled items, popped in the order of their ticks.
///
/// One tick is 1 ms. Within a tick the order is that of the scheduling; only entries that waited
/// beyond the horizon come in an order of their own, which is the same in every run.
///
/// A new wheel takes 512 KiB of address space, of which pages are used as slots are; an entry takes
/// 24 bytes and its item. Memory of entries is recycled, and given back when the last of more than
/// [`RETAINED_ENTRIES`] leaves.
pub struct Wheel<T> {
    /// No entry is due before this tick; those of this tick may still be in the wheel.
    cursor: u64,
    entries: Vec<Entry<T>>,
    /// Apart from the entries: neighbours are touched far more often than read, and eight links
    /// share a cache line.
    links: Vec<Link>,
    /// Head of the list of free entries, threaded through `next`.
    free: u32,
    len: u32,
    /// Counts every scheduling, so that an old key never fits the next occupant of its entry.
    generation: u32,
    /// First and last entry of each slot; without meaning while the slot's bit is clear.
    slots: Box<[[u32; 2]; SLOTS]>,
    occupied: Occupied,
}

/// Entries that an empty wheel keeps memory for.
pub const RETAINED_ENTRIES: usize = 1024;

impl<T> Wheel<T> {
    /// An empty wheel whose horizon begins at `now`.
    pub fn new(now: Instant) -> Self {
        // Zeroed, not filled: untouched pages cost nothing.
        let slots: Result<Box<[[u32; 2]; SLOTS]>, _> = vec![[0; 2]; SLOTS].try_into();
        let Ok(slots) = slots else { unreachable!("the vector has SLOTS elements") };
        Self {
            cursor: now.as_millis(),
            entries: Vec::new(),
            links: Vec::new(),
            free: NONE,
            len: 0,
            generation: 0,
            slots,
            occupied: Occupied::new(),
        }
    }

    /// How many entries are scheduled.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Schedules `item` for `at`, rounded up to the next tick (1 ms); never early.
    ///
    /// O(1). The key is good until the item is popped or cancelled; after that it finds nothing.
    /// A time already past is due at the next [`pop_due`](Self::pop_due).
    ///
    /// # Panics
    /// When [`TIMERS_MAX`] entries are scheduled: the callers' slabs are smaller, so that is a bug.
    pub fn schedule(&mut self, at: Instant, item: T) -> TimerKey {
        assert!((self.len as usize) < TIMERS_MAX, "more than {TIMERS_MAX} timers");
        let tick = at.as_micros().div_ceil(MICROS_PER_TICK).max(self.cursor);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let entry = Entry { tick, generation, slot: 0, item: Some(item) };
        let index = self.free;
        let index = match self.entries.get_mut(index as usize) {
            Some(free) => {
                *free = entry;
                self.free = self.links[index as usize].next;
                index
            }
            None => {
                self.entries.push(entry);
                self.links.push(Link { prev: NONE, next: NONE });
                self.entries.len() as u32 - 1
            }
        };
        self.len += 1;
        self.link(index, tick);
        TimerKey(Key { index, generation })
    }

    /// Takes a scheduled item out; `None` when it was popped or cancelled before.
    ///
    /// O(1), but for giving memory back when it was the last.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let Key { index, generation } = key.0;
        let entry = self.entries.get(index as usize)?;
        if entry.generation != generation || entry.item.is_none() {
            return None;
        }
        self.unlink(index);
        self.release(index)
    }

    /// Takes out the earliest item whose tick has come at `now`; `None` when there is none.
    ///
    /// In order of tick, then of scheduling. Also moves the horizon up to `now`: call it in every
    /// turn until it says `None`. A step of `now` costs the entries that it makes due, not the
    /// ticks it jumps over; entries from beyond the horizon are hashed again on the way. `now` may
    /// run backwards: then nothing is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let now = now.as_millis();
        while let Some(tick) = self.first_tick().filter(|tick| *tick <= now) {
            self.cursor = tick;
            let [first, _] = self.slots[slot_of(tick)];
            self.unlink(first);
            let due = self.entries[first as usize].tick;
            if due <= tick {
                return self.release(first);
            }
            self.link(first, due);
        }
        self.cursor = self.cursor.max(now);
        None
    }

    /// Moves the horizon up to `now`, or to the earliest entry if that is before.
    ///
    /// [`pop_due`](Self::pop_due) does the same when it says `None`. A caller whose turns seldom end
    /// so calls this at their beginning; otherwise timers are hashed from a horizon that lags, and
    /// those that then lie beyond it cost a move more.
    pub fn advance(&mut self, now: Instant) {
        let now = now.as_millis();
        let first = self.first_tick().unwrap_or(now);
        self.cursor = self.cursor.max(now.min(first));
    }

    /// When [`pop_due`](Self::pop_due) has something to do; `None` while nothing is scheduled.
    ///
    /// A few word operations. It is exactly the tick of the earliest item if that is within the
    /// horizon; otherwise `pop_due` may find nothing due then, but has hashed an item again.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.first_tick().map(Instant::from_millis)
    }

    /// The tick of the first occupied slot at or after the cursor.
    fn first_tick(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let start = slot_of(self.cursor);
        let slot = self.occupied.first_from(start).or_else(|| self.occupied.first_from(0))?;
        Some(self.cursor + (slot.wrapping_sub(start) % SLOTS) as u64)
    }

    /// Appends an entry to the slot of `tick`, or of the far edge if that is nearer.
    fn link(&mut self, index: u32, tick: u64) {
        let slot = slot_of(tick.min(self.cursor + (SLOTS as u64 - 1)));
        let ends = &mut self.slots[slot];
        let prev = if self.occupied.set(slot) {
            let last = ends[1];
            self.links[last as usize].next = index;
            last
        } else {
            ends[0] = index;
            NONE
        };
        ends[1] = index;
        self.links[index as usize] = Link { prev, next: NONE };
        self.entries[index as usize].slot = slot as u32;
    }

    fn unlink(&mut self, index: u32) {
        let slot = self.entries[index as usize].slot as usize;
        let Link { prev, next } = self.links[index as usize];
        match (prev, next) {
            (NONE, NONE) => self.occupied.clear(slot),
            (NONE, next) => {
                self.slots[slot][0] = next;
                self.links[next as usize].prev = NONE;
            }
            (prev, NONE) => {
                self.slots[slot][1] = prev;
                self.links[prev as usize].next = NONE;
            }
            (prev, next) => {
                self.links[prev as usize].next = next;
                self.links[next as usize].prev = prev;
            }
        }
    }

    /// Takes the item of an unlinked entry and recycles the entry.
    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        let item = entry.item.take();
        self.links[index as usize].next = self.free;
        self.free = index;
        self.len -= 1;
        if self.len == 0 && self.entries.capacity() > RETAINED_ENTRIES {
            self.entries = Vec::new();
            self.links = Vec::new();
            self.free = NONE;
        }
        item
    }
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("cursor", &self.cursor)
            .field("len", &self.len)
            .field("next_expiry", &self.next_expiry())
            .finish_non_exhaustive()
    }
}

struct Entry<T> {
    /// When it is due; later than its slot's tick while it is parked at the far edge.
    tick: u64,
    generation: u32,
    slot: u32,
    /// `None`: the entry is free.
    item: Option<T>,
}

/// The neighbours of an entry in its slot; of a free one, `next` is the next free one.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

/// Which slots have entries: a bit for each, and two levels of summary.
struct Occupied {
    top: u64,
    summary: [u64; SLOTS >> 12],
    words: Box<[u64; SLOTS >> 6]>,
}

impl Occupied {
    fn new() -> Self {
        Self { top: 0, summary: [0; SLOTS >> 12], words: Box::new([0; SLOTS >> 6]) }
    }

    /// Sets the bit of `slot`; says whether it was set before.
    fn set(&mut self, slot: usize) -> bool {
        let word = &mut self.words[slot >> 6];
        let before = *word;
        *word |= 1 << (slot & 63);
        if before == 0 {
            self.summary[slot >> 12] |= 1 << ((slot >> 6) & 63);
            self.top |= 1 << (slot >> 12);
        }
        before >> (slot & 63) & 1 == 1
    }

    fn clear(&mut self, slot: usize) {
        let word = &mut self.words[slot >> 6];
        *word &= !(1 << (slot & 63));
        if *word == 0 {
            let summary = &mut self.summary[slot >> 12];
            *summary &= !(1 << ((slot >> 6) & 63));
            if *summary == 0 {
                self.top &= !(1 << (slot >> 12));
            }
        }
    }

    /// The first occupied slot that is not before `slot`.
    fn first_from(&self, slot: usize) -> Option<usize> {
        if let Some(bit) = first_bit_from(self.words[slot >> 6], slot & 63) {
            return Some(slot & !63 | bit);
        }
        let word = (slot >> 6) + 1;
        let summary = self.summary.get(word >> 6)?;
        if let Some(bit) = first_bit_from(*summary, word & 63) {
            return Some(self.first_in(word & !63 | bit));
        }
        let group = first_bit_from(self.top, (word >> 6) + 1)?;
        Some(self.first_in(group << 6 | self.summary[group].trailing_zeros() as usize))
    }

    /// The first occupied slot of a word that is not zero.
    fn first_in(&self, word: usize) -> usize {
        word << 6 | self.words[word].trailing_zeros() as usize
    }
}

/// The lowest set bit of `word` at position `from` (at most 63) or above.
fn first_bit_from(word: u64, from: usize) -> Option<usize> {
    let bits = word & (u64::MAX << from);
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}

const fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

/// A power of two of at least 64² (the levels of [`Occupied`]) and at most 64³. 65.5 s of ticks: the
/// first power that is longer than 64·T1, with room for a turn that comes late, is 2¹⁵; one more
/// keeps the pauses of a minute (registrations, probes) from being hashed twice.
const SLOTS: usize = 1 << 16;
const MICROS_PER_TICK: u64 = 1000;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const HORIZON: u64 = SLOTS as u64;
    const DAY: u64 = 24 * 3600 * 1000;

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn us(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn wheel() -> Wheel<u32> {
        Wheel::new(Instant::ZERO)
    }

    fn pop_all(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop_due(now)).collect()
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_one_tick_late() {
        for at in [1, 999, 1000, 1001, 500_500, 31_999_999, 32_000_000, 3_600_000_001] {
            let mut wheel = wheel();
            wheel.schedule(us(at), 7);
            while let Some(expiry) = wheel.next_expiry() {
                assert_eq!(wheel.pop_due(us(expiry.as_micros() - 1)), None);
                if wheel.pop_due(expiry).is_some() {
                    assert!(expiry >= us(at) && expiry < us(at + 1000), "{expiry:?} for {at}");
                    assert!(wheel.is_empty());
                }
            }
        }
    }

    #[test]
    fn timers_of_one_tick_come_in_the_order_of_their_scheduling() {
        let mut wheel = wheel();
        for (at, item) in [(2500, 1), (2001, 2), (1001, 3), (3000, 4), (2999, 5)] {
            wheel.schedule(us(at), item);
        }
        assert_eq!(pop_all(&mut wheel, ms(3)), [3, 1, 2, 4, 5]);
    }

    #[test]
    fn a_time_already_past_is_due_at_once_and_after_what_is_due_already() {
        let mut wheel = wheel();
        wheel.schedule(ms(10), 1);
        wheel.schedule(ms(10), 2);
        assert_eq!(wheel.pop_due(ms(12)), Some(1));
        wheel.schedule(ms(3), 3);
        assert_eq!(pop_all(&mut wheel, ms(12)), [2, 3]);
        wheel.schedule(ms(3), 4);
        assert_eq!(wheel.next_expiry(), Some(ms(12)));
        assert_eq!(wheel.pop_due(ms(12)), Some(4));
    }

    #[test]
    fn a_cancelled_timer_does_not_come_and_its_key_finds_nothing() {
        let mut wheel = wheel();
        let keys = [1, 2, 3, 4].map(|item| wheel.schedule(ms(5), item));
        assert_eq!(wheel.cancel(keys[1]), Some(2));
        assert_eq!(wheel.cancel(keys[1]), None);
        assert_eq!(wheel.cancel(keys[0]), Some(1));
        assert_eq!(wheel.cancel(keys[3]), Some(4));
        assert_eq!(pop_all(&mut wheel, ms(5)), [3]);
        assert_eq!(wheel.next_expiry(), None);
    }

    #[test]
    fn the_key_of_a_popped_timer_finds_nothing_and_not_the_next_one_either() {
        let mut wheel = wheel();
        let first = wheel.schedule(ms(1), 1);
        assert_eq!(wheel.pop_due(ms(1)), Some(1));
        assert_eq!(wheel.cancel(first), None);
        let second = wheel.schedule(ms(2), 2);
        assert_eq!(first.0.index, second.0.index);
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(wheel.pop_due(ms(2)), Some(2));
    }

    #[test]
    fn next_expiry_is_the_tick_of_the_earliest_timer_anywhere_in_the_horizon() {
        for start in [0, 1, 63, 64, 4095, 4096, 65_535, 1_000_000] {
            let mut wheel: Wheel<u32> = Wheel::new(ms(start));
            for ahead in [65_535, 65_472, 61_440, 40_000, 4096, 4095, 65, 64, 63, 1, 0] {
                wheel.schedule(ms(start + ahead), 0);
                assert_eq!(wheel.next_expiry(), Some(ms(start + ahead)));
            }
        }
    }

    #[test]
    fn a_timer_a_day_away_comes_on_time() {
        let mut wheel = wheel();
        wheel.schedule(ms(DAY), 1);
        let mut wake_ups = 0;
        while let Some(expiry) = wheel.next_expiry() {
            wake_ups += 1;
            if wheel.pop_due(expiry).is_some() {
                assert_eq!(expiry, ms(DAY));
            }
        }
        assert_eq!(wake_ups, DAY.div_ceil(HORIZON - 1));
    }

    #[test]
    fn a_jump_of_years_costs_no_ticks_and_keeps_the_order() {
        let mut wheel = wheel();
        for year in 1..500_000 {
            let now = ms(year * 365 * DAY);
            assert_eq!(pop_all(&mut wheel, now).len(), usize::from(year > 1));
            wheel.schedule(ms(year * 365 * DAY + 32_000), 0);
        }
        let mut wheel = self::wheel();
        for year in 1..500_000 {
            wheel.advance(ms(year * 365 * DAY));
            let key = wheel.schedule(ms(year * 365 * DAY + 32_000), 0);
            assert_eq!(wheel.next_expiry(), Some(ms(year * 365 * DAY + 32_000)));
            wheel.cancel(key);
        }
        let mut wheel = self::wheel();
        for (at, item) in [(DAY, 4), (70_000, 3), (65_000, 2), (DAY + 1, 5), (9, 1)] {
            wheel.schedule(ms(at), item);
        }
        assert_eq!(pop_all(&mut wheel, ms(2 * DAY)), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn advancing_passes_no_timer_and_puts_the_horizon_where_the_time_is() {
        let mut wheel = wheel();
        wheel.schedule(ms(40_000), 1);
        wheel.advance(ms(30_000));
        wheel.schedule(ms(90_000), 2);
        wheel.advance(ms(95_000));
        assert!(pop_all(&mut wheel, ms(39_999)).is_empty());
        assert_eq!(wheel.pop_due(ms(40_000)), Some(1));
        assert_eq!(wheel.next_expiry(), Some(ms(90_000)));
        assert_eq!(pop_all(&mut wheel, ms(90_000)), [2]);
    }

    #[test]
    fn a_clock_that_runs_backwards_makes_nothing_due() {
        let mut wheel = wheel();
        assert_eq!(wheel.pop_due(ms(100)), None);
        wheel.schedule(ms(50), 1);
        assert_eq!(wheel.pop_due(ms(99)), None);
        assert_eq!(wheel.pop_due(ms(100)), Some(1));
    }

    #[test]
    fn memory_returns_after_a_million_timers_and_old_keys_stay_dead() {
        let mut wheel = wheel();
        let keys: Vec<_> = (0..1_000_000).map(|n| wheel.schedule(ms(u64::from(n)), n)).collect();
        assert!(wheel.entries.capacity() >= 1_000_000);
        for key in &keys[..500_000] {
            assert!(wheel.cancel(*key).is_some());
        }
        assert_eq!(pop_all(&mut wheel, ms(DAY)).len(), 500_000);
        assert_eq!(wheel.entries.capacity(), 0);
        wheel.schedule(ms(0), 1);
        assert!(keys.iter().all(|key| wheel.cancel(*key).is_none()));
        assert_eq!(wheel.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u64),
        Cancel(prop::sample::Index),
        Advance(u64),
        PopOne,
    }

    fn steps(ahead_max: u64) -> impl Strategy<Value = Vec<Step>> {
        let near = 0..5_000u64;
        let far = 0..ahead_max;
        let step = prop_oneof![
            4 => near.prop_map(Step::Schedule),
            4 => far.clone().prop_map(Step::Schedule),
            3 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            2 => (0..3_000u64).prop_map(Step::Advance),
            1 => far.prop_map(Step::Advance),
            2 => Just(Step::PopOne),
        ];
        prop::collection::vec(step, 1..200)
    }

    /// Runs the steps on a wheel and on an ordered map, which are to agree at every step; times in
    /// microseconds. `exact`: also on the order within a tick and on the next expiry.
    fn compare(start: u64, steps: Vec<Step>, exact: bool) {
        let mut now = us(start);
        let mut wheel = Wheel::new(now);
        let mut model: BTreeMap<(u64, u32), TimerKey> = BTreeMap::new();
        let mut floor = now.as_millis();
        let mut keys = Vec::new();
        let mut next_id = 0;
        let pop = |wheel: &mut Wheel<(u64, u32)>, model: &mut BTreeMap<_, _>, now: Instant| {
            let first = model.first_key_value().map(|(key, _)| *key);
            let first = first.filter(|(tick, _)| *tick <= now.as_millis());
            let popped = wheel.pop_due(now);
            if exact {
                assert_eq!(popped, first);
            }
            assert_eq!(popped.map(|(tick, _)| tick), first.map(|(tick, _)| tick));
            if let Some(popped) = popped {
                assert!(model.remove(&popped).is_some());
            }
            popped.map(|(tick, _)| tick)
        };
        for step in steps {
            match step {
                Step::Schedule(ahead) => {
                    let at = us(now.as_micros().saturating_sub(2_000) + ahead);
                    let tick = at.as_micros().div_ceil(1000).max(floor);
                    let item = (tick, next_id);
                    next_id += 1;
                    let key = wheel.schedule(at, item);
                    model.insert(item, key);
                    keys.push((key, item));
                }
                Step::Cancel(index) if !keys.is_empty() => {
                    let (key, item) = keys[index.index(keys.len())];
                    assert_eq!(wheel.cancel(key).is_some(), model.remove(&item).is_some());
                }
                Step::Cancel(_) => {}
                Step::Advance(by) => {
                    now = us(now.as_micros() + by);
                    while pop(&mut wheel, &mut model, now).is_some() {}
                    floor = now.as_millis();
                }
                Step::PopOne => match pop(&mut wheel, &mut model, now) {
                    Some(tick) => floor = tick,
                    None => floor = now.as_millis(),
                },
            }
            assert_eq!(wheel.len(), model.len());
            let first = model.keys().next().map(|(tick, _)| ms(*tick));
            if exact {
                assert_eq!(wheel.next_expiry(), first);
            }
            assert!(
                wheel.next_expiry() <= first && wheel.next_expiry().is_some() == first.is_some()
            );
        }
        while pop(&mut wheel, &mut model, ms(u64::MAX)).is_some() {}
        assert!(wheel.is_empty() && model.is_empty());
    }

    proptest! {
        #[test]
        fn the_wheel_is_an_ordered_map_within_the_horizon(
            start in 0..200_000_000u64,
            steps in steps((HORIZON - 10) * 1000),
        ) {
            compare(start, steps, true);
        }

        #[test]
        fn the_wheel_keeps_every_tick_beyond_the_horizon(
            start in 0..200_000_000u64,
            steps in steps(20 * HORIZON * 1000),
        ) {
            compare(start, steps, false);
        }
    }
}
