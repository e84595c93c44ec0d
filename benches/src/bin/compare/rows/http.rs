//! An HTTP request, through replay and propagation, to the end of the response's body.

use benches::scenario::{exchange, http_client, http_stack};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service};

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers,
};

const GROUP: &str = "http";

/// The side that shows what the client itself costs.
pub(crate) const NO_STACK: &str = "no stack";

pub(super) fn plans() -> Vec<Plan> {
    vec![Plan::new(GROUP, "request to the end of the body", |_| {
        Contest::new(
            exchanges("ours", http_stack().build().expect("valid").layer(http_client())),
            [
                exchanges(NO_STACK, http_client()),
                // It sees the head only, and tells the server nothing.
                exchanges("tower-resilience, four layers", peers::resilience_stack(http_client())),
            ],
        )
        .noted("making the request and reading the answer included")
    })]
}

fn exchanges<S, B>(name: &str, mut service: S) -> Side
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + 'static,
    B: Body,
{
    Side::new(name, move || exchange(&mut service))
}
