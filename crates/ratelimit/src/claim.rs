//! A call before its limits: all of them let it pass, or none is charged.

use std::{
    fmt, mem,
    time::{Duration, Instant},
};

use portcullis_core::{Call, Reason, What, clock};

use crate::{Charge, Limited, Limiter, Quota, Refusal, Reservation};

/// One of the limits that a call stands before, and what it took.
pub struct Slot {
    pub(crate) limiter: Limiter,
    /// `None` until the call passes, and once it was settled.
    pub(crate) charge: Option<Charge>,
}

/// How many limits a call may stand before.
pub(crate) const MOST: usize = 4;

/// The limits of a call that stands before one.
pub type One = [Option<Slot>; 1];
/// The limits of a call that stands before several.
pub type Several = [Option<Slot>; MOST];

/// The limits of a call: [`One`] or [`Several`].
pub trait Slots: AsMut<[Option<Slot>]> + sealed::Sealed {
    /// None yet.
    #[must_use]
    fn none() -> Self;
}

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) cost: u32,
    started: Instant,
    max_wait: Duration,
    latest: Instant,
}

/// A call that asks its limits. Dropped while it waits, it gives its place back.
pub(crate) struct Claim<L: Slots> {
    slots: L,
    terms: Terms,
    place: Option<Place>,
}

/// A place in one limit's line.
struct Place {
    index: usize,
    reservation: Reservation,
}

enum Answer {
    Pass,
    Wait(Place),
    Refused(Limiter, Refusal),
}

mod sealed {
    pub trait Sealed {}
    impl<const N: usize> Sealed for [Option<super::Slot>; N] {}
}

// ===== impl Slots =====

impl<const N: usize> Slots for [Option<Slot>; N] {
    fn none() -> Self {
        [const { None }; N]
    }
}

// ===== impl Slot =====

impl Slot {
    #[inline]
    pub(crate) fn new(limiter: Limiter) -> Self {
        Self { limiter, charge: None }
    }

    fn give_back(&mut self, now: Instant) {
        if let Some(charge) = self.charge.take() {
            self.limiter.bucket().refund(self.limiter.quota(), &charge, 0, now);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("limiter", &self.limiter)
            .field("charge", &self.charge)
            .finish()
    }
}

// ===== impl Terms =====

impl Terms {
    /// A call that begins now and may wait for so long, or until its deadline.
    #[inline]
    pub(crate) fn new(cost: u32, call: &Call, max_wait: Duration, now: Instant) -> Self {
        let latest = match max_wait {
            Duration::ZERO => now,
            _ => {
                let latest = clock::after(now, max_wait);
                // A turn that comes with the deadline is of no use to anybody. One that has passed is
                // the timeout layer's business: what need not wait passes.
                let in_time =
                    call.deadline().and_then(|at| at.checked_sub(Duration::from_nanos(1)));
                in_time.map_or(latest, |in_time| latest.min(in_time)).max(now)
            }
        };
        Self { cost: cost.max(1), started: now, max_wait, latest }
    }

    /// Why it is refused, and how long after `now` it could pass.
    pub(crate) fn explain(
        &self,
        quota: &Quota,
        refusal: Refusal,
        call: &Call,
        now: Instant,
    ) -> (Reason, Option<Duration>) {
        let (at, held) = match refusal {
            Refusal::Never => {
                let burst = quota.burst();
                return (Reason::CostTooLarge { cost: self.cost, burst }, None);
            }
            Refusal::Until { at, held } => (at, held),
        };
        let after = at.saturating_duration_since(now);
        let needed = at.saturating_duration_since(self.started);
        let reason = match self.max_wait {
            Duration::ZERO if held => Reason::Hinted { hint: after },
            Duration::ZERO => quota.limited(self.cost),
            max if needed > max => Reason::WaitTooLong { needed, max },
            _ => {
                let left = call.remaining(now).unwrap_or_default();
                Reason::DeadlineTooClose { left, needed: after }
            }
        };
        (reason, Some(after))
    }
}

// ===== impl Claim =====

impl<L: Slots> Claim<L> {
    #[inline]
    pub(crate) fn new(slots: L, terms: Terms) -> Self {
        Self { slots, terms, place: None }
    }

    /// Asks. `Some` is when to [ask again](Self::ask) after a wait; until then the call has a place in
    /// the line.
    #[inline]
    pub(crate) fn ask(&mut self, call: &Call, now: Instant) -> Result<Option<Instant>, Limited> {
        // The usual case first: one limit, and no need to wait.
        if let (None, [Some(slot)]) = (&self.place, self.slots.as_mut())
            && let Ok(charge) =
                slot.limiter.bucket().take(slot.limiter.quota(), self.terms.cost, now)
        {
            slot.limiter.tell_of_pass(&charge, call, now);
            slot.charge = Some(charge);
            return Ok(None);
        }
        // It may be long since `now` was read, by a layer above or before this thread was put to sleep,
        // and others have passed meanwhile: what is refused then, or has to wait, may pass now.
        self.ask_all(call, clock::now())
    }

    #[cold]
    #[inline(never)]
    fn ask_all(&mut self, call: &Call, now: Instant) -> Result<Option<Instant>, Limited> {
        let terms = self.terms;
        let slots = self.slots.as_mut();
        let waited = self.place.as_ref().map(|place| place.index);
        let answer = match self.place.take() {
            None => claim(slots, &terms, now),
            Some(place) => arrive(slots, place, &terms, call, now),
        };
        match answer {
            Answer::Pass => {
                if let Some(index) = waited {
                    tell_of_wait(slots[index].as_ref(), &terms, call, now);
                }
                for Slot { limiter, charge } in slots.iter().flatten() {
                    if let Some(charge) = charge {
                        limiter.tell_of_pass(charge, call, now);
                    }
                }
                Ok(None)
            }
            Answer::Wait(place) => {
                let at = place.reservation.at();
                self.place = Some(place);
                Ok(Some(at))
            }
            Answer::Refused(limiter, refusal) => Err(limiter.refuse(&terms, refusal, call, now)),
        }
    }

    /// The limits that let it pass, first the one that was named first, with what they took.
    #[inline]
    pub(crate) fn take(&mut self) -> L {
        mem::replace(&mut self.slots, L::none())
    }
}

impl<L: Slots> Drop for Claim<L> {
    #[inline]
    fn drop(&mut self) {
        if let Some(Place { index, reservation }) = self.place.take()
            && let Some(slot) = &self.slots.as_mut()[index]
        {
            slot.limiter.bucket().cancel(slot.limiter.quota(), reservation, clock::now());
        }
    }
}

/// Puts a call before one limit more. One that it stands before already is the same limit, and is
/// charged once: taken twice, all and nothing would wait for each other.
pub(crate) fn add(slots: &mut [Option<Slot>], limiter: Limiter) {
    for slot in slots {
        match slot {
            Some(slot) if slot.limiter.is(&limiter) => return,
            Some(_) => {}
            None => {
                *slot = Some(Slot::new(limiter));
                return;
            }
        }
    }
}

/// Settles what the limits took, for good.
pub(crate) fn settle(slots: &mut [Option<Slot>], actual: u32, call: &Call, now: Instant) {
    for slot in slots.iter_mut().flatten() {
        if let Some(charge) = slot.charge.take() {
            slot.limiter.settle_for(charge, actual, call, now);
        }
    }
}

/// Asks each limit. In the line of the slowest a place is reserved: it is the one whose turn decides.
///
/// The others are asked again when that turn comes. To reserve there as well, for so far ahead, would
/// close them to everybody until then.
fn claim(slots: &mut [Option<Slot>], terms: &Terms, now: Instant) -> Answer {
    loop {
        let index = if slots.len() == 1 { 0 } else { slowest(slots, terms.cost, now) };
        let Some(slot) = &slots[index] else { return Answer::Pass };
        let Limiter { inner } = &slot.limiter;
        match inner.bucket.reserve(&inner.shared.quota, terms.cost, now, terms.latest) {
            Err(refusal) => return Answer::Refused(slot.limiter.clone(), refusal),
            Ok(reservation) if reservation.at() > now => {
                return Answer::Wait(Place { index, reservation });
            }
            Ok(reservation) => {
                let place = Place { index, reservation };
                if let Some(pass) = pass(slots, place, terms, now) {
                    return pass;
                }
                // Somebody took from another limit in between; that one is the slowest now.
            }
        }
    }
}

/// The turn has come for which a place was reserved.
fn arrive(
    slots: &mut [Option<Slot>],
    place: Place,
    terms: &Terms,
    call: &Call,
    now: Instant,
) -> Answer {
    let held = slots[place.index]
        .as_ref()
        .is_some_and(|slot| slot.limiter.bucket().is_held(slot.limiter.quota(), now));
    if call.is_overdue(now)
        && let Some(Slot { limiter, .. }) = &slots[place.index]
    {
        // The wait was to end in time, but timers may be late, and tasks later still. What would be
        // sent now is of no use to anybody, and a breaker would take it for a failure of the peer.
        let limiter = limiter.clone();
        cancel(slots, place, now);
        return Answer::Refused(limiter, Refusal::Until { at: now, held });
    }
    if held {
        // The hint came while it waited. What waits is past undoing in the line: it goes to its end.
        cancel(slots, place, now);
        return claim(slots, terms, now);
    }
    match pass(slots, place, terms, now) {
        Some(pass) => pass,
        None => claim(slots, terms, now),
    }
}

/// Takes from all the limits but the one that has let the call pass; from none if one refuses, and
/// then the place is given back as well.
fn pass(slots: &mut [Option<Slot>], place: Place, terms: &Terms, now: Instant) -> Option<Answer> {
    for index in 0..slots.len() {
        let Some(slot) = &mut slots[index] else { continue };
        if index == place.index {
            continue;
        }
        let Limiter { inner } = &slot.limiter;
        match inner.bucket.take(&inner.shared.quota, terms.cost, now) {
            Ok(charge) => slot.charge = Some(charge),
            Err(_) => {
                slots[..index].iter_mut().flatten().for_each(|slot| slot.give_back(now));
                cancel(slots, place, now);
                return None;
            }
        }
    }
    if let Some(slot) = &mut slots[place.index] {
        slot.charge = Some(place.reservation.into_charge());
    }
    Some(Answer::Pass)
}

fn cancel(slots: &[Option<Slot>], place: Place, now: Instant) {
    if let Some(slot) = &slots[place.index] {
        slot.limiter.bucket().cancel(slot.limiter.quota(), place.reservation, now);
    }
}

/// The limit that lets the call pass last; the first one if all do now.
fn slowest(slots: &[Option<Slot>], cost: u32, now: Instant) -> usize {
    let mut slowest = (0, Some(now));
    for (index, slot) in slots.iter().enumerate() {
        let Some(slot) = slot else { continue };
        if let Err(refusal) = slot.limiter.bucket().check(slot.limiter.quota(), cost, now) {
            match refusal.at() {
                None => return index,
                at if at > slowest.1 => slowest = (index, at),
                _ => {}
            }
        }
    }
    slowest.0
}

#[cold]
fn tell_of_wait(slot: Option<&Slot>, terms: &Terms, call: &Call, now: Instant) {
    if let Some(Slot { limiter, .. }) = slot {
        limiter.tell(call, now, || What::Waited {
            waited: now.saturating_duration_since(terms.started),
            reason: limiter.quota().limited(terms.cost),
        });
    }
}
