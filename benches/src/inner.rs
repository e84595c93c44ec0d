//! The services inside, and one call of them.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tower::Service;

/// Answers at once.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce;

/// Answers when it is polled again, so that a timer must be made.
#[derive(Clone, Copy, Debug)]
pub struct PendingOnce;

/// Answers at once, with a response of its own each time.
#[derive(Clone, Debug)]
pub struct Answers<F>(pub F);

/// The future of [`PendingOnce`].
#[derive(Debug)]
pub struct SecondPoll(bool);

/// One call, polled by hand: no executor's cost is measured.
#[inline]
pub fn call<S: Service<Req>, Req>(service: &mut S, req: Req) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = pin!(service.call(req));
    loop {
        if let Poll::Ready(result) = black_box(future.as_mut().poll(&mut cx)) {
            return result;
        }
    }
}

// ===== impl AtOnce =====

impl<Req> Service<Req> for AtOnce {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok(()))
    }
}

// ===== impl PendingOnce =====

impl<Req> Service<Req> for PendingOnce {
    type Response = ();
    type Error = Infallible;
    type Future = SecondPoll;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _: Req) -> Self::Future {
        SecondPoll(false)
    }
}

impl Future for SecondPoll {
    type Output = Result<(), Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

// ===== impl Answers =====

impl<Req, Res, F: Fn() -> Res> Service<Req> for Answers<F> {
    type Response = Res;
    type Error = Infallible;
    type Future = Ready<Result<Res, Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok((self.0)()))
    }
}
