//! The bare client: hyper-util's, as its documentation makes it.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::attempts::Counted;

/// The bare client, its attempts counted.
pub(crate) type Bare = Counted<Client<HttpConnector, Full<Bytes>>>;

/// A client with a pool of its own.
pub(crate) fn bare() -> Bare {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Counted::new(Client::builder(TokioExecutor::new()).build(connector))
}
