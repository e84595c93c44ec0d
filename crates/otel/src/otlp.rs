//! OTLP over HTTP, by a client that needs no runtime.

use std::time::Duration;

use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use portcullis_core::Invalid;

/// Sends requests from the thread it is called on, which is one of the exporters'.
#[derive(Debug)]
struct Client(ureq::Agent);

/// Bytes of a response that are read: it is a few words, or an error.
const LONGEST: u64 = 4 << 20;

/// How long a request may take: what OpenTelemetry allows an export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Exporters of metrics and spans to the collector there.
pub(crate) fn exporters(endpoint: Option<&str>) -> Result<(MetricExporter, SpanExporter), Invalid> {
    let metrics = MetricExporter::builder().with_http().with_http_client(Client::new());
    let spans = SpanExporter::builder().with_http().with_http_client(Client::new());
    let (metrics, spans) = match endpoint {
        Some(root) => {
            let root = root.trim_end_matches('/');
            (
                metrics.with_endpoint(format!("{root}/v1/metrics")),
                spans.with_endpoint(format!("{root}/v1/traces")),
            )
        }
        None => (metrics, spans),
    };
    let invalid = |error| Invalid::new("endpoint", error, "an HTTP URL");
    Ok((metrics.build().map_err(invalid)?, spans.build().map_err(invalid)?))
}

// ===== impl Client =====

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0);
        Self(config.build().new_agent())
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(LONGEST).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}
