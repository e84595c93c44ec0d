//! The gateway: an app, the inbound layer around it, and a stack in front of each service behind it.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use portcullis::{
    Error, HttpStack, Invalid, RejectionKind, Stack, http::PropagateLayer, inbound::InboundLayer,
    trace::Recorder,
};
use tower::{Layer, ServiceExt};

use crate::world::World;

/// How clients say how long they wait, and how services are told.
pub(crate) const X_TIMEOUT: HeaderName = HeaderName::from_static("x-timeout-ms");

type Http = Client<HttpConnector, Full<Bytes>>;

#[derive(Clone)]
struct Shop {
    stock: Behind,
    prices: Behind,
}

/// A service behind the gateway.
#[derive(Clone)]
struct Behind {
    host: String,
    service: <HttpStack as Layer<Http>>::Service,
}

/// The app, with everything that is done in it recorded by `recorder`.
pub(crate) fn app(world: &World, recorder: &Recorder) -> Result<Router, Invalid> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let shop = Shop {
        stock: Behind::new("stock", world.stock.host(), &client, recorder)?,
        prices: Behind::new("prices", world.prices.host(), &client, recorder)?,
    };
    let inbound = InboundLayer::builder("gateway")
        .timeout_header(X_TIMEOUT)
        .max_timeout(Duration::from_secs(5))
        .recorder(recorder)
        .name_by(|request| {
            let route = request.extensions.get::<MatchedPath>().map_or("?", MatchedPath::as_str);
            format!("{} {route}", request.method).into()
        })
        .build()?;
    let routes = Router::new().route("/items/{id}", get(item)).route("/prices/{id}", get(prices));
    Ok(routes.with_state(shop).layer(inbound))
}

/// Asks both services at once. A price may be missing, stock may not.
async fn item(State(shop): State<Shop>, Path(id): Path<u32>) -> Response {
    let (stock, price) = tokio::join!(shop.stock.get(id), shop.prices.get(id));
    match (stock, price) {
        (Ok(stock), Ok(price)) => format!("{stock} in stock, at {price}").into_response(),
        (Ok(stock), Err(error)) => format!("{stock} in stock (no price: {error})").into_response(),
        (Err(error), _) => {
            let refused = error.rejection().map(portcullis::Rejection::kind);
            let late = refused == Some(RejectionKind::Elapsed);
            let status = if late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
            (status, error.to_string()).into_response()
        }
    }
}

/// Streams the prices of three items, each of which is asked for only when the client is sent it.
async fn prices(State(shop): State<Shop>, Path(first): Path<u32>) -> Response {
    let lines = stream::iter(first..first + 3).then(move |id| {
        let prices = shop.prices.clone();
        async move {
            let price = prices.get(id).await.unwrap_or_else(|error| error.to_string());
            Ok::<_, Infallible>(format!("{id}: {price}\n"))
        }
    });
    Body::from_stream(lines).into_response()
}

// ===== impl Behind =====

impl Behind {
    fn new(
        name: &'static str,
        host: String,
        client: &Http,
        recorder: &Recorder,
    ) -> Result<Self, Invalid> {
        let stack = Stack::production(name)
            .recorder(recorder)
            .total(|timeout| timeout.total(Duration::from_secs(3)))
            .attempt(|timeout| timeout.attempt(Duration::from_secs(2)))
            .propagate(PropagateLayer::new().with_timeout_header(X_TIMEOUT))
            .build()?;
        Ok(Self { host, service: stack.layer(client.clone()) })
    }

    async fn get(&self, id: u32) -> Result<String, Error> {
        let uri = format!("http://{}/{id}", self.host);
        let request = Request::get(uri).body(Full::default()).map_err(Error::inner)?;
        let response = self.service.clone().oneshot(request).await?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&text).into_owned()),
            false => Err(Error::inner(format!("status {status}"))),
        }
    }
}
