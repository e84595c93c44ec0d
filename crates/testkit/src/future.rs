use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::{journal::Flight, script::Step};

pin_project! {
    /// The future of a [`ScriptedService`](crate::ScriptedService). It is not `Unpin`, so that a
    /// layer which forgets to pin its inner future does not compile against it.
    pub struct ResponseFuture<Req, Res, E> {
        // What is still to happen; `None` once answered.
        step: Option<Step<Res, E>>,
        #[pin]
        sleep: Option<Sleep>,
        flight: Flight<Req>,
    }
}

impl<Req, Res, E> ResponseFuture<Req, Res, E> {
    pub(crate) fn new(step: Step<Res, E>, flight: Flight<Req>) -> Self {
        Self { step: Some(step), sleep: None, flight }
    }
}

impl<Req, Res, E> Future for ResponseFuture<Req, Res, E> {
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                ready!(sleep.poll(cx));
                this.sleep.set(None);
            }
            match this.step.take().expect("a response future was polled after it had answered") {
                Step::Ok(response) => {
                    this.flight.land();
                    return Poll::Ready(Ok(response));
                }
                Step::Err(error) => {
                    this.flight.land();
                    return Poll::Ready(Err(error));
                }
                Step::Hang => {
                    *this.step = Some(Step::Hang);
                    return Poll::Pending;
                }
                Step::Panic(message) => panic!("{message}"),
                Step::After(delay, next) => {
                    *this.step = Some(*next);
                    this.sleep.set(Some(tokio::time::sleep(delay)));
                }
                Step::PendingOnce(next) => {
                    *this.step = Some(*next);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<Req, Res, E> fmt::Debug for ResponseFuture<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("answered", &self.step.is_none())
            .field("sleeping", &self.sleep.is_some())
            .finish_non_exhaustive()
    }
}
