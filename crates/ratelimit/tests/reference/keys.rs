//! Limits by key, and several at once.

use std::collections::{HashMap, VecDeque};

use portcullis_core::Rejection;
use portcullis_ratelimit::{
    Charge, KeyedLimiter, Limiter, LimiterBuilder, Limits, Receipt, Several,
};
use proptest::{prelude::*, sample::Index};

use crate::{MS, T, cases, config, naive::Reference, nanos, step};

/// What a caller does with keys.
#[derive(Clone, Debug)]
enum KeyOp {
    Take(u32),
    /// Through the key's limit, held in hand for one call.
    Handle(u32),
    /// With a limit for everybody.
    Both(u32),
    Settle(Index, u32),
    Hint(i64),
}

fn key_op() -> impl Strategy<Value = KeyOp> {
    prop_oneof![
        8 => (0..5_u32).prop_map(KeyOp::Take),
        1 => (0..5_u32).prop_map(KeyOp::Handle),
        2 => (0..5_u32).prop_map(KeyOp::Both),
        3 => (any::<Index>(), 0..7_u32).prop_map(|(which, actual)| KeyOp::Settle(which, actual)),
        1 => (1..60_i64).prop_map(KeyOp::Hint),
    ]
}

const BURST: u32 = 4;

/// The limits of keys, some of them forgotten as others come, beside a reference that forgets none.
struct Keys {
    limiters: KeyedLimiter,
    everybody: Limiter,
    own: HashMap<String, Reference>,
    overflow: Reference,
    all: Reference,
    charges: VecDeque<(u64, String, Taken)>,
    forgotten: usize,
    shared: usize,
}

enum Taken {
    One(Charge),
    /// Whether the key's own limit has taken it, or the one that keys share, and how much.
    Both(Receipt<Several>, bool, u32),
}

impl Keys {
    fn new(room: usize) -> Self {
        let limiter = |name| Limiter::builder(name).config(config(BURST)).max_keys(room);
        Self {
            limiters: LimiterBuilder::build_keyed(limiter("keys")).unwrap(),
            everybody: limiter("everybody").rate(1, nanos(T)).burst(2 * BURST).build().unwrap(),
            own: HashMap::new(),
            overflow: Reference::new(BURST),
            all: Reference::new(2 * BURST),
            charges: VecDeque::new(),
            forgotten: 0,
            shared: 0,
        }
    }

    /// The reference for a key, once the limits have decided whether there is room for it. What was
    /// forgotten must have been as good as new.
    fn reference(&mut self, key: &str, now: i64) -> &mut Reference {
        let Self { limiters, own, overflow, forgotten, shared, .. } = self;
        own.retain(|key, reference| {
            let kept = limiters.snapshot(key).is_some();
            assert!(kept || reference.is_idle(now), "{key} was forgotten too early");
            *forgotten += usize::from(!kept);
            kept
        });
        if limiters.snapshot(key).is_none() {
            *shared += 1;
            return overflow;
        }
        let new = || if overflow.is_idle(now) { Reference::new(BURST) } else { overflow.clone() };
        own.entry(key.into()).or_insert_with(new)
    }

    fn run(&mut self, id: u64, key: &str, op: &KeyOp, now: i64) {
        match *op {
            KeyOp::Take(cost) | KeyOp::Handle(cost) => {
                let taken = match op {
                    KeyOp::Take(_) => self.limiters.try_acquire_n(key, cost),
                    _ => self.limiters.limiter(key).try_acquire_n(cost),
                };
                let retry = taken.as_ref().err().map(Rejection::retry_after);
                let expected = self.reference(key, now).reserve(id, cost, now, now);
                assert_eq!(retry, expected.err().map(|at| at.map(|at| nanos(at - now))));
                self.charges.extend(taken.ok().map(|taken| (id, key.into(), Taken::One(taken))));
            }
            KeyOp::Both(cost) => {
                let both = [self.limiters.limiter(key), self.everybody.clone()];
                let taken = Limits::all(both).unwrap().try_acquire_n(cost);
                let retry = taken.as_ref().err().map(Rejection::retry_after);
                let one = self.reference(key, now).earliest(cost, now);
                let all = self.all.earliest(cost, now);
                // Whoever lets it pass last says when.
                let at = one.zip(all).map(|(one, all)| one.max(all));
                let expected = at.filter(|&at| at <= now).ok_or(at);
                assert_eq!(retry, expected.err().map(|at| at.map(|at| nanos(at - now))));
                if let Ok(taken) = taken {
                    self.reference(key, now).reserve(id, cost, now, now).unwrap();
                    self.all.reserve(id, cost, now, now).unwrap();
                    let own = self.own.contains_key(key);
                    self.charges.push_back((id, key.into(), Taken::Both(taken, own, cost.max(1))));
                }
            }
            KeyOp::Settle(which, actual) if !self.charges.is_empty() => {
                let which = which.index(self.charges.len());
                let Some((id, key, taken)) = self.charges.remove(which) else { return };
                match taken {
                    Taken::One(charge) => {
                        let cost = charge.cost();
                        self.limiters.settle(&key, charge, actual);
                        self.reference(&key, now).settle(id, cost, actual, now);
                    }
                    // It has the limits in hand: none of them was forgotten.
                    Taken::Both(receipt, own, cost) => {
                        receipt.settle(actual);
                        let one =
                            if own { self.own.get_mut(&key) } else { Some(&mut self.overflow) };
                        one.unwrap().settle(id, cost, actual, now);
                        self.all.settle(id, cost, actual, now);
                    }
                }
            }
            KeyOp::Hint(wait) => {
                self.limiters.hint(key, nanos(wait * MS));
                self.reference(key, now).hold(wait * MS, now);
            }
            KeyOp::Settle(..) => {}
        }
    }

    fn compare(&self, now: i64) {
        for (key, reference) in &self.own {
            let Some(seen) = self.limiters.snapshot(key) else { continue };
            let wait = reference.earliest(1, now).unwrap() - now;
            assert_eq!((seen.left, seen.wait), (reference.left(now), nanos(wait)), "{key}");
            assert_eq!(seen.held, reference.is_held(now));
        }
        assert_eq!(self.limiters.overflow().snapshot().left, self.overflow.left(now));
        assert_eq!(self.everybody.snapshot().left, self.all.left(now));
    }
}

proptest! {
    #![proptest_config(cases(16, 1_000, 0x6b_6579))]

    #[test]
    fn each_answer_for_a_key_is_that_of_the_reference_though_keys_are_forgotten_and_share(
        history in proptest::collection::vec((step(false), 0..9_u32, key_op()), 1..1_500),
        room in 1..7_usize,
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let mut keys = Keys::new(room);
            let mut now = 0;
            for (id, (step, key, op)) in (0..).zip(&history) {
                tokio::time::advance(nanos(step * MS)).await;
                now += step * MS;
                keys.run(id, &format!("key {key}"), op, now);
                keys.compare(now);
                // What is not settled soon stands, and lets go of the limits.
                keys.charges.drain(..keys.charges.len().saturating_sub(10));
                assert!(keys.limiters.len() <= room);
            }
            assert!(history.len() < 1_000 || keys.forgotten > 0 && keys.shared > 0);
        });
    }
}
