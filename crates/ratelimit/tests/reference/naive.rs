//! The reference.

use std::collections::HashMap;

use crate::{DAY, T};

/// A limit: what passed and has not drained reaches from now to `tat`.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    burst: i64,
    tat: i64,
    /// Of each charge ever made: up to where its piece of the backlog reaches. What is given back moves
    /// all of them towards now, those before it too.
    ends: HashMap<u64, i64>,
    /// All who ever had to wait, given up or not: where their piece ended when it was taken.
    pub(crate) waited: HashMap<u64, i64>,
    /// To where a hint moved `tat`, and until when it holds.
    hint: Option<(i64, i64)>,
    highest: i64,
}

impl Reference {
    pub(crate) fn new(burst: u32) -> Self {
        let (ends, waited) = Default::default();
        Self { burst: burst.into(), tat: 0, ends, waited, hint: None, highest: 0 }
    }

    pub(crate) fn tolerance(&self) -> i64 {
        T * (self.burst - 1)
    }

    /// When a call may pass whose piece ends there.
    pub(crate) fn ready(&self, end: i64) -> i64 {
        end - T - self.tolerance()
    }

    /// When a call may pass, at `now` or later; never if it costs more than the burst.
    pub(crate) fn earliest(&self, cost: u32, now: i64) -> Option<i64> {
        let end = self.tat.max(now) + T * i64::from(cost.max(1));
        (i64::from(cost) <= self.burst).then(|| self.ready(end).max(now))
    }

    /// Takes the place of a call that may pass by `latest`.
    pub(crate) fn reserve(
        &mut self,
        id: u64,
        cost: u32,
        now: i64,
        latest: i64,
    ) -> Result<i64, Option<i64>> {
        let at = self.earliest(cost, now).ok_or(None)?;
        if at > latest.max(now) {
            return Err(Some(at));
        }
        self.tat = self.tat.max(now) + T * i64::from(cost.max(1));
        if at > now {
            self.waited.insert(id, self.tat);
        }
        self.ends.insert(id, self.tat);
        Ok(at)
    }

    /// What may not be given back: it lies before somebody's turn that has not come, or a hint did it.
    pub(crate) fn floor(&self, now: i64) -> i64 {
        let turns = self.waited.values().copied().filter(|&end| self.ready(end) > now);
        turns.chain(self.hint.map(|(tat, _)| tat)).max().unwrap_or(i64::MIN)
    }

    pub(crate) fn settle(&mut self, id: u64, taken: u32, actual: u32, now: i64) {
        // What the key was charged before it was forgotten has drained.
        let end = self.ends.remove(&id).unwrap_or(i64::MIN / 2);
        let more = T * (i64::from(actual) - i64::from(taken));
        if more > 0 {
            self.tat = (self.tat.max(now) + more).min(self.tat.max(now + DAY));
            return;
        }
        let back = (-more).min(end - now).max(0);
        if back == 0 {
            return;
        }
        self.ends.values_mut().for_each(|end| *end -= back);
        self.highest = self.highest.max(self.tat);
        self.tat = (self.tat - back).max(self.floor(now).min(self.tat));
    }

    pub(crate) fn cancel(&mut self, id: u64, cost: u32, now: i64) {
        let end = self.waited[&id];
        if now >= self.ready(end) {
            return self.settle(id, cost, 0, now);
        }
        self.ends.remove(&id);
        // Nobody is behind it.
        if self.tat == end {
            let hint = self.hint.map_or(i64::MIN, |(tat, _)| tat.min(end));
            self.tat = (end - T * i64::from(cost)).max(hint);
        }
    }

    pub(crate) fn hold(&mut self, wait: i64, now: i64) {
        if self.hint.is_some_and(|(_, until)| until >= now + wait) {
            return;
        }
        self.hint = Some((now + wait + self.tolerance(), now + wait));
        // By a nanosecond at least, whatever it was.
        self.tat = (self.tat + 1).max(now + wait + self.tolerance());
        // It takes the place of what was taken before: of that nothing is left to give back.
        let backlog = self.tat - now;
        self.ends.values_mut().for_each(|end| *end -= backlog);
    }

    pub(crate) fn is_held(&self, now: i64) -> bool {
        self.hint.is_some_and(|(_, until)| until > now)
    }

    pub(crate) fn left(&self, now: i64) -> u32 {
        let left = (now + T * self.burst - self.tat.max(now)).div_euclid(T);
        u32::try_from(left.clamp(0, self.burst)).unwrap()
    }

    pub(crate) fn is_idle(&self, now: i64) -> bool {
        self.tat.max(self.highest) <= now
    }
}
