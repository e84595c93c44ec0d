//! The client's own log: what right above the HTTP client was sent, and what became of it.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::client::legacy;
use pin_project_lite::pin_project;
use portcullis_core::{clock, sync::Mutex};
use tower::Service;

/// The header that joins the client's log and the upstream's.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header that tells the attempts of one request apart, from 1.
pub(crate) const ATTEMPT: &str = "x-attempt";

/// One attempt, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: u32,
    /// Which attempt of its request it is, from 1.
    pub(crate) number: u32,
    pub(crate) started: Instant,
    /// When its head was there, it failed or it was dropped.
    pub(crate) ended: Instant,
    pub(crate) end: AttemptEnd,
}

/// What became of an attempt, as far as the response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// A head came.
    Head(StatusCode),
    /// No connection could be made.
    Refused,
    /// The connection failed before the head.
    Broken,
    /// Whoever waited gave up.
    Dropped,
}

/// Counts and logs every attempt that passes, and numbers it for the upstream's log.
///
/// It stands right above the HTTP client on both sides, so that it counts connections that were
/// refused too, and counts by itself: it does not rest on what the layers above it say.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
    log: Arc<Log>,
}

/// What [`Counted`] wrote down.
#[derive(Default)]
pub(crate) struct Log {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    attempts: Vec<Attempt>,
    numbers: HashMap<u32, u32>,
}

pin_project! {
    /// An attempt on its way.
    #[derive(Debug)]
    pub(crate) struct Counting<F> {
        #[pin]
        future: F,
        noting: Noting,
    }
}

/// The duty to log an attempt, however it ends.
#[derive(Debug)]
struct Noting {
    log: Arc<Log>,
    id: u32,
    number: u32,
    started: Instant,
    /// When and how, once it is over; until then a drop is the caller's.
    end: Option<(Instant, AttemptEnd)>,
}

// ===== impl Counted =====

impl<S> Counted<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, log: Arc::default() }
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Counted<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = legacy::Error>,
{
    type Response = Response<ResBody>;
    type Error = legacy::Error;
    type Future = Counting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let started = clock::now();
        let id = request.headers().get(REQUEST_ID);
        let id = id.and_then(|id| id.to_str().ok()?.parse().ok());
        let id = id.unwrap_or(u32::MAX);
        let number = self.log.next_number(id);
        let header = HeaderValue::from(number);
        request.headers_mut().insert(ATTEMPT, header);
        Counting {
            noting: Noting { log: self.log.clone(), id, number, started, end: None },
            future: self.inner.call(request),
        }
    }
}

// ===== impl Counting =====

impl<F, B> Future for Counting<F>
where
    F: Future<Output = Result<Response<B>, legacy::Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = std::task::ready!(this.future.poll(cx));
        let end = match &result {
            Ok(response) => AttemptEnd::Head(response.status()),
            Err(error) if error.is_connect() => AttemptEnd::Refused,
            Err(_) => AttemptEnd::Broken,
        };
        this.noting.end = Some((clock::now(), end));
        Poll::Ready(result)
    }
}

// ===== impl Noting =====

impl Drop for Noting {
    fn drop(&mut self) {
        let (ended, end) = self.end.unwrap_or_else(|| (clock::now(), AttemptEnd::Dropped));
        self.log.entries.lock().attempts.push(Attempt {
            id: self.id,
            number: self.number,
            started: self.started,
            ended,
            end,
        });
    }
}

// ===== impl Log =====

impl Log {
    /// Hands out what was logged so far, and begins anew: the next attempt of any request is its first.
    pub(crate) fn take(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.entries.lock()).attempts
    }

    fn next_number(&self, id: u32) -> u32 {
        let mut entries = self.entries.lock();
        let number = entries.numbers.entry(id).or_default();
        *number += 1;
        *number
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.entries.lock().attempts.len();
        f.debug_struct("Log").field("attempts", &attempts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the next lap's requests, which have the ids of this one's, would go on where these ended,
    /// and the log would grow for as long as it is served.
    #[test]
    fn what_was_handed_out_is_forgotten() {
        let log = Log::default();
        assert_eq!([7, 7, 8].map(|id| log.next_number(id)), [1, 2, 1]);
        log.take();
        assert_eq!(log.next_number(7), 1);
        assert!(log.take().is_empty());
    }
}
