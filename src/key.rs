//! Names for things in slabs, and the slab itself.
//!
//! A [`Key`] is an index and the generation of the slot it was given for: a key outlives what it
//! names and then finds nothing, so no other thing is ever taken for it.

use std::marker::PhantomData;

/// The number of a shard, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A slot of a [`Slab`] and the generation it was filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Position in the slab.
    pub index: u32,
    /// Counts every insertion into the slab, so it differs for each occupant of a slot.
    pub generation: u32,
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Key);

        impl From<Key> for $name {
            fn from(key: Key) -> Self {
                Self(key)
            }
        }

        impl From<$name> for Key {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}

keys! {
    /// Names a flow of one endpoint (RFC 5626: one open or opening connection).
    FlowId
    /// Names a call of one endpoint.
    CallId
    /// Names a client transaction of one endpoint.
    ClientId
    /// Names a server transaction of one endpoint.
    ServerId
    /// Names a scheduled timer of one wheel.
    TimerKey
}

/// Which leg of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's.
    A,
    /// The callee's.
    B,
}

impl Side {
    /// The other leg.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Names a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegId {
    /// The call.
    pub call: CallId,
    /// Which of its two legs.
    pub side: Side,
}

impl LegId {
    /// The other leg of the call.
    pub fn other(self) -> Self {
        Self { call: self.call, side: self.side.other() }
    }
}

/// A vector with holes: O(1) insertion, removal and look-up; keys that are never reused.
///
/// Iteration is by position, so it is the same in every run. When the last item of a slab that grew
/// beyond [`RETAINED_SLOTS`] leaves, its memory is given back.
#[derive(Debug)]
pub struct Slab<K, T> {
    slots: Vec<Slot<T>>,
    /// Head of the list of free slots, threaded through them.
    free: u32,
    len: u32,
    generation: u32,
    key: PhantomData<fn() -> K>,
}

#[derive(Debug)]
enum Slot<T> {
    Free { next: u32 },
    Used { generation: u32, item: T },
}

/// Slots that an empty slab keeps for its next items.
pub const RETAINED_SLOTS: usize = 1024;

const NONE: u32 = u32::MAX;

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0, generation: 0, key: PhantomData }
    }
}

impl<K: From<Key> + Into<Key>, T> Slab<K, T> {
    /// An empty slab, without memory of its own yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the next [`insert`](Self::insert) will give.
    pub fn next_key(&self) -> K {
        let index = if self.free == NONE { self.slots.len() as u32 } else { self.free };
        K::from(Key { index, generation: self.generation.wrapping_add(1) })
    }

    /// Puts `item` into a free slot.
    pub fn insert(&mut self, item: T) -> K {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let used = Slot::Used { generation, item };
        let index = match self.slots.get(self.free as usize) {
            Some(Slot::Free { next }) => {
                let index = self.free;
                self.free = *next;
                self.slots[index as usize] = used;
                index
            }
            Some(Slot::Used { .. }) | None => {
                self.slots.push(used);
                self.slots.len() as u32 - 1
            }
        };
        self.len += 1;
        K::from(Key { index, generation })
    }

    /// Takes the item out; `None` when the key's time is over.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let key = key.into();
        let slot = self.slots.get_mut(key.index as usize)?;
        match slot {
            Slot::Used { generation, .. } if *generation == key.generation => {}
            Slot::Used { .. } | Slot::Free { .. } => return None,
        }
        let Slot::Used { item, .. } = std::mem::replace(slot, Slot::Free { next: self.free })
        else {
            return None;
        };
        self.free = key.index;
        self.len -= 1;
        if self.len == 0 && self.slots.capacity() > RETAINED_SLOTS {
            self.slots = Vec::new();
            self.free = NONE;
        }
        Some(item)
    }

    /// The item, while the key's time lasts.
    pub fn get(&self, key: K) -> Option<&T> {
        let key = key.into();
        match self.slots.get(key.index as usize)? {
            Slot::Used { generation, item } if *generation == key.generation => Some(item),
            Slot::Used { .. } | Slot::Free { .. } => None,
        }
    }

    /// The item, to change it, while the key's time lasts.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let key = key.into();
        match self.slots.get_mut(key.index as usize)? {
            Slot::Used { generation, item } if *generation == key.generation => Some(item),
            Slot::Used { .. } | Slot::Free { .. } => None,
        }
    }

    /// The key of whatever is in slot `index` now.
    pub fn key_at(&self, index: u32) -> Option<K> {
        match self.slots.get(index as usize)? {
            Slot::Used { generation, .. } => Some(K::from(Key { index, generation: *generation })),
            Slot::Free { .. } => None,
        }
    }

    /// All items with their keys, by position.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Used { generation, item } => {
                Some((K::from(Key { index: index as u32, generation: *generation }), item))
            }
            Slot::Free { .. } => None,
        })
    }

    /// All keys, by position, as a list that does not borrow the slab.
    pub fn keys(&self) -> Vec<K> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_nothing_after_its_slot_was_filled_again() {
        let mut slab: Slab<FlowId, u8> = Slab::new();
        let first = slab.insert(1);
        assert_eq!(slab.remove(first), Some(1));
        let second = slab.insert(2);
        assert_eq!(first.0.index, second.0.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&2));
    }

    #[test]
    fn next_key_foretells_the_key_of_the_next_insertion() {
        let mut slab: Slab<FlowId, u8> = Slab::new();
        for round in 0..4 {
            let foretold = slab.next_key();
            let key = slab.insert(round);
            assert_eq!(foretold, key);
            if round % 2 == 0 {
                slab.remove(key);
            }
        }
    }

    #[test]
    fn a_large_slab_gives_its_memory_back_when_it_is_empty_and_old_keys_stay_dead() {
        let mut slab: Slab<FlowId, u64> = Slab::new();
        let keys: Vec<_> = (0..5000).map(|n| slab.insert(n)).collect();
        for &key in &keys {
            slab.remove(key);
        }
        assert_eq!(slab.slots.capacity(), 0);
        slab.insert(7);
        assert!(keys.iter().all(|&key| slab.get(key).is_none()));
    }
}
