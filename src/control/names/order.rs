//! The order in which the servers of an SRV answer are tried (RFC 2782, "Usage rules").

use rand_chacha::rand_core::Rng;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    /// Lower ones come first.
    pub(super) priority: u16,
    /// The share of one among those of its priority.
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// By priority; within one, drawn by weight. A weight of 0 among others comes first once in a while.
pub(super) fn order(mut records: Vec<Srv>, rng: &mut impl Rng) -> Vec<Srv> {
    // Those of weight 0 at the beginning of their priority.
    records.sort_by_key(|srv| (srv.priority, srv.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let group = records.partition_point(|srv| srv.priority == first.priority);
        let weights = || records[..group].iter().map(|srv| u64::from(srv.weight));
        let drawn = rng.next_u64() % (weights().sum::<u64>() + 1);
        let mut running = 0;
        let chosen = weights().position(|weight| {
            running += weight;
            running >= drawn
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn srv((priority, weight, target): (u16, u16, &str)) -> Srv {
        Srv { priority, weight, port: 5060, target: target.to_owned() }
    }

    fn drawn(records: &[(u16, u16, &str)], seed: u64) -> Vec<String> {
        let records = records.iter().copied().map(srv).collect();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        order(records, &mut rng).into_iter().map(|srv| srv.target).collect()
    }

    #[test]
    fn a_lower_priority_comes_first_whatever_the_weights_are() {
        let records = [(65535, 0, "d"), (20, 0, "c"), (10, 7, "a"), (10, 65535, "b")];
        for seed in 0..100 {
            let order = drawn(&records, seed);
            assert_eq!(order[2..], ["c", "d"]);
            assert!(order.contains(&"a".to_owned()) && order.contains(&"b".to_owned()));
        }
        assert!(drawn(&[], 1).is_empty());
    }

    #[test]
    fn weights_are_the_shares_of_being_first() {
        let records = [(1, 10, "small"), (1, 30, "large"), (1, 0, "spare")];
        let mut first = std::collections::HashMap::<_, u32>::new();
        for seed in 0..4000 {
            *first.entry(drawn(&records, seed).remove(0)).or_default() += 1;
        }
        let [small, large, spare] =
            ["small", "large", "spare"].map(|name| first.get(name).copied().unwrap_or(0));
        // Of 41 numbers that may be drawn one is the spare's, 10 are the small one's.
        assert!((900..1060).contains(&small), "{small}");
        assert!((2800..3060).contains(&large), "{large}");
        assert!((50..150).contains(&spare), "{spare}");
        assert_eq!(drawn(&records, 7), drawn(&records, 7));
    }
}
