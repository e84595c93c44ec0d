//! The limits beside a reference that is written to be obviously right: plain numbers and lists, one
//! step after the other. Over long random histories every decision, every time to try again and every
//! count has to be the same.

mod keys;
mod naive;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portcullis_core::clock;
use portcullis_ratelimit::{Bucket, Charge, Quota, RateLimitConfig, Refusal, Reservation};
use portcullis_testkit::effort;
use proptest::{prelude::*, sample::Index, test_runner::RngSeed};

use self::naive::Reference;

/// The unit of the reference is a nanosecond, that of the histories a millisecond.
const MS: i64 = 1_000_000;
const T: i64 = 10 * MS;
const DAY: i64 = 86_400_000 * MS;

fn config(burst: u32) -> RateLimitConfig {
    let mut config = RateLimitConfig::default();
    (config.limit, config.per, config.burst) = (1, nanos(T), burst);
    config
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap())
}

/// What a caller does, to one of those that are out where it needs one.
#[derive(Clone, Debug)]
enum Op {
    Take(u32),
    Reserve(u32, i64),
    Cancel(Index),
    /// Goes, if its turn has come.
    Arrive(Index),
    Settle(Index, u32),
    Hold(i64),
}

/// So much later, or earlier.
fn step(back: bool) -> BoxedStrategy<i64> {
    let forward = prop_oneof![4 => 0..4_i64, 3 => 0..40_i64, 1 => 0..400_i64];
    if back { prop_oneof![9 => forward, 1 => -60..0_i64].boxed() } else { forward.boxed() }
}

fn op(debts: bool) -> impl Strategy<Value = Op> {
    let actual = if debts { 0..9_u32 } else { 0..2_u32 };
    prop_oneof![
        6 => (0..7_u32).prop_map(Op::Take),
        4 => (0..7_u32, 0..200_i64).prop_map(|(cost, wait)| Op::Reserve(cost, wait)),
        2 => any::<Index>().prop_map(Op::Cancel),
        3 => any::<Index>().prop_map(Op::Arrive),
        4 => (any::<Index>(), actual).prop_map(|(which, actual)| Op::Settle(which, actual)),
        1 => (1..150_i64).prop_map(Op::Hold),
    ]
}

fn cases(bounded: u32, long: u32, seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases: effort(bounded, long),
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// A bucket and the reference, told the same.
struct Pair {
    epoch: Instant,
    quota: Quota,
    bucket: Bucket,
    reference: Reference,
    charges: Vec<(u64, Charge)>,
    waiting: Vec<(u64, u32, Reservation)>,
    /// When each call passed, or will, and what it cost as settled.
    passed: HashMap<u64, (i64, u32)>,
}

impl Pair {
    fn new(burst: u32) -> Self {
        let epoch = clock::now();
        let quota = Quota::new(&config(burst), epoch).unwrap();
        let (bucket, reference) = (Bucket::new(), Reference::new(burst));
        let (charges, waiting, passed) = Default::default();
        Self { epoch, quota, bucket, reference, charges, waiting, passed }
    }

    fn at(&self, now: i64) -> Instant {
        self.epoch + nanos(now)
    }

    fn nanos(&self, at: Instant) -> i64 {
        i64::try_from((at - self.epoch).as_nanos()).unwrap()
    }

    /// What the engine answers, as the reference does: when the call passes, or when it could.
    fn answer(&self, answer: Result<Instant, Refusal>) -> Result<i64, Option<i64>> {
        answer.map(|at| self.nanos(at)).map_err(|refusal| refusal.at().map(|at| self.nanos(at)))
    }

    fn run(&mut self, id: u64, now: i64, op: &Op) {
        let at = self.at(now);
        match *op {
            Op::Take(cost) => {
                let taken = self.bucket.take(&self.quota, cost, at);
                let answer = self.answer(taken.as_ref().map(|_| at).map_err(|&refusal| refusal));
                assert_eq!(answer, self.reference.reserve(id, cost, now, now));
                if let Ok(charge) = taken {
                    self.passed.insert(id, (now, charge.cost()));
                    self.charges.push((id, charge));
                }
            }
            Op::Reserve(cost, wait) => {
                let place = self.bucket.reserve(&self.quota, cost, at, self.at(now + wait * MS));
                let answer =
                    self.answer(place.as_ref().map(Reservation::at).map_err(|&refusal| refusal));
                assert_eq!(answer, self.reference.reserve(id, cost, now, now + wait * MS));
                let Ok(place) = place else { return };
                self.passed.insert(id, (self.nanos(place.at()), cost.max(1)));
                if place.at() > at {
                    self.waiting.push((id, cost.max(1), place));
                } else {
                    self.charges.push((id, place.into_charge()));
                }
            }
            Op::Cancel(which) if !self.waiting.is_empty() => {
                let (id, cost, place) = self.waiting.swap_remove(which.index(self.waiting.len()));
                self.passed.remove(&id);
                self.bucket.cancel(&self.quota, place, at);
                self.reference.cancel(id, cost, now);
            }
            Op::Arrive(which) if !self.waiting.is_empty() => {
                let which = which.index(self.waiting.len());
                if self.waiting[which].2.at() <= at {
                    let (id, _, place) = self.waiting.swap_remove(which);
                    self.charges.push((id, place.into_charge()));
                }
            }
            Op::Settle(which, actual) if !self.charges.is_empty() => {
                let (id, charge) = self.charges.swap_remove(which.index(self.charges.len()));
                if let Some((_, cost)) = self.passed.get_mut(&id) {
                    *cost = actual;
                }
                self.reference.settle(id, charge.cost(), actual, now);
                self.bucket.settle(&self.quota, charge, actual, at);
            }
            Op::Hold(wait) => {
                self.bucket.hold(&self.quota, nanos(wait * MS), at);
                self.reference.hold(wait * MS, now);
            }
            _ => {}
        }
    }

    /// Everything that can be seen.
    fn compare(&self, now: i64) {
        let (bucket, quota, at) = (&self.bucket, &self.quota, self.at(now));
        for cost in 1..=quota.burst() + 1 {
            let checked = self.answer(bucket.check(quota, cost, at).map(|()| at));
            let expected = self.reference.earliest(cost, now);
            assert_eq!(checked, expected.filter(|&at| at <= now).ok_or(expected));
        }
        assert_eq!(bucket.left(quota, at), self.reference.left(now));
        assert_eq!(bucket.is_held(quota, at), self.reference.is_held(now));
        assert_eq!(bucket.is_idle(quota, at), self.reference.is_idle(now));
    }

    /// In no interval has more passed than the burst and what the rate lets pass in it.
    fn assert_bound(&self) {
        let mut passed: Vec<_> = self.passed.values().copied().collect();
        passed.sort_unstable();
        for first in 0..passed.len() {
            let mut sum = 0;
            for &(at, cost) in &passed[first..] {
                sum += T * i64::from(cost);
                let most = T * i64::from(self.quota.burst()) + at - passed[first].0;
                assert!(sum <= most, "{:?} to {at}: {sum} above {most}", passed[first]);
            }
        }
    }
}

fn run(burst: u32, history: &[(i64, Op)]) -> Pair {
    let mut pair = Pair::new(burst);
    let mut now = 0;
    for (id, (step, op)) in (0..).zip(history) {
        now = (now + step * MS).max(0);
        pair.run(id, now, op);
        pair.compare(now);
    }
    pair
}

proptest! {
    #![proptest_config(cases(16, 2_000, 0x6c_6f67))]

    #[test]
    fn each_answer_is_that_of_the_reference_and_the_bound_is_kept_as_settled(
        history in proptest::collection::vec((step(false), op(false)), 1..2_000),
        burst in 1..7_u32,
    ) {
        run(burst, &history).assert_bound();
    }

    #[test]
    fn each_answer_is_that_of_the_reference_with_debts_and_a_clock_that_jumps_back(
        history in proptest::collection::vec((step(true), op(true)), 1..2_000),
        burst in 1..7_u32,
    ) {
        run(burst, &history);
    }
}
