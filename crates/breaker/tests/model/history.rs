//! Histories: what happens to a breaker, step by step, and under which settings.

use std::time::Duration;

use portcullis_breaker::{BreakerConfig, Mode, Ramp, Window};
use portcullis_core::{Fault, FaultKind, Hint, Outcome, Replay, Throttle};
use proptest::{prelude::*, sample::Index};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Admit,
    /// Asks what a call would be refused for.
    Outlook,
    /// Ends one of the calls that are out, the last one or one admitted long ago.
    End(Pick, Outcome, bool),
    /// Gives one of them up.
    Cancel(Pick),
    /// Forgets one of them: its result is never told.
    Lose(Pick),
    Head(Pick, bool),
    NotReady(Outcome),
    Pass(Time),
    Order(Mode),
    Reset,
    Inspect,
}

/// One of the calls that are out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick {
    Last,
    Any(Index),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    Of(Duration),
    /// So many tenths of the window: to the very edge of a bucket, from one.
    Tenths(u32),
    /// Until the open time is over.
    UntilDue,
    /// Until a probe that goes out now is overdue.
    MaxWait,
    /// Until it has been closed for a whole window.
    UntilHealthy,
}

impl Pick {
    pub(crate) fn of(self, len: usize) -> usize {
        match self {
            Self::Last => len - 1,
            Self::Any(index) => index.index(len),
        }
    }
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![3 => Just(Pick::Last), 1 => any::<Index>().prop_map(Pick::Any)]
}

/// Mostly good, or mostly not: a mixture without seasons would seldom close or seldom trip.
fn outcome(good: u32) -> impl Strategy<Value = Outcome> {
    let other = Fault::new(FaultKind::Other, Replay::Safe);
    // Whether it is exact is all the same to a breaker.
    let hint = |secs| match secs % 2 {
        0 => Hint::After(Duration::from_secs(secs)),
        _ => Hint::Exactly(Duration::from_secs(secs)),
    };
    prop_oneof![
        good => Just(Outcome::Success),
        6 => Just(Outcome::Failure(other)),
        1 => (0_u64..60).prop_map(move |secs| Outcome::Failure(other.with_hint(hint(secs)))),
        1 => Just(Outcome::Failure(other.with_hint(Hint::Never))),
        1 => Just(Outcome::Failure(Fault::new(FaultKind::Rejected, Replay::Safe))),
        1 => Just(Outcome::Throttled(Throttle::new(FaultKind::Status(429)))),
        1 => (0_u64..60).prop_map(move |secs| {
            Outcome::Throttled(
                Throttle::new(FaultKind::Status(503)).with_hint(hint(secs)).unhealthy(),
            )
        }),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Ignored),
    ]
}

fn time() -> impl Strategy<Value = Time> {
    let millis = |ms| Time::Of(Duration::from_millis(ms));
    prop_oneof![
        600 => (0_u64..300).prop_map(millis),
        100 => (0_u64..20_000).prop_map(millis),
        100 => (1_u32..30).prop_map(Time::Tenths),
        40 => Just(Time::UntilDue),
        100 => Just(Time::MaxWait),
        40 => Just(Time::UntilHealthy),
        10 => (0_u64..2_000_000).prop_map(millis),
        1 => (1_u64..4_000).prop_map(|days| Time::Of(Duration::from_secs(days * 86_400))),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        4 => Just(Mode::Automatic),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::Disabled),
    ]
}

fn step(good: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        400 => Just(Step::Admit),
        30 => Just(Step::Outlook),
        360 => (pick(), outcome(good), prop::bool::weighted(0.2))
            .prop_map(|(pick, outcome, slow)| Step::End(pick, outcome, slow)),
        20 => pick().prop_map(Step::Cancel),
        5 => pick().prop_map(Step::Lose),
        120 => (pick(), prop::bool::weighted(0.8)).prop_map(|(pick, good)| Step::Head(pick, good)),
        10 => outcome(good).prop_map(Step::NotReady),
        130 => time().prop_map(Step::Pass),
        4 => mode().prop_map(Step::Order),
        2 => Just(Step::Reset),
        30 => Just(Step::Inspect),
    ]
}

/// What it takes for streams that outlast `max_wait` as probes to end while others still are out.
fn step_of_streams() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Admit),
        4 => Just(Step::Head(Pick::Last, true)),
        2 => Just(Step::Pass(Time::MaxWait)),
        1 => Just(Step::Pass(Time::UntilDue)),
        3 => (pick(), outcome(12)).prop_map(|(pick, outcome)| Step::End(pick, outcome, false)),
    ]
}

/// Some thousands of steps, in seasons.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    let good = prop_oneof![Just(3_u32), Just(12), Just(60), Just(400)];
    let season = prop_oneof![
        4 => good.prop_flat_map(|good| prop::collection::vec(step(good), 50..500)),
        1 => prop::collection::vec(step_of_streams(), 50..500),
    ];
    prop::collection::vec(season, 4..12).prop_map(|seasons| seasons.concat())
}

pub(crate) fn config() -> impl Strategy<Value = BreakerConfig> {
    let window = prop_oneof![
        (1_u64..20_000).prop_map(|ms| Window::Time(Duration::from_millis(100 + ms))),
        (1_u32..40).prop_map(Window::Count),
        // About the words that such a window is made of, and many of them.
        (60_u32..70).prop_map(Window::Count),
        (120_u32..1_000).prop_map(Window::Count),
    ];
    let rate = || prop::option::of(prop_oneof![Just(0.07), Just(0.3), Just(0.5), Just(1.0)]);
    let minimum = prop_oneof![Just(1), 1_u32..20];
    let rules = (window, minimum, prop::option::of(1_u32..6), rate(), rate());
    let opening = (any::<bool>(), 0_u64..40, 1_u32..5, 1_u32..5, 1_u64..8_000);
    let ramp = (1_u64..20_000, prop_oneof![Just(1.0), Just(0.5), Just(3.0)]);
    let flags = (any::<bool>(), any::<bool>(), any::<u64>(), mode());
    (rules, opening, prop::option::of(ramp), flags).prop_map(|(rules, opening, ramp, flags)| {
        let mut config = BreakerConfig::default();
        (config.window, config.minimum_calls, _, config.failure_rate, config.slow_rate) = rules;
        config.consecutive_failures = rules.2;
        if let Window::Count(n) = config.window {
            config.minimum_calls = config.minimum_calls.min(n);
        }
        config.slow_threshold = config.slow_rate.map(|_| Duration::from_secs(1));
        config.open_initial = Duration::from_secs(2);
        config.open_cap = Duration::from_secs(20);
        config.jitter = opening.0;
        config.max_hint = Duration::from_secs(opening.1);
        (config.probes, config.probe_successes) = (opening.2, opening.3);
        config.max_wait = Duration::from_millis(opening.4);
        config.ramp =
            ramp.map(|(ms, aggression)| Ramp { over: Duration::from_millis(ms), aggression });
        (config.throttled_is_failure, config.throttled_fails_probe) = (flags.0, flags.1);
        (config.seed, config.mode) = (Some(flags.2), flags.3);
        config
    })
}
