//! An HTTP request, through replay and propagation, to the end of the response's body.

use std::{
    convert::Infallible,
    future::Ready,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use benches::inner::{Answers, call};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use portcullis::{Stack, trace::Recorder};
use tower::{Layer, Service};

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers::{self, BURST, RATE, SECOND},
};

const GROUP: &str = "http";

/// The side that shows what the client itself costs.
pub(crate) const NO_STACK: &str = "no stack";

type Answer = Response<Full<Bytes>>;

pub(super) fn plans() -> Vec<Plan> {
    vec![Plan::new(GROUP, "request to the end of the body", |_| {
        let recorder = Recorder::builder().sample_rate(0.0).build().expect("valid");
        let stack = Stack::production("bench")
            .recorder(&recorder)
            .limit(|limit| limit.rate(RATE, SECOND).burst(BURST))
            .build()
            .expect("valid");
        Contest::new(
            exchanges("ours", stack.layer(client())),
            [
                exchanges(NO_STACK, client()),
                // It sees the head only, and tells the server nothing.
                exchanges("tower-resilience, four layers", peers::resilience_stack(client())),
            ],
        )
        .noted("making the request and reading the answer included")
    })]
}

/// Answers at once.
fn client() -> impl Service<
    Request<Full<Bytes>>,
    Response = Answer,
    Error = Infallible,
    Future = Ready<Result<Answer, Infallible>>,
> + Clone
+ Send
+ 'static {
    Answers(|| Response::new(Full::new(Bytes::from_static(b"an answer"))))
}

fn exchanges<S, B>(name: &str, mut service: S) -> Side
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + 'static,
    B: Body,
{
    Side::new(name, move || {
        let request = Request::get("http://upstream.test/search")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from_static(b"a question")))
            .expect("valid");
        let Ok(response) = call(&mut service, request) else { panic!("it answers at once") };
        let mut body = pin!(response.into_body());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            _ = black_box(frame.is_ok());
        }
    })
}
