//! Every interleaving of a few threads that count in the same place: nothing is lost within a second,
//! and a new minute takes the place of the last.
//!
//! `RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --test loom`

#![cfg(portcullis_loom)]

use std::sync::Arc;

use loom::thread;

use self::ring::Ring;

#[path = "../src/figures/ring.rs"]
mod ring;

fn total(ring: &Ring, second: u64) -> u64 {
    ring.look(second).sum()
}

#[test]
fn those_who_count_in_one_second_are_all_counted() {
    loom::model(|| {
        let ring = Arc::new(Ring::new());
        // The minute before has left something there.
        ring.add(5);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || ring.add(65))
            })
            .collect();
        ring.add(65);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(total(&ring, 65), 3);
    });
}

#[test]
fn one_who_is_a_minute_late_takes_nothing_away() {
    loom::model(|| {
        let ring = Arc::new(Ring::new());
        let late = ring.clone();
        let late = thread::spawn(move || late.add(5));
        ring.add(65);
        late.join().unwrap();
        // It came first and is gone, came later and was dropped, or in between and is counted here.
        let counted = total(&ring, 65);
        assert!((1..=2).contains(&counted), "{counted}");
        ring.reset();
        assert_eq!(total(&ring, 65), 0);
    });
}
