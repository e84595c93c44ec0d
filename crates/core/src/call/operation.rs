//! Operations' names, kept to be given to many calls.

use std::{fmt, sync::Arc};

use super::{Call, Orders, Overrides};

/// The name of an operation, made once so that any number of calls can be given it: that allocates
/// nothing unless the caller ordered something too.
///
/// For layers that find a call's operation in its request; a caller says
/// [`call::with().name(…)`](super::With::name).
///
/// ```
/// use portcullis_core::{Call, call::{self, Operation}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let found = Operation::new("search");
/// let call = Call::current().with_operation(&found);
/// assert_eq!(call.overrides().name.as_deref(), Some("search"));
/// let within = call.in_scope(async { Call::current() }).await;
/// assert_eq!(within.overrides().name, None, "it is of the layers' call, and not of what is in it");
///
/// // A caller's word goes before it.
/// let named = call::with().name("mine").run(async { Call::current().with_operation(&found) });
/// assert_eq!(named.await.overrides().name.as_deref(), Some("mine"));
/// # }
/// ```
#[derive(Clone)]
pub struct Operation(Arc<Orders>);

// ===== impl Operation =====

impl Operation {
    /// An operation of this name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let overrides = Overrides { name: Some(name.into()), ..Overrides::NONE };
        Self(Arc::new(Orders { overrides, observer: None, found: true }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.overrides.name.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operation").field(&self.name()).finish()
    }
}

// ===== impl Orders =====

impl Orders {
    /// What was ordered besides the name, if that is one that a layer found; `None` if nothing was.
    pub(super) fn without_found(self: Arc<Self>) -> Option<Arc<Self>> {
        if !self.found {
            return Some(self);
        }
        let Self { overrides, observer, .. } = &*self;
        let more = observer.is_some() || !overrides.is_name_alone();
        more.then(|| {
            let overrides = Overrides { name: None, ..overrides.clone() };
            Arc::new(Self { overrides, observer: observer.clone(), found: false })
        })
    }
}

// ===== impl Call =====

impl Call {
    /// Whether the caller named the operation, be it in an enclosing scope. A name that a layer
    /// [found](Self::with_operation) is not the caller's.
    #[must_use]
    #[inline]
    pub fn is_named(&self) -> bool {
        let orders = self.company.orders.as_deref();
        orders.is_some_and(|orders| orders.overrides.name.is_some() && !orders.found)
    }

    /// A child that is of this operation, unless the caller [named](Self::is_named) another.
    ///
    /// It is known to the layers that are called within the `call` of the one that found it, and to
    /// what these call later in its stead, such as another attempt. It is not known to the futures that
    /// they make: what a server's handler calls is no part of the handler's own operation. A service
    /// in between that calls the next one only when it is polled, such as a route of axum or a retry of
    /// tower's, ends it therefore: what finds operations belongs inside of that.
    #[must_use]
    pub fn with_operation(mut self, operation: &Operation) -> Self {
        if self.is_named() {
            return self;
        }
        let found = &operation.0;
        let orders = match self.company.orders.as_deref() {
            Some(orders) if orders.observer.is_some() || !orders.overrides.is_name_alone() => {
                let overrides =
                    Overrides { name: found.overrides.name.clone(), ..orders.overrides.clone() };
                Arc::new(Orders { overrides, observer: orders.observer.clone(), found: true })
            }
            _ => found.clone(),
        };
        self.company.orders = Some(orders);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call;

    fn name(call: &Call) -> Option<&str> {
        call.overrides().name.as_deref()
    }

    #[tokio::test]
    async fn what_the_caller_ordered_besides_stays() {
        let found = Operation::new("found");
        let call = call::with()
            .timeout(Duration::from_secs(1))
            .key("tenant-7")
            .observe(|_: &crate::Event<'_>| {})
            .run(async { Call::current().with_operation(&found) })
            .await;
        assert_eq!(name(&call), Some("found"));
        assert_eq!(call.overrides().timeout, Some(Duration::from_secs(1)));
        assert_eq!(call.overrides().key.as_deref(), Some("tenant-7"));
        assert!(call.observer().is_some());
    }

    #[test]
    fn the_same_name_is_shared_by_all_calls() {
        let found = Operation::new("found");
        let [one, other] = [(); 2].map(|()| Call::new().with_operation(&found));
        let address = |call: &Call| std::ptr::from_ref(call.overrides());
        assert_eq!(address(&one), address(&other));
        let within = one.with_operation(&Operation::new("another"));
        assert_eq!(name(&within), Some("another"));
    }

    #[tokio::test]
    async fn an_operation_found_outside_is_none_of_what_is_called_inside() {
        let (outside, inside) = (Operation::new("handle"), Operation::new("fetch"));
        let handler = Call::new().with_operation(&outside);
        let (bare, found, ordered) = handler
            .in_scope(async {
                let bare = Call::current();
                let ordered = call::with().no_retry();
                let found = bare.clone().with_operation(&inside);
                (bare, found, ordered.run(async { Call::current() }).await)
            })
            .await;
        assert_eq!((name(&bare), bare.orders()), (None, None));
        assert_eq!(name(&found), Some("fetch"));
        assert_eq!((name(&ordered), ordered.is_named()), (None, false));

        let within = ordered.with_operation(&outside).with_operation(&inside);
        assert_eq!(name(&within), Some("fetch"));
        assert_eq!(within.overrides().max_attempts, Some(1));
    }

    #[tokio::test]
    async fn layers_below_know_what_was_found_and_their_futures_what_was_ordered_besides() {
        let found = Operation::new("found");
        let (beneath, carried, within) = call::with()
            .no_retry()
            .observe(|_: &crate::Event<'_>| {})
            .run(async {
                let call = Call::current().with_operation(&found);
                let scoped = call.enter_unread(|| {
                    let beneath = Call::current();
                    // As another attempt is made.
                    let again = beneath.clone().enter_unread(Call::current);
                    async move { (beneath, again.get_ref().cloned().unwrap(), Call::current()) }
                });
                scoped.await
            })
            .await;
        assert_eq!((name(&beneath), name(&carried)), (Some("found"), Some("found")));
        assert_eq!((name(&within), within.is_named()), (None, false));
        assert_eq!(within.overrides().max_attempts, Some(1));
        assert!(within.observer().is_some());
    }
}
