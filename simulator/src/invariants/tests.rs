//! For each promise, a run that was tampered with so that it breaks it.

use std::{sync::LazyLock, time::Duration};

use portcullis::trace::Kept;
use portcullis_core::{LayerKind, Outcome, Reason, RejectionKind, State, What};

use super::*;
use crate::{
    calls::Fate,
    watch::{Deed, Told},
    world,
};

/// A run that nothing is wrong with.
static RUN: LazyLock<Run> = LazyLock::new(|| world::run(5, 2_000).expect("it runs"));

/// Names what is broken in it once `tamper` has had it.
fn broken_by(tamper: impl FnOnce(&mut Run)) -> Vec<&'static str> {
    let mut run = RUN.clone();
    tamper(&mut run);
    judge(&run).into_iter().filter(|it| !it.held).map(|it| it.name).collect()
}

fn breaks(name: &str, tamper: impl FnOnce(&mut Run)) {
    let broken = broken_by(tamper);
    assert!(broken.contains(&name), "{name} holds; broken are {broken:?}");
}

/// The first event that `wanted` wants.
fn told(run: &mut Run, wanted: impl Fn(&Told) -> bool) -> usize {
    run.told.iter().position(wanted).expect("it was told")
}

fn is_admitted(told: &Told, to: State) -> bool {
    matches!(told.what, Deed::Other(What::Admitted { state, .. }) if state == to)
}

fn is_settled(told: &Told, by: LayerKind) -> bool {
    told.by == by && matches!(told.what, Deed::Other(What::Settled { .. }))
}

/// A plain call that was made before any weather turned bad.
fn early(run: &Run) -> usize {
    let plain = |planned: &crate::calls::Planned| planned.is_plain();
    run.planned.iter().position(plain).expect("most are plain")
}

#[test]
fn nothing_is_broken_that_was_not_tampered_with() {
    assert_eq!(broken_by(|_| ()), [""; 0]);
}

#[test]
fn a_refusal_or_a_failure_in_good_weather_is_seen() {
    breaks("healthy: nothing is refused", |run| {
        let call = Some(early(run) as u32);
        let what = Deed::Rejected(RejectionKind::Open);
        run.told.push(Told { call, what, ..run.told[0] });
    });
    breaks("healthy: every call succeeds", |run| {
        let early = early(run);
        run.called[early].fate = Fate::Cut;
    });
}

#[test]
fn calls_and_attempts_that_take_too_long_are_seen() {
    breaks("no call is longer than its deadline, body included", |run| {
        run.called[0].ended += Duration::from_secs(3);
    });
    breaks("no attempt is longer than its limit, body included", |run| {
        run.accesses[0].ended = run.accesses[0].ended.map(|at| at + Duration::from_secs(2));
    });
    breaks("no attempt is longer than its limit, body included", |run| {
        run.accesses[0].ended = None;
    });
}

#[test]
fn ends_that_do_not_add_up_are_seen() {
    let name = "calls = successes + failures + rejections + cancellations";
    breaks(name, |run| {
        let end = told(run, |told| is_settled(told, LayerKind::Trace));
        run.told.remove(end);
    });
    breaks(name, |run| {
        let end = told(run, |told| is_settled(told, LayerKind::Trace));
        run.told.push(run.told[end]);
    });
    breaks(name, |run| {
        let early = early(run);
        run.called[early].fate = Fate::Rejected(RejectionKind::Limited);
    });
}

#[test]
fn attempts_out_of_order_are_seen() {
    breaks("attempts follow one another, and are no more than allowed", |run| {
        let second =
            |told: &Told| matches!(told.what, Deed::Other(What::Attempting { attempt: 2 }));
        let second = told(run, second);
        run.told.push(run.told[second]);
    });
    breaks("attempts follow one another, and are no more than allowed", |run| {
        run.settings.max_attempts = 1;
    });
}

#[test]
fn an_attempt_that_is_sent_again_without_a_reason_is_seen() {
    let name = "an attempt is sent again only if no application saw it";
    let resending = |told: &Told| matches!(told.what, Deed::Other(What::Resending { .. }));
    breaks(name, |run| {
        let again = told(run, resending);
        run.told.remove(again);
    });
    breaks(name, |run| {
        let given_back = told(run, |told| {
            let Deed::Other(What::Resending { reason, .. }) = told.what else { return false };
            reason == Reason::Unprocessed
        });
        run.told.insert(given_back, run.told[given_back]);
    });
    breaks(name, |run| {
        let again = told(run, resending);
        let Deed::Other(What::Resending { reason, .. }) = &mut run.told[again].what else {
            unreachable!("it is one")
        };
        *reason = Reason::Manual;
    });
    breaks(name, |run| run.told.retain(|told| !resending(told)));
}

#[test]
fn what_exceeds_a_budget_or_a_limit_is_seen() {
    breaks("retries within the budget in every interval", |run| {
        let retry = |told: &Told| matches!(told.what, Deed::Other(What::Attempting { attempt: 2 }));
        let retry = told(run, retry);
        run.told.splice(retry..retry, vec![run.told[retry]; 101]);
    });
    breaks("limit: burst + rate · t in every interval, for each upstream", |run| {
        let passed = told(run, |told| matches!(told.what, Deed::Other(What::Acquired { .. })));
        run.told.splice(passed..passed, vec![run.told[passed]; 10_001]);
    });
    breaks("limit: whatever reached an upstream had passed", |run| {
        let passed = told(run, |told| matches!(told.what, Deed::Other(What::Acquired { .. })));
        run.told.remove(passed);
    });
}

#[test]
fn breakers_that_break_their_rules_are_seen() {
    let by_state = "breaker: changes follow one another, and nothing passes while open";
    breaks(by_state, |run| {
        let change = told(run, |told| matches!(told.what, Deed::Other(What::StateChanged { .. })));
        run.told.remove(change);
    });
    breaks(by_state, |run| {
        let opened = told(run, |told| {
            matches!(told.what, Deed::Other(What::StateChanged { to: State::Open, .. }))
        });
        let passed = told(run, |told| is_admitted(told, State::Closed));
        let late = Told { host: run.told[opened].host, ..run.told[passed] };
        run.told.insert(opened + 1, late);
    });
    breaks("breaker: probes at once within the limit", |run| {
        let probe = told(run, |told| is_admitted(told, State::HalfOpen));
        run.told.splice(probe..probe, vec![run.told[probe]; 3]);
    });
    breaks("breaker: full cycles, and closed at the end", |run| {
        run.at_end.breakers[1].0 = State::Open;
    });
    breaks("breakers and upstreams agree on every attempt", |run| {
        run.accesses.pop();
    });
}

#[test]
fn an_outage_that_reaches_the_upstream_is_seen() {
    breaks("outage: nothing but probes reaches the upstream", |run| {
        let part = run.forecast.of(0).iter().find(|part| {
            part.weather.is_outage() && part.from + run.settings.noticing() < part.until
        });
        let until = part.expect("one of three is long enough").until;
        let mut late = run.accesses[0];
        (late.host, late.begun) = (0, run.start + until - Duration::from_millis(1));
        run.accesses.extend(vec![late; 100]);
    });
}

#[test]
fn whatever_is_not_returned_is_seen() {
    let name = "everything is returned at the end";
    breaks(name, |run| run.at_end.in_flight = 1);
    breaks(name, |run| run.at_end.tokens = 1);
    breaks(name, |run| run.at_end.breakers[0].1 = 1);
    breaks(name, |run| run.at_end.limits[2].left -= 1);
    breaks(name, |run| run.at_end.limits[2].held = true);
    breaks(name, |run| {
        let end = told(run, |told| is_settled(told, LayerKind::Breaker));
        run.told.remove(end);
    });
}

#[test]
fn traces_that_say_something_else_are_seen() {
    breaks("traces: every failed call has one", |run| {
        run.traces.kept.retain(|traced| traced.kept != Kept::Failed);
    });
    breaks("traces: every failed call has one", |run| run.traces.lost = 1);
    breaks("traces: attempts equal the upstreams' log", |run| {
        let sent = run.traces.kept.iter_mut().find(|traced| !traced.sent.is_empty());
        sent.expect("some were sent").sent.pop();
    });
    breaks("traces: attempts equal the upstreams' log", |run| {
        let kept = run.traces.kept.iter().find(|traced| !traced.sent.is_empty());
        let kept = kept.expect("some were sent").call;
        let access = run.accesses.iter_mut().find(|access| Some(access.call) == kept);
        access.expect("it was sent").span = None;
    });
    let share = "traces: the share of plain successes is as set";
    breaks(share, |run| run.settings.sampled = (run.settings.sampled - 0.5).abs());
    breaks(share, |run| run.traces.seen += 1);
    breaks(share, |run| {
        let end = told(run, |told| {
            let good =
                matches!(told.what, Deed::Other(What::Settled { outcome: Outcome::Success, .. }));
            good && told.by == LayerKind::Trace
        });
        run.told.remove(end);
    });
}
