//! The service inside, and one call of it, for all benches.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::Service;

/// Answers at once.
#[derive(Clone)]
pub(crate) struct AtOnce;

impl<Req> Service<Req> for AtOnce {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok(()))
    }
}

/// One call, polled by hand: no executor's cost is measured.
pub(crate) fn call<S: Service<Req>, Req>(service: &mut S, req: Req) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = pin!(service.call(req));
    while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
}
