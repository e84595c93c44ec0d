//! Telling what the client answered.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, uri::Scheme};
use pin_project_lite::pin_project;
use portcullis_core::{Answer, Call, FaultKind, Voice, What, call, clock};

use crate::{by_host, client, grpc::is_grpc};

pin_project! {
    /// The future of a [`Propagate`](crate::Propagate).
    #[must_use = "futures do nothing unless polled"]
    pub struct Answered<F> {
        #[pin]
        inner: F,
        // `None` where nobody listens, and once it was told.
        telling: Option<Telling>,
    }

    impl<F> PinnedDrop for Answered<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(telling) = this.telling.take() {
                telling.dropped();
            }
        }
    }
}

/// What is known of the request once it is gone.
pub(crate) struct Telling {
    voice: Arc<Voice>,
    call: Call,
    started: Instant,
    answer: Answer,
    uri: Uri,
    /// Where the URI names no host.
    host: Option<HeaderValue>,
}

// ===== impl Answered =====

impl<F> Answered<F> {
    #[inline]
    pub(crate) fn new(inner: F, telling: Option<Telling>) -> Self {
        Self { inner, telling }
    }
}

impl<F, B, E> Future for Answered<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: 'static,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(telling) = this.telling.take() {
            telling.answered(match &result {
                Ok(response) => Ok((response.status().as_u16(), response.headers())),
                Err(error) => Err(error as &dyn Any),
            });
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for Answered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

// ===== impl Telling =====

impl Telling {
    /// What will be told of a request; `None` if nobody wants to know.
    pub(crate) fn of<B>(voice: &Arc<Voice>, req: &Request<B>) -> Option<Self> {
        let call = Call::here();
        if !voice.is_heard(&call) {
            return None;
        }
        let uri = req.uri();
        let mut answer = Answer::to(known(req.method()));
        answer.is_grpc = is_grpc(req.headers());
        answer.port = uri.port_u16().or_else(|| match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => Some(80),
            Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
            _ => None,
        });
        let host = uri.authority().is_none().then(|| req.headers().get(header::HOST).cloned());
        Some(Self {
            voice: voice.clone(),
            started: call.now(),
            call,
            answer,
            uri: uri.clone(),
            host: host.flatten(),
        })
    }

    #[cold]
    fn dropped(self) {
        let now = clock::now();
        // That the caller gave up says nothing of the server.
        if call::is_expired() || self.call.is_overdue(now) {
            self.tell(now, |answer| answer.fault = Some(FaultKind::Timeout));
        }
    }

    fn answered(self, result: Result<(u16, &HeaderMap), &dyn Any>) {
        self.tell(clock::now(), |answer| match result {
            Ok((status, headers)) => {
                answer.status = Some(status);
                answer.size = length(headers);
            }
            Err(error) => answer.fault = Some(client::fault(error)),
        });
    }

    fn tell(mut self, now: Instant, note: impl FnOnce(&mut Answer)) {
        note(&mut self.answer);
        let Self { voice, call, started, answer, uri, host } = &self;
        let elapsed = now.saturating_duration_since(*started);
        let key = by_host::of(uri, || host.as_ref());
        voice.tell_of(Some(&key), call, now, || What::Answered { answer: *answer, elapsed });
    }
}

/// What the head says the body's length is.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The methods everybody knows; what a peer makes up is none, for names of metrics must be few.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 10] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
