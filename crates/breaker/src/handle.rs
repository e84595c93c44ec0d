//! One breaker, shared by all who use it.

use std::{fmt, sync::Arc, time::Instant};

use portcullis_core::{
    Call, Completion, Error, Invalid, LayerKind, Outcome, Reason, State, Voice, What, clock,
};

use crate::{
    Admission, BreakerConfig, Changes, Engine, Mode, Open, Permit, Refusal, Snapshot, WhenOpen,
    engine::{stripe_of_this_thread, stripes},
    pending::Admitted,
    shared::{Lane, Shared},
    waiting::Waiters,
};

/// A breaker: what its layers and services share, and the way to inspect and order it about.
///
/// Clones are the same breaker. It is had from a [layer](crate::BreakerLayer::handle), or made first
/// and given to several layers, or used without any:
///
/// ```
/// use portcullis_breaker::{BreakerConfig, Handle, Open};
/// use portcullis_core::{Error, Outcome};
///
/// fn ask(breaker: &Handle) -> Result<String, Error> {
///     let call = breaker.admit()?;
///     match std::fs::read_to_string("/proc/loadavg") {
///         Ok(answer) => {
///             call.settle(Outcome::Success);
///             Ok(answer)
///         }
///         Err(error) => {
///             let error = Error::inner(error);
///             call.settle(error.outcome());
///             Err(error)
///         }
///     }
/// }
///
/// let breaker = Handle::new("load", BreakerConfig::default())?;
/// # let _ = ask(&breaker);
/// breaker.force_open();
/// assert!(ask(&breaker).unwrap_err().is::<Open>());
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
///
/// In a [`Registry`](portcullis_core::Registry) it is got or created by name:
///
/// ```
/// use portcullis_breaker::{BreakerConfig, Handle};
/// use portcullis_core::Registry;
///
/// let registry = Registry::new();
/// let get = || registry.get_or_try_insert_with("search", || {
///     Handle::new("search", BreakerConfig::default())
/// });
/// get()?.force_open();
/// assert_eq!(get()?.state().as_str(), "forced-open");
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    lanes: Arc<[Arc<Lane>]>,
}

// ===== impl Handle =====

impl Handle {
    /// A breaker of its own. For one with observers, build a [layer](crate::BreakerLayer) and take
    /// its handle.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: BreakerConfig) -> Result<Self, Invalid> {
        config.validate()?;
        let voice = Voice::new(LayerKind::Breaker, name);
        Ok(Self::with_voice(voice, None, config))
    }

    /// For settings that were validated.
    pub(crate) fn with_voice(voice: Voice, key: Option<Arc<str>>, config: BreakerConfig) -> Self {
        // One of many is small rather than fast on many threads: the map it is in limits those.
        let lanes = if key.is_some() { 1 } else { stripes() };
        let engine = Engine::with_stripes(config, clock::now(), lanes);
        let shared = Arc::new(Shared { voice, key, engine, waiters: Waiters::default() });
        let lanes = (0..lanes).map(|_| Arc::new(Lane { shared: shared.clone() }));
        Self { lanes: lanes.collect() }
    }

    /// The breaker's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.shared().voice.name()
    }

    /// The key whose breaker it is, if it is one of many.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<str>> {
        self.shared().key.as_ref()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BreakerConfig {
        self.shared().engine.config()
    }

    /// The state. It stays open after the open time until a call comes to be the first probe.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared().engine.state()
    }

    /// Everything there is to know, now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.step(clock::now(), Engine::snapshot)
    }

    /// Refuses every call from now on, those whose service is ready already included.
    pub fn force_open(&self) {
        self.order(Mode::ForcedOpen);
    }

    /// Admits every call from now on, whatever becomes of them.
    pub fn force_closed(&self) {
        self.order(Mode::ForcedClosed);
    }

    /// Admits every call from now on, and only tells what it would have done.
    pub fn disable(&self) {
        self.order(Mode::Disabled);
    }

    /// Judges by itself again, from closed and with nothing counted. Nothing happens if it does so
    /// already.
    pub fn automatic(&self) {
        self.order(Mode::Automatic);
    }

    /// Starts over, whatever the state: closed and automatic, nothing counted, the open time at its
    /// initial length, results of calls still out not counted.
    pub fn reset(&self) {
        self.step(clock::now(), Engine::reset);
    }

    /// The peer was seen to be unwell.
    pub(crate) fn open(&self, why: Reason) {
        self.step(clock::now(), |engine, now, changes| engine.open(why, now, changes));
    }

    /// The peer was seen to be well again.
    pub(crate) fn half_open(&self, why: Reason) {
        self.step(clock::now(), |engine, now, changes| engine.half_open(why, now, changes));
    }

    /// Admits a call made without a service. Its end is told to the [`Completion`]: `settle` says what
    /// became of it, and a drop says that it was given up: which is a timeout if it had run for as
    /// long as [`Abandoned`](crate::Abandoned) says.
    ///
    /// # Errors
    ///
    /// [`Open`], if the call may not pass.
    pub fn admit(&self) -> Result<Completion, Error> {
        let call = Call::current();
        let now = call.now();
        let Admitted { lane, permit } = self.enter(&call, now)?;
        Ok(Completion::new(lane, permit.into(), call, now))
    }

    /// Admits or refuses a call that begins now.
    #[inline]
    pub(crate) fn enter(&self, call: &Call, now: Instant) -> Result<Admitted, Error> {
        let lane = &self.lanes[stripe_of_this_thread() & (self.lanes.len() - 1)];
        let shared = &*lane.shared;
        let permit = match shared.engine.admit_while_closed() {
            Some(permit) => permit,
            None => self.enter_by_rules(call, now)?,
        };
        shared.tell_of_admission(&permit, call, now);
        Ok(Admitted { lane: lane.clone(), permit })
    }

    #[cold]
    fn enter_by_rules(&self, call: &Call, now: Instant) -> Result<Permit, Error> {
        let shared = self.shared();
        let mut changes = Changes::default();
        let admission = shared.engine.admit(now, &mut changes);
        shared.tell_of(&changes, call);
        match admission {
            Admission::Admitted(permit) => Ok(permit),
            Admission::WouldReject(refusal) => {
                shared.tell(call, now, || What::WouldReject { reason: refusal.reason });
                Ok(Permit::UNCOUNTED)
            }
            Admission::Rejected(refusal) => Err(self.reject(refusal, call, now)),
        }
    }

    /// The refusal of a call, told to whoever listens.
    #[cold]
    pub(crate) fn reject(&self, refusal: Refusal, call: &Call, now: Instant) -> Error {
        let shared = self.shared();
        let open = Open::new(self.name().clone(), shared.key.clone(), refusal, now);
        shared.voice.tell_of_refusal(shared.key.as_deref(), call, now, &open);
        Error::rejected(open)
    }

    /// What a call would be refused for, if `poll_ready` is to know of it.
    #[inline]
    pub(crate) fn outlook(&self) -> Option<Refusal> {
        if self.shared().engine.is_closed() { None } else { self.outlook_by_rules() }
    }

    #[cold]
    fn outlook_by_rules(&self) -> Option<Refusal> {
        let shared = self.shared();
        let mut changes = Changes::default();
        let refusal = shared.engine.outlook(clock::now, &mut changes);
        // Told whether or not a call would be refused: looking may have settled a probe.
        shared.tell_of(&changes, &Call::new());
        let refusal = refusal?;
        match shared.engine.config().when_open {
            // A probe's slot may be free by the time of the call.
            WhenOpen::Reject if refusal.state == State::HalfOpen => None,
            _ => Some(refusal),
        }
    }

    /// Counts that the inner service failed to become ready.
    pub(crate) fn not_ready(&self, outcome: Outcome) {
        self.step(clock::now(), |engine, now, changes| engine.fail(outcome, now, changes));
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.shared().waiters
    }

    /// Whether it may be forgotten for another key: it lets calls pass, or would by now, as the one
    /// that is made when its key comes back does. Not one that somebody ordered about.
    pub(crate) fn is_expendable(&self) -> bool {
        let engine = &self.shared().engine;
        match self.state() {
            State::Closed => true,
            State::Open | State::HalfOpen => engine.has_done_its_time(clock::now()),
            State::ForcedOpen => false,
            State::ForcedClosed => engine.config().mode == Mode::ForcedClosed,
            State::Disabled => engine.config().mode == Mode::Disabled,
        }
    }

    fn order(&self, mode: Mode) {
        self.step(clock::now(), |engine, now, changes| engine.order(mode, now, changes));
    }

    /// Does what concerns no call, and tells of the changes.
    fn step<R>(&self, now: Instant, f: impl FnOnce(&Engine, Instant, &mut Changes) -> R) -> R {
        let mut changes = Changes::default();
        let result = f(&self.shared().engine, now, &mut changes);
        self.shared().tell_of(&changes, &Call::new());
        result
    }

    fn shared(&self) -> &Shared {
        &self.lanes[0].shared
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("name", self.name())
            .field("key", &self.key())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
