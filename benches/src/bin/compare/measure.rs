//! Measuring calls: ours and the peers' in turns, so that the machine's moods come over all alike.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use benches::inner::call;
use portcullis::clock;
use serde::Serialize;
use tower::Service;

use crate::stats;

/// What one call costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// The shortest of many rounds' means.
    pub(crate) ns: f64,
    pub(crate) allocs: f64,
    pub(crate) bytes: f64,
}

/// One of those that are measured in turns.
pub(crate) struct Side {
    pub(crate) name: String,
    run: Run,
    at_most: u64,
}

/// Makes so many calls and says how long they took, without what had to be set up for them.
type Run = Box<dyn FnMut(u64) -> Duration>;

/// Ours, and the peers that do the same.
pub(crate) struct Contest {
    pub(crate) ours: Side,
    pub(crate) peers: Vec<Side>,
    pub(crate) note: Option<String>,
}

/// How much time there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// For each side.
    pub(crate) per_side: Duration,
    /// For what has to be done before a side can be measured.
    pub(crate) filling: Duration,
}

/// Rounds of each side.
const ROUNDS: u32 = 30;
/// Calls over which allocations are counted: enough for what is made now and then to show.
const COUNTED: u64 = 256;

// ===== impl Effort =====

impl Effort {
    /// That of a run of so many seconds in all.
    pub(crate) fn of(seconds: u32) -> Self {
        let whole = Duration::from_secs(seconds.into());
        Self { per_side: whole / 300, filling: whole / 15 }
    }

    /// Does the work so often, or until the time is over; says how often it was.
    pub(crate) fn fill(self, calls: u64, mut work: impl FnMut()) -> u64 {
        let start = clock::now();
        let mut made = 0;
        while made < calls && (made % 64 != 0 || start.elapsed() < self.filling) {
            work();
            made += 1;
        }
        made
    }
}

// ===== impl Side =====

impl Side {
    /// Of work that is one call each time.
    pub(crate) fn new(name: impl Into<String>, mut work: impl FnMut() + 'static) -> Self {
        Self::timed(name, move |calls| {
            let start = clock::now();
            for _ in 0..calls {
                work();
            }
            start.elapsed()
        })
    }

    /// Of calls for nothing.
    pub(crate) fn service<S>(name: impl Into<String>, mut service: S) -> Self
    where
        S: Service<()> + 'static,
    {
        // Otherwise what a service that does nothing is made of is known, and gone.
        Self::new(name, move || _ = black_box(call(black_box(&mut service), ())))
    }

    /// Of the first calls of something new, again and again. Its making is neither timed nor counted.
    pub(crate) fn first_calls<W: FnMut()>(
        name: impl Into<String>,
        mut make: impl FnMut() -> W + 'static,
    ) -> Self {
        const FIRST: u64 = 1000;
        let side = Self::timed(name, move |calls| {
            let mut made = None;
            allocation_counter::opt_out(|| made = Some(make()));
            let Some(mut work) = made else { return Duration::ZERO };
            let start = clock::now();
            for _ in 0..calls {
                work();
            }
            let took = start.elapsed();
            allocation_counter::opt_out(|| drop(work));
            took
        });
        Self { at_most: FIRST, ..side }
    }

    /// Of something that takes its time itself.
    pub(crate) fn timed(
        name: impl Into<String>,
        run: impl FnMut(u64) -> Duration + 'static,
    ) -> Self {
        Self { name: name.into(), run: Box::new(run), at_most: u64::MAX }
    }

    /// Never makes more calls than this in one round.
    pub(crate) fn at_most(mut self, calls: u64) -> Self {
        self.at_most = calls;
        self
    }

    /// Allocations and bytes per call.
    fn allocations(&mut self) -> (f64, f64) {
        let calls = COUNTED.min(self.at_most);
        (self.run)(calls.min(16));
        let info = allocation_counter::measure(|| _ = (self.run)(calls));
        (info.count_total as f64 / calls as f64, info.bytes_total as f64 / calls as f64)
    }

    /// One round. The allocator that counts is told not to: that would add to what allocates.
    fn round(&mut self, calls: u64) -> Duration {
        let mut took = Duration::ZERO;
        allocation_counter::opt_out(|| took = (self.run)(calls));
        took
    }

    /// How many calls take about so long. Warms up on the way.
    fn calls_in(&mut self, time: Duration) -> u64 {
        let mut calls = 1_u64;
        loop {
            let took = self.round(calls);
            if calls >= self.at_most {
                return self.at_most;
            }
            if took * 4 >= time {
                let per_call = took.as_secs_f64() / calls as f64;
                return ((time.as_secs_f64() / per_call) as u64).clamp(1, self.at_most);
            }
            calls = (calls * 2).min(self.at_most);
        }
    }
}

// ===== impl Contest =====

impl Contest {
    pub(crate) fn new(ours: Side, peers: impl IntoIterator<Item = Side>) -> Self {
        Self { ours, peers: peers.into_iter().collect(), note: None }
    }

    pub(crate) fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// What ours costs, and each peer.
    pub(crate) fn measure(&mut self, effort: Effort) -> (Cost, Vec<Cost>) {
        let sides: Vec<&mut Side> =
            std::iter::once(&mut self.ours).chain(&mut self.peers).collect();
        let mut costs = in_turns(sides, effort.per_side).into_iter();
        let ours = costs.next().expect("ours is the first side");
        (ours, costs.collect())
    }
}

/// What each side costs: the best of many short rounds, in turns and each time from the other end.
fn in_turns(mut sides: Vec<&mut Side>, per_side: Duration) -> Vec<Cost> {
    let allocations: Vec<(f64, f64)> = sides.iter_mut().map(|side| side.allocations()).collect();
    let round = per_side / ROUNDS;
    let calls: Vec<u64> = sides.iter_mut().map(|side| side.calls_in(round)).collect();
    let mut samples = vec![Vec::new(); sides.len()];
    let begun: Instant = clock::now();
    for nth in 0..ROUNDS {
        // On a busy machine a round can take much longer than it should; a few make a best as well.
        if nth >= 3 && begun.elapsed() > per_side * 3 * sides.len() as u32 {
            break;
        }
        for at in 0..sides.len() {
            let at = if nth % 2 == 0 { at } else { sides.len() - 1 - at };
            let took = sides[at].round(calls[at]);
            samples[at].push(took.as_secs_f64() * 1e9 / calls[at] as f64);
        }
    }
    samples
        .into_iter()
        .zip(allocations)
        .map(|(samples, (allocs, bytes))| Cost { ns: stats::best(samples), allocs, bytes })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A side that says that each call took so long.
    fn says(name: &str, each: Duration) -> Side {
        Side::timed(name, move |calls| each * calls as u32)
    }

    #[test]
    fn a_side_costs_what_it_says_it_took() {
        let mut contest = Contest::new(
            says("ours", Duration::from_micros(2)),
            [says("peer", Duration::from_micros(6))],
        );
        let (ours, peers) = contest.measure(Effort::of(1));
        assert!((ours.ns - 2000.0).abs() < 1e-6, "{ours:?}");
        assert!((peers[0].ns - 6000.0).abs() < 1e-6, "{peers:?}");
    }

    #[test]
    fn allocations_are_counted_per_call() {
        let mut contest = Contest::new(
            Side::new("ours", || {}),
            [Side::new("peer", || drop(black_box([Box::new(1_u64), Box::new(2)])))],
        );
        let (ours, peers) = contest.measure(Effort::of(1));
        assert_eq!((ours.allocs, ours.bytes), (0.0, 0.0));
        assert_eq!((peers[0].allocs, peers[0].bytes), (2.0, 16.0));
    }

    #[test]
    fn what_makes_the_first_calls_possible_is_not_counted() {
        let mut side = Side::first_calls("new", || {
            let made = vec![0_u8; 1000];
            move || _ = black_box(&made)
        });
        assert_eq!(side.allocations(), (0.0, 0.0));
        assert_eq!(side.calls_in(Duration::from_secs(1)), 1000);
    }

    #[test]
    fn filling_ends_with_the_calls_or_with_the_time() {
        let plenty = Effort { per_side: Duration::ZERO, filling: Duration::from_secs(3600) };
        let mut made = 0_u64;
        assert_eq!(plenty.fill(1000, || made += 1), 1000);
        assert_eq!(made, 1000);
        let none = Effort { filling: Duration::ZERO, ..plenty };
        assert_eq!(none.fill(1000, || ()), 0);
    }
}
