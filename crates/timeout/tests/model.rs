//! The engine, and the layer round it, against a reference that steps through time millisecond by
//! millisecond.

use std::time::{Duration, Instant};

use portcullis_core::{Call, Elapsed, Phase, Until, call, clock};
use portcullis_testkit::{ScriptedService, Step, TestError, poll_k, ready};
use portcullis_timeout::{Limits, TimeoutConfig, TimeoutLayer, engine::Policy};
use proptest::{option, prelude::*};
use tokio::time::advance;
use tower_layer::Layer;
use tower_service::Service;

/// One call: all times in milliseconds from when it was first asked for.
#[derive(Clone, Debug)]
struct Case {
    attempt: bool,
    whole: Option<u64>,
    ordered: Option<u64>,
    inherited: Option<u64>,
    readiness: Option<u64>,
    head: Option<u64>,
    /// How long the inner service was not ready.
    wait: u64,
    /// How long its head took.
    delay: Option<u64>,
}

/// What became of it, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused { phase: Phase, limit: u64 },
    Answered { at: u64 },
    Elapsed { phase: Phase, limit: u64, at: u64 },
    Endless,
}

// ===== impl Case =====

impl Case {
    fn limits(&self) -> Limits {
        let ms = |limit: Option<u64>| limit.map(Duration::from_millis);
        let mut limits = Limits::new();
        // Never reached: it only makes the settings ones that set something.
        limits.slow = Some(Duration::from_secs(3600));
        match self.attempt {
            true => limits.attempt = ms(self.whole),
            false => limits.total = ms(self.whole),
        }
        if self.whole.is_some() {
            limits.slow = None;
        }
        limits.readiness = ms(self.readiness);
        limits.head = ms(self.head);
        limits
    }

    fn call(&self, start: Instant) -> Call {
        let call = Call::new();
        match self.inherited {
            Some(at) => call.with_deadline(start + Duration::from_millis(at)),
            None => call,
        }
    }

    /// The rules as one would tell them to somebody, not as the engine has them.
    fn by_hand(&self) -> Fate {
        let named =
            if self.attempt && self.whole.is_some() { Phase::Attempt } else { Phase::Total };
        let own = if named == Phase::Attempt { self.whole } else { self.ordered.or(self.whole) };
        // Those first that have the say when several run out at once.
        let limits = |called: Option<u64>| {
            [
                (self.readiness.filter(|_| called.is_none()), Phase::Readiness, 0),
                (own, named, 0),
                (self.inherited, Phase::Inherited, 0),
                (self.head.filter(|_| called.is_some()), Phase::Head, called.unwrap_or(0)),
            ]
            .into_iter()
            .filter_map(|(limit, phase, from)| Some((from + limit?, phase, limit?)))
            .collect::<Vec<_>>()
        };

        for now in 0..=self.wait {
            if let Some(&(_, phase, limit)) = limits(None).iter().find(|limit| limit.0 == now) {
                return Fate::Refused { phase, limit };
            }
        }
        for now in self.wait..1000 {
            if self.delay.is_some_and(|delay| self.wait + delay == now) {
                return Fate::Answered { at: now };
            }
            let limits = limits(Some(self.wait));
            if let Some(&(_, phase, limit)) = limits.iter().find(|limit| limit.0 == now) {
                return Fate::Elapsed { phase, limit, at: now };
            }
        }
        Fate::Endless
    }

    /// What the engine makes of it.
    fn by_engine(&self) -> Fate {
        let mut config = TimeoutConfig::new();
        config.limits = self.limits();
        let policy = Policy::new(&config).unwrap();
        let start = clock::now();
        let called = start + Duration::from_millis(self.wait);

        let mut overrides = portcullis_core::call::Overrides::default();
        overrides.timeout = self.ordered.map(Duration::from_millis);
        let call = self.call(start).with_overrides(overrides);

        let plan = policy.plan(&call, (self.wait > 0).then_some(start), called);
        let ms = |at: Instant| (at - start).as_millis() as u64;
        let limit = |until: &Until| until.limit.as_millis() as u64;
        if let Some(until) = policy.overdue(&plan) {
            return Fate::Refused { phase: until.phase, limit: limit(&until) };
        }
        let answer = self.delay.map(|delay| self.wait + delay);
        match (answer, policy.until_head(&plan)) {
            (Some(at), None) => Fate::Answered { at },
            (Some(at), Some(until)) if at <= ms(until.at) => Fate::Answered { at },
            (_, Some(until)) => {
                Fate::Elapsed { phase: until.phase, limit: limit(&until), at: ms(until.at) }
            }
            (None, None) => Fate::Endless,
        }
    }

    /// What a caller sees.
    async fn live(&self) -> Fate {
        let delay = self.delay;
        let inner = ScriptedService::respond_with(move |(), _| match delay {
            Some(delay) => Step::<(), TestError>::Ok(()).after(Duration::from_millis(delay)),
            None => Step::Hang,
        });
        let (readiness, journal) = (inner.readiness(), inner.journal());
        let mut config = TimeoutConfig::new();
        config.limits = self.limits();
        let layer = TimeoutLayer::builder("live").config(config).build().unwrap();
        let mut service = layer.layer(inner);

        let start = clock::now();
        if self.wait > 0 {
            readiness.hold();
            assert!(poll_k(ready(&mut service), 1).await.is_none());
            advance(Duration::from_millis(self.wait)).await;
            readiness.release();
        }
        ready(&mut service).await.unwrap();

        let mut with = call::with();
        if let Some(ordered) = self.ordered {
            with = with.timeout(Duration::from_millis(ordered));
        }
        if let Some(at) = self.inherited {
            with = with.deadline(start + Duration::from_millis(at));
        }
        let answer = with
            .run(async { tokio::time::timeout(Duration::from_secs(9), service.call(())).await })
            .await;
        let at = (clock::now() - start).as_millis() as u64;
        match answer {
            Err(_) => Fate::Endless,
            Ok(Ok(())) => Fate::Answered { at },
            Ok(Err(error)) => {
                let elapsed = error.find::<Elapsed>().unwrap();
                let (phase, limit) = (elapsed.phase(), elapsed.limit().as_millis() as u64);
                match journal.calls() {
                    0 => Fate::Refused { phase, limit },
                    _ => Fate::Elapsed { phase, limit, at },
                }
            }
        }
    }
}

/// Small numbers, so that limits often run out together.
fn case() -> impl Strategy<Value = Case> {
    let limit = || option::of(1..=30_u64);
    (
        any::<bool>(),
        option::of(1..=40_u64),
        limit(),
        option::of(0..=40_u64),
        limit(),
        limit(),
        prop_oneof![Just(0), 0..=30_u64],
        option::weighted(0.8, 0..=30_u64),
    )
        .prop_map(|(attempt, whole, ordered, inherited, readiness, head, wait, delay)| {
            // A longer phase than the whole is refused when the layer is built.
            let within = |limit: Option<u64>| limit.map(|limit| limit.min(whole.unwrap_or(limit)));
            let (readiness, head) = (within(readiness), within(head));
            // Without a whole limit there is no label to give it.
            let attempt = attempt && whole.is_some();
            Case { attempt, whole, ordered, inherited, readiness, head, wait, delay }
        })
}

/// An inner service that was never waited for has no wait that a limit could have ended; the hand
/// rules step on millisecond 0 as well.
fn refusal_needs_a_reason(case: &Case, fate: Fate) -> bool {
    !matches!(fate, Fate::Refused { .. }) || case.wait > 0 || case.inherited == Some(0)
}

proptest! {
    #[test]
    fn the_engine_decides_as_the_rules_do(case in case()) {
        let expected = case.by_hand();
        prop_assert!(refusal_needs_a_reason(&case, expected));
        prop_assert_eq!(case.by_engine(), expected);
    }

    #[test]
    fn a_caller_sees_what_the_rules_say(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        prop_assert_eq!(runtime.block_on(case.live()), case.by_hand());
    }

    #[test]
    fn what_is_left_for_the_body_never_outlives_the_whole(
        case in case(),
        body in 1..=30_u64,
        head in 0..=30_u64,
    ) {
        let mut config = TimeoutConfig::new();
        config.limits = case.limits();
        config.limits.body = Some(Duration::from_millis(body.min(case.whole.unwrap_or(body))));
        let policy = Policy::new(&config).unwrap();
        let start = clock::now();
        let plan = policy.plan(&case.call(start), None, start);
        let head = start + Duration::from_millis(head);

        let until = policy.watch(&plan, head).until.unwrap();
        let whole = [case.whole, case.inherited].into_iter().flatten().min();
        let whole = whole.map(|at| start + Duration::from_millis(at));
        let own = head + config.limits.body.unwrap();
        prop_assert_eq!(until.at, whole.map_or(own, |whole| whole.min(own)));
        prop_assert_eq!(until.phase == Phase::Body, whole.is_none_or(|whole| own < whole));
    }
}
