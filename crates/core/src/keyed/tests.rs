//! The map as its users see it, against one that is obviously right.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

type Flag = Arc<AtomicBool>;

fn map<V>(capacity: usize) -> Keyed<V> {
    Keyed::new(NonZeroUsize::new(capacity).unwrap())
}

fn may_evict(pinned: &mut Flag) -> bool {
    !pinned.load(Ordering::Relaxed)
}

fn insert(map: &Keyed<Flag>, key: &str, pinned: bool) -> Option<Flag> {
    map.get_or_insert_with(key, may_evict, |_| Flag::new(pinned.into()))
}

fn keys<V: Clone>(map: &Keyed<V>) -> Vec<String> {
    let mut keys: Vec<_> = map.all().iter().map(|(key, _)| key.to_string()).collect();
    keys.sort();
    keys
}

#[test]
fn a_key_keeps_its_state() {
    let map = map(8);
    assert!(map.is_empty());
    let one = insert(&map, "a", false).unwrap();
    assert!(!map.is_empty());
    assert!(Arc::ptr_eq(&one, &insert(&map, "a", true).unwrap()));
    assert!(Arc::ptr_eq(&one, &map.get("a").unwrap()));
    assert!(map.get("b").is_none());
    assert_eq!(map.len(), 1);
}

#[test]
fn a_key_is_its_whole_text_however_long() {
    let map = map(8);
    let long = "k".repeat(100);
    for end in ["a", "b", "\0", ""] {
        insert(&map, &format!("{long}{end}"), false).unwrap();
        insert(&map, end, false).unwrap();
    }
    assert_eq!(map.len(), 8);
    assert!(map.get(&long).is_some() && map.get(&long[1..]).is_none());
}

#[test]
fn keys_whose_hashes_are_the_same_are_told_apart() {
    let shard = Shard::new(4);
    let number =
        |key: &str, new: u32| shard.with_locked(7, key, |_| true, |_| new, |it| Some(*it?));
    assert_eq!((number("a", 1), number("b", 2)), (Some(1), Some(2)));
    assert_eq!((number("a", 3), number("b", 4)), (Some(1), Some(2)));
}

#[test]
fn what_was_not_used_since_the_hand_came_by_gives_way() {
    let map = map(3);
    for key in ["a", "b", "c", "a", "d"] {
        insert(&map, key, false).unwrap();
    }
    assert_eq!(keys(&map), ["a", "c", "d"]);
    // A look is no use.
    map.get("c").unwrap();
    insert(&map, "e", false).unwrap();
    assert_eq!(keys(&map), ["a", "d", "e"]);
}

#[test]
fn what_may_not_be_evicted_stays_and_when_all_is_such_a_new_key_gets_nothing() {
    let map = map(3);
    insert(&map, "a", true).unwrap();
    let b = insert(&map, "b", false).unwrap();
    insert(&map, "c", true).unwrap();
    insert(&map, "d", true).unwrap();
    assert_eq!(keys(&map), ["a", "c", "d"]);
    assert_eq!(Arc::strong_count(&b), 1, "evicted for good");

    assert!(insert(&map, "e", false).is_none());
    assert_eq!(keys(&map), ["a", "c", "d"]);

    map.get("c").unwrap().store(false, Ordering::Relaxed);
    assert!(insert(&map, "e", false).is_some());
    assert_eq!(keys(&map), ["a", "d", "e"]);
}

#[test]
fn though_all_were_used_lately_one_gives_way() {
    let map = map(3);
    for key in ["a", "b", "c", "a", "b", "c", "d"] {
        insert(&map, key, key == "a").unwrap();
    }
    assert_eq!(keys(&map), ["a", "c", "d"]);
}

#[test]
fn it_never_holds_more_than_its_capacity_and_one_shard_exactly_that() {
    for capacity in [1, 2, 63, 64, 65, 127, 128, 1_000, 5_001] {
        let map = map(capacity);
        assert_eq!(map.capacity().get(), capacity);
        for key in 0..3 * capacity {
            insert(&map, &key.to_string(), key % 7 == 0);
            assert!(map.shards.len() > 1 || map.len() == capacity.min(key + 1));
        }
        assert!(map.len() <= capacity && map.len() > capacity * 9 / 10);
        assert_eq!(map.all().len(), map.len());
    }
}

#[test]
fn a_large_map_finds_all_that_it_holds() {
    let shard = Shard::new(100_000);
    let hash = |number: u32| number.wrapping_mul(0x9e37_79b9);
    let number = |of: u32, new: u32| {
        shard.with_locked(hash(of), &of.to_string(), |_| true, |_| new, |it| Some(*it?))
    };
    assert!((0..100_000).all(|of| number(of, of) == Some(of)));
    assert!((0..100_000).all(|of| number(of, u32::MAX) == Some(of)));
}

#[test]
fn a_capacity_beyond_all_bounds_costs_nothing() {
    let map = map(usize::MAX);
    assert!(insert(&map, "a", false).is_some());
}

#[test]
fn a_maker_that_panics_leaves_the_room_to_others() {
    let map = map(1);
    let panics = || map.get_or_insert_with("a", may_evict, |_| panic!("no state"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert!(map.get("a").is_none());
    assert!(insert(&map, "b", true).is_some());
    assert!(insert(&map, "a", true).is_none());
}

#[test]
fn a_place_left_empty_by_a_maker_that_panicked_harms_no_chain_when_the_map_grows() {
    let capacity = 100;
    for seed in 0..50 {
        let map: Keyed<u32> = map(capacity);
        for key in 0..capacity {
            if key % 5 == 0 {
                let panics = || map.get_or_insert_with("bad", |_| true, |_| panic!("no state"));
                assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
            }
            let _ = map.get_or_insert_with(&format!("{seed}/{key}"), |_| true, |_| 0);
        }
        for key in 0..1_000 {
            let key = format!("{seed}/{key}");
            let _ = map.get_or_insert_with(&key, |_| true, |_| 0);
            assert!(map.get(&key).is_some());
        }
        let mut keys = keys(&map);
        keys.dedup();
        assert_eq!(keys.len(), map.len());
    }
}

#[test]
fn a_user_that_panics_leaves_the_key_its_one_state() {
    let map: Keyed<u32> = map(8);
    let panics = || map.with("a", |_| true, |_| 7, |_| -> () { panic!("in use") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert_eq!(map.get("a"), Some(7));
    assert_eq!(map.get_or_insert_with("a", |_| true, |_| 0), Some(7));
    assert_eq!(keys(&map), ["a"]);
}

/// A list of all entries, in the places they have, and a hand.
#[derive(Default)]
struct Naive {
    entries: Vec<(u32, bool, u64)>,
    used: Vec<bool>,
    hand: usize,
}

impl Naive {
    fn with(&mut self, capacity: usize, new: (u32, bool)) -> Option<u64> {
        if let Some(at) = self.entries.iter().position(|&(key, ..)| key == new.0) {
            self.used[at] = true;
            self.entries[at].2 += 1;
            return Some(self.entries[at].2);
        }
        let entry = (new.0, new.1, 0);
        if self.entries.len() < capacity {
            self.entries.push(entry);
            self.used.push(false);
            return Some(0);
        }
        let round: Vec<_> = (0..capacity).map(|n| (self.hand + n) % capacity).collect();
        let mut evictable = round.iter().copied().filter(|&at| !self.entries[at].1);
        let first = evictable.clone().next();
        let unused = evictable.find(|&at| !self.used[at]);
        for &at in &round {
            self.used[at] = false;
            if unused == Some(at) {
                break;
            }
        }
        if let Some(at) = unused {
            self.hand = (at + 1) % capacity;
        }
        let at = unused.or(first)?;
        self.entries[at] = entry;
        Some(0)
    }
}

#[test]
fn it_agrees_with_a_list_over_a_random_history() {
    for capacity in [1, 2, 5, 20, 100] {
        let map: Keyed<(bool, u64)> = map(capacity);
        let mut naive = Naive::default();
        let mut seed = 7_u64;
        let keys = 3 * capacity as u32;
        for _ in 0..20_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (key, pinned) = ((seed >> 33) as u32 % keys, seed >> 60 == 0);
            let seen = map.with(
                &key.to_string(),
                |&mut (pinned, _)| !pinned,
                |_| (pinned, u64::MAX),
                |value| {
                    value.map(|(_, times)| {
                        *times = times.wrapping_add(1);
                        *times
                    })
                },
            );
            assert_eq!(seen, naive.with(capacity, (key, pinned)));
            assert_eq!(map.len(), naive.entries.len());
            let other = (seed >> 40) as u32 % keys;
            let expected = naive.entries.iter().find(|&&(key, ..)| key == other);
            assert_eq!(map.get(&other.to_string()), expected.map(|&(_, pin, times)| (pin, times)));
            if seed >> 20 & 63 == 0 {
                map.each(|_, (pinned, _)| *pinned = false);
                naive.entries.iter_mut().for_each(|(_, pinned, _)| *pinned = false);
            }
        }
        let mut expected: Vec<_> = naive.entries.iter().map(|(key, ..)| key.to_string()).collect();
        expected.sort();
        assert_eq!(self::keys(&map), expected);
    }
}

#[test]
fn no_use_of_a_key_is_lost_on_many_threads_that_make_the_map_grow() {
    let map: Keyed<u32> = map(10_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let map = &map;
            scope.spawn(move || {
                for turn in 0..20_000_u32 {
                    let key = (turn * 7 + thread * 61) % 2_000;
                    let add = |count: Option<&mut u32>| *count.unwrap() += 1;
                    map.with(&key.to_string(), |_| false, |_| 0, add);
                }
            });
        }
    });
    assert_eq!(map.len(), 2_000);
    map.each(|_, &mut count| assert_eq!(count, 40));
}

#[test]
fn a_key_has_one_state_at_a_time_though_others_take_its_place_on_many_threads() {
    /// Counts those of its key that live.
    struct One<'a>(&'a AtomicU32);
    impl Drop for One<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let live: Vec<_> = (0..64).map(|_| AtomicU32::new(0)).collect();
    let map: Keyed<u32> = map(16);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (map, live) = (&map, &live);
            scope.spawn(move || {
                for turn in 0..20_000_u32 {
                    let key = (turn * 7 + thread * 61) % 64;
                    map.with(
                        &key.to_string(),
                        |_| true,
                        |_| 0,
                        |value| {
                            // One user at a time: no other has this state, nor another state, now.
                            let count = &live[key as usize];
                            assert_eq!(count.fetch_add(1, Ordering::Relaxed), 0);
                            let _one = One(count);
                            *value.unwrap() += 1;
                        },
                    );
                }
            });
        }
    });
    assert_eq!(map.len(), 16);
}
