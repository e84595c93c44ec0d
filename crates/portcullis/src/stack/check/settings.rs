//! What is read off the layers of a stack.

use std::{sync::Arc, time::Duration};

use portcullis_breaker::{self as breaker, BreakerConfig, BreakerLayer};
use portcullis_ratelimit::{self as ratelimit, RateLimitConfig, RateLimitLayer};
use portcullis_retry::{Policy, RetryLayer};
use portcullis_timeout::{Limits, TimeoutLayer, engine::Policy as Times};
use portcullis_trace::TraceLayer;
use tower_layer::Identity;

use super::Part;

/// The settings of the layers of a stack, side by side. A part that was left out has none.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub(super) name: Option<Arc<str>>,
    pub(super) slow_trace: Option<Duration>,
    pub(super) total: Limits,
    pub(super) attempt: Limits,
    pub(super) operations: Vec<Operation>,
    pub(super) retry: Option<Policy>,
    pub(super) limit: Option<RateLimitConfig>,
    pub(super) limit_by_key: bool,
    pub(super) breaker_by_key: bool,
    pub(super) breaker: Option<BreakerConfig>,
}

/// The limits of one named operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) total: Limits,
    pub(super) attempt: Limits,
}

/// A layer whose settings [`Stack::check`](crate::Stack::check) can read: all of ours, and none
/// ([`Identity`]).
pub trait Inspect: sealed::Sealed {
    #[doc(hidden)]
    fn inspect(&self, part: Part, settings: &mut Settings);
}

mod sealed {
    use super::{
        BreakerLayer, Identity, RateLimitLayer, RetryLayer, TimeoutLayer, TraceLayer, breaker,
        ratelimit,
    };

    pub trait Sealed {}
    impl Sealed for Identity {}
    impl<C, D, O> Sealed for TraceLayer<C, D, O> {}
    impl<C> Sealed for TimeoutLayer<C> {}
    impl<K, C> Sealed for RetryLayer<K, C> {}
    impl<C, W> Sealed for RateLimitLayer<C, ratelimit::Single, W> {}
    impl<C, F, W> Sealed for RateLimitLayer<C, ratelimit::ByKey<F>, W> {}
    impl<C> Sealed for BreakerLayer<C, breaker::Single> {}
    impl<C, F> Sealed for BreakerLayer<C, breaker::ByKey<F>> {}
}

// ===== impl Settings =====

impl Settings {
    fn named(&mut self, name: &str) {
        self.name.get_or_insert_with(|| name.into());
    }

    /// The limits of an operation, those of the whole stack at first.
    fn operation(&mut self, name: &str) -> &mut Operation {
        let at = self.operations.iter().position(|operation| operation.name == name);
        let at = at.unwrap_or_else(|| {
            let (total, attempt) = (self.total, self.attempt);
            self.operations.push(Operation { name: name.to_owned(), total, attempt });
            self.operations.len() - 1
        });
        &mut self.operations[at]
    }

    fn times(&mut self, part: Part, times: &Times) {
        let limits = *times.limits(Default::default());
        *place(part, &mut self.total, &mut self.attempt) = limits;
        for operation in &mut self.operations {
            *place(part, &mut operation.total, &mut operation.attempt) = limits;
        }
        for (name, operation) in times.operations() {
            let limits = *times.limits(operation);
            let operation = self.operation(name);
            *place(part, &mut operation.total, &mut operation.attempt) = limits;
        }
    }
}

fn place<'a>(part: Part, total: &'a mut Limits, attempt: &'a mut Limits) -> &'a mut Limits {
    match part {
        Part::Total => total,
        _ => attempt,
    }
}

// ===== impl Inspect =====

impl Inspect for Identity {
    fn inspect(&self, _: Part, _: &mut Settings) {}
}

impl<C, D, O> Inspect for TraceLayer<C, D, O> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        settings.named(self.name());
        settings.slow_trace = self.recorder().config().slow;
    }
}

impl<C> Inspect for TimeoutLayer<C> {
    fn inspect(&self, part: Part, settings: &mut Settings) {
        settings.named(self.name());
        settings.times(part, self.policy());
    }
}

impl<K, C> Inspect for RetryLayer<K, C> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        settings.named(self.name());
        settings.retry = Some(self.policy().clone());
    }
}

impl<C, W> Inspect for RateLimitLayer<C, ratelimit::Single, W> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        let limiter = self.limiter();
        settings.named(limiter.name());
        settings.limit = Some(limiter.config().clone());
    }
}

impl<C, F, W> Inspect for RateLimitLayer<C, ratelimit::ByKey<F>, W> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        let limiters = self.limiters();
        settings.named(limiters.name());
        settings.limit = Some(limiters.config().clone());
        settings.limit_by_key = true;
    }
}

impl<C> Inspect for BreakerLayer<C, breaker::Single> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        let handle = self.handle();
        settings.named(handle.name());
        settings.breaker = Some(handle.config().clone());
    }
}

impl<C, F> Inspect for BreakerLayer<C, breaker::ByKey<F>> {
    fn inspect(&self, _: Part, settings: &mut Settings) {
        let handles = self.handles();
        settings.named(handles.name());
        settings.breaker = Some(handles.config().clone());
        settings.breaker_by_key = true;
    }
}
