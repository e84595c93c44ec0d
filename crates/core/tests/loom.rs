//! Every interleaving of a few threads at the map of keys: a key has one state at a time, no use of it
//! is lost, and what may not be evicted is not.
//!
//! `RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --test loom`
//!
//! Built so, the map begins with room for one, so that a few keys make it grow.

#![cfg(portcullis_loom)]

use std::{num::NonZeroUsize, sync::Arc};

use loom::thread;
use portcullis_core::Keyed;

/// How often a key was used since it came.
type Uses = Arc<Keyed<u32>>;

fn map(capacity: usize) -> Uses {
    Arc::new(Keyed::new(NonZeroUsize::new(capacity).expect("above 0")))
}

/// Uses a key that may be evicted only as long as it was used but once.
fn use_it(map: &Uses, key: &str) -> Option<u32> {
    map.with(
        key,
        |&mut uses| uses < 2,
        |_| 0,
        |uses| {
            let uses = uses?;
            *uses += 1;
            Some(*uses)
        },
    )
}

#[test]
fn a_key_that_two_meet_for_the_first_time_has_one_state() {
    loom::model(|| {
        let map = map(2);
        let other = thread::spawn({
            let map = map.clone();
            move || use_it(&map, "a").expect("room")
        });
        let mut uses = [use_it(&map, "a").expect("room"), other.join().expect("no panic")];
        uses.sort_unstable();
        assert_eq!(uses, [1, 2]);
        assert_eq!((map.len(), map.get("a")), (1, Some(2)));
    });
}

#[test]
fn no_use_is_lost_while_others_make_the_map_grow() {
    loom::model(|| {
        let map = map(4);
        assert_eq!(use_it(&map, "a"), Some(1));
        let other = thread::spawn({
            let map = map.clone();
            move || {
                assert_eq!(use_it(&map, "b"), Some(1));
                assert!(use_it(&map, "c").is_some());
            }
        });
        assert_eq!(use_it(&map, "a"), Some(2));
        assert!(use_it(&map, "c").is_some());
        other.join().expect("no panic");
        assert_eq!((map.get("a"), map.get("b"), map.get("c")), (Some(2), Some(1), Some(2)));
        assert_eq!(map.len(), 3);
    });
}

#[test]
fn a_key_is_evicted_before_it_is_used_or_not_at_all() {
    loom::model(|| {
        let map = map(1);
        assert_eq!(use_it(&map, "a"), Some(1));
        let other = thread::spawn({
            let map = map.clone();
            // Evicts a, unless a was used twice by then.
            move || use_it(&map, "b")
        });
        let uses = use_it(&map, "a");
        let others = other.join().expect("no panic");
        // One of them has it now, as often as it was used since it came.
        match (uses, others) {
            // a was used for the second time first, and could not be evicted.
            (Some(2), None) => assert_eq!((map.get("a"), map.get("b")), (Some(2), None)),
            // b took its place, and a the place of b.
            (Some(1), Some(1)) => assert_eq!((map.get("a"), map.get("b")), (Some(1), None)),
            other => panic!("{other:?}"),
        }
        assert_eq!(map.len(), 1);
    });
}

#[test]
fn two_who_need_the_same_room_do_not_both_get_it() {
    loom::model(|| {
        let map = map(1);
        assert_eq!(use_it(&map, "a"), Some(1));
        let twice = |key| {
            let map = map.clone();
            thread::spawn(move || {
                let first = use_it(&map, key);
                let second = use_it(&map, key);
                // Once it was used twice nobody evicts it, and before that it begins anew.
                assert!(second.is_none() || second == Some(1) || first == Some(1));
                second == Some(2)
            })
        };
        let (b, c) = (twice("b"), twice("c"));
        let kept = [b.join().expect("no panic"), c.join().expect("no panic")];
        assert!(kept != [true, true]);
        assert_eq!((map.get("b") == Some(2), map.get("c") == Some(2)), (kept[0], kept[1]));
    });
}
