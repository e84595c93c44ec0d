//! What callers are promised.

use std::{collections::HashMap, time::Duration};

use portcullis_core::{FaultKind, LayerKind, Outcome, Reason, RejectionKind, What};

use super::{Invariant, TIMER};
use crate::{
    calls::{Called, Fate, Planned},
    forecast::Weather,
    watch::Deed,
    world::Run,
};

/// A call in good weather is over by then, so that it does not meet the next one.
const BRIEF: Duration = Duration::from_millis(500);

/// Calls made in good weather, once nothing is left of the weather before, and while some of it is
/// still to come.
fn in_good_weather(run: &Run) -> impl Iterator<Item = (&Planned, &Called)> {
    run.planned.iter().zip(&run.called).filter(|(planned, _)| {
        let part = run.forecast.at(planned.host, planned.at);
        let settling = match part.from.is_zero() {
            true => Duration::ZERO,
            false => run.settings.settling(),
        };
        part.weather == Weather::Healthy
            && part.from + settling <= planned.at
            && planned.at + BRIEF <= part.until
    })
}

pub(super) fn healthy_rejects_nothing(run: &Run) -> Invariant {
    let mut refused: HashMap<u32, usize> = HashMap::new();
    for told in &run.told {
        if let (Deed::Rejected(RejectionKind::Open | RejectionKind::Limited), Some(call)) =
            (told.what, told.call)
        {
            *refused.entry(call).or_default() += 1;
        }
    }
    let calls = in_good_weather(run).count();
    let refused: usize =
        in_good_weather(run).filter_map(|(planned, _)| refused.get(&planned.number)).sum();
    Invariant {
        name: "healthy: nothing is refused",
        held: refused == 0 && calls > 0,
        detail: format!("{refused} refusals in {calls} calls"),
    }
}

pub(super) fn healthy_succeeds(run: &Run) -> Invariant {
    let plain = || in_good_weather(run).filter(|(planned, _)| planned.is_plain());
    let (calls, failed) = (plain().count(), plain().find(|(_, called)| !called.succeeded()));
    Invariant {
        name: "healthy: every call succeeds",
        held: failed.is_none() && calls > 0,
        detail: match failed {
            Some((planned, called)) => format!("call {}: {:?}", planned.number, called.fate),
            None => format!("{calls} calls"),
        },
    }
}

/// A reader who is away when the limit runs out finds out when he comes back.
pub(super) fn within_deadline(run: &Run) -> Invariant {
    let over = |(planned, called): (&Planned, &Called)| {
        let limit = planned.limit.unwrap_or(run.settings.deadline);
        let took = called.ended.saturating_duration_since(called.started);
        took.saturating_sub(limit + planned.away + TIMER)
    };
    let worst = run.planned.iter().zip(&run.called).map(over).max().unwrap_or_default();
    let longest = run.called.iter().map(|called| called.ended - called.started).max();
    Invariant {
        name: "no call is longer than its deadline, body included",
        held: worst.is_zero(),
        detail: format!(
            "the longest took {:?}, {worst:?} beyond what one may",
            longest.unwrap_or_default()
        ),
    }
}

pub(super) fn attempts_within_limit(run: &Run) -> Invariant {
    let over = |access: &crate::upstream::Access| {
        let away = run.planned.get(access.call as usize).map_or(Duration::ZERO, |it| it.away);
        let took = access.ended?.saturating_duration_since(access.begun);
        Some(took.saturating_sub(run.settings.attempt + away + TIMER))
    };
    let worst = run.accesses.iter().map(|access| over(access).unwrap_or(Duration::MAX));
    let worst = worst.max().unwrap_or_default();
    Invariant {
        name: "no attempt is longer than its limit, body included",
        held: worst.is_zero(),
        detail: match worst {
            Duration::MAX => "one never ended".to_owned(),
            _ => format!("{} attempts, {worst:?} beyond the limit", run.accesses.len()),
        },
    }
}

/// Each call has one end, which is what its caller saw; so the ends add up to the calls. A caller who
/// lost patience before the client was ready made none, and no layer ever heard of him.
pub(super) fn accounts_add_up(run: &Run) -> Invariant {
    let mut ends: Vec<Vec<Outcome>> = vec![Vec::new(); run.planned.len()];
    let mut heard_of = vec![false; run.planned.len()];
    let (mut good, mut failed, mut refused, mut cancelled, mut strays) = (0, 0, 0, 0, 0);
    for told in &run.told {
        if let Some(heard_of) = told.call.and_then(|call| heard_of.get_mut(call as usize)) {
            *heard_of = true;
        }
        let Deed::Other(What::Settled { outcome, .. }) = told.what else { continue };
        if told.by != LayerKind::Trace {
            continue;
        }
        match outcome {
            Outcome::Success => good += 1,
            Outcome::Cancelled => cancelled += 1,
            _ if outcome.kind() == Some(FaultKind::Rejected) => refused += 1,
            Outcome::Failure(_) | Outcome::Throttled(_) => failed += 1,
            Outcome::Ignored => strays += 1,
        }
        match told.call.and_then(|call| ends.get_mut(call as usize)) {
            Some(of_call) => of_call.push(outcome),
            None => strays += 1,
        }
    }
    let fits = |number: usize, ends: &[Outcome]| {
        let (planned, called) = (&run.planned[number], &run.called[number]);
        match *ends {
            [one] => called.fits(planned, one),
            [] => called.fate == Fate::GaveUp && !heard_of[number],
            _ => false,
        }
    };
    let odd = ends.iter().enumerate().find(|(number, ends)| !fits(*number, ends));
    let (all, unmade) = (run.planned.len(), heard_of.iter().filter(|heard_of| !**heard_of).count());
    Invariant {
        name: "calls = successes + failures + rejections + cancellations",
        held: odd.is_none() && strays == 0 && good + failed + refused + cancelled + unmade == all,
        detail: match odd {
            Some((number, ends)) => {
                format!("call {number}: {:?}, told as {ends:?}", run.called[number].fate)
            }
            None => format!(
                "{all} = {good} + {failed} + {refused} + {cancelled}, and {unmade} never made; \
                 {strays} strays"
            ),
        },
    }
}

/// The attempts of a call are numbered from 1 without a gap, and no more than it may have.
pub(super) fn attempts_in_order(run: &Run) -> Invariant {
    let mut last = vec![0; run.planned.len()];
    let mut wrong = 0;
    for told in &run.told {
        let (Deed::Other(What::Attempting { attempt }), Some(call)) = (told.what, told.call) else {
            continue;
        };
        let most = run.planned[call as usize].most_attempts(run.settings.max_attempts);
        let last = &mut last[call as usize];
        wrong += usize::from(attempt != *last + 1 || attempt > most);
        *last = attempt;
    }
    let attempts: u32 = last.iter().sum();
    Invariant {
        name: "attempts follow one another, and are no more than allowed",
        held: wrong == 0,
        detail: format!("{attempts} attempts of {} calls, {wrong} wrong", run.planned.len()),
    }
}

/// What no application saw is sent again as the same attempt: once for a call where an upstream gave it back,
/// and nothing else is.
pub(super) fn sent_again_if_unseen(run: &Run) -> Invariant {
    let mut sent: HashMap<(u32, u32), isize> = HashMap::new();
    let mut given_back: HashMap<u32, usize> = HashMap::new();
    let (mut again, mut wrong) = (0, 0);
    for told in &run.told {
        let (Deed::Other(what), Some(call)) = (told.what, told.call) else { continue };
        match what {
            What::Attempting { attempt } => *sent.entry((call, attempt)).or_default() += 1,
            What::Resending { attempt, reason, .. } => {
                let sent = sent.entry((call, attempt)).or_default();
                // Only of an attempt that was begun.
                wrong += usize::from(*sent == 0);
                *sent += 1;
                again += 1;
                match reason {
                    Reason::Unprocessed => *given_back.entry(call).or_default() += 1,
                    Reason::Unsent { .. } => {}
                    _ => wrong += 1,
                }
            }
            _ => {}
        }
    }
    wrong += given_back.values().filter(|times| **times > 1).count();
    for access in &run.accesses {
        *sent.entry((access.call, access.attempt)).or_default() -= 1;
    }
    wrong += sent.values().filter(|left| **left < 0).count();
    Invariant {
        name: "an attempt is sent again only if no application saw it",
        held: wrong == 0 && again > 0,
        detail: format!("{again} sent again, {wrong} wrong"),
    }
}
