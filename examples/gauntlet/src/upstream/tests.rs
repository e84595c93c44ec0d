//! The upstream on a real socket, in the weather a test asks for.

use portcullis_core::BoxError;
use tower::ServiceExt;

use super::*;
use crate::{client, client::Bare, load::Course};

/// An upstream whose script has come to `weather`, and a client.
struct There {
    upstream: Upstream,
    addr: SocketAddr,
    client: Bare,
    course: Course,
    calls: u32,
}

impl There {
    /// So long after the weather began; before it, where that is negative.
    fn new(weather: Weather, since_ms: i64) -> Self {
        let script = Arc::new(Script::new(5, 1));
        let from = script.phase(weather).from;
        let since = Duration::from_millis(since_ms.unsigned_abs());
        let elapsed = match since_ms {
            0.. => from + since,
            _ => from - since,
        };
        let start = clock::now() - elapsed;
        let place = Place::new().unwrap();
        Self {
            upstream: Upstream::start(&place, script.clone(), start).unwrap(),
            addr: place.addr(),
            client: client::bare(),
            course: Course { script, start },
            calls: 0,
        }
    }

    async fn get(&mut self) -> Result<Response<Incoming>, BoxError> {
        self.calls += 1;
        let request = Request::get(format!("http://{}/", self.addr))
            .header(REQUEST_ID, self.calls)
            .body(Full::default())?;
        Ok(self.client.clone().oneshot(request).await?)
    }

    /// The first response for which `wanted` holds, within a phase's time.
    async fn until(&mut self, wanted: fn(&Response<Incoming>) -> bool) -> Response<Incoming> {
        loop {
            let response = self.get().await.unwrap();
            if wanted(&response) {
                return response;
            }
        }
    }

    async fn stop(self) -> Vec<Access> {
        self.upstream.stop().await.unwrap()
    }
}

#[tokio::test]
async fn healthy_requests_are_answered_and_logged_by_id_and_attempt() {
    let mut there = There::new(Weather::Healthy, 0);
    let body = there.get().await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), LENGTH);
    there.calls = 0;
    there.get().await.unwrap();

    let log = there.stop().await;
    let seen: Vec<_> =
        log.iter().map(|access| (access.id, access.attempt, access.status)).collect();
    let ok = Some(StatusCode::OK);
    assert_eq!(seen, [(1, 1, ok), (1, 2, ok)]);
}

#[tokio::test]
async fn a_cut_body_is_promised_begun_and_broken_off() {
    let mut there = There::new(Weather::CutBodies, 0);
    loop {
        let response = there.get().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "4096");
        let mut body = response.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => received += frame.into_data().unwrap().len(),
                Err(_) => {
                    assert_eq!(received, LENGTH / 2);
                    return;
                }
            }
        }
        assert_eq!(received, LENGTH);
    }
}

#[tokio::test]
async fn failures_come_without_a_hint_and_throttling_with_one() {
    let mut there = There::new(Weather::Flaky, 0);
    let failed = there.until(|response| response.status() == 503).await;
    assert!(!failed.headers().contains_key(header::RETRY_AFTER));

    let mut there = There::new(Weather::Throttling, 0);
    // Above the rate: so many at once.
    let before = clock::now();
    for _ in 0..=(Script::THROTTLES_ABOVE * RATE_OVER.as_secs_f64()) as u32 {
        there.upstream.shared.arrived(before);
    }
    let throttled = there.until(|response| response.status() == 429).await;
    assert_eq!(throttled.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_hung_request_is_logged_unanswered_once_its_client_has_left() {
    let mut there = There::new(Weather::Hung, 0);
    let waited = tokio::time::timeout(Duration::from_millis(30), there.get()).await;
    assert!(waited.is_err());
    while there.upstream.shared.log.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let log = there.stop().await;
    assert_eq!((log.len(), log[0].status), (1, None));
}

#[tokio::test]
async fn in_an_outage_connections_are_cut_and_refused_and_the_port_comes_back() {
    let mut there = There::new(Weather::Outage, -40);
    there.get().await.unwrap().into_body().collect().await.unwrap();
    let outage = there.course.script.phase(Weather::Outage);
    // First a connection is cut, if a request is on it; then none is to be had.
    loop {
        let error = there
            .get()
            .await
            .err()
            .map(|error| *error.downcast::<hyper_util::client::legacy::Error>().unwrap());
        if error.is_some_and(|error| error.is_connect()) {
            break;
        }
        assert!(there.course.since_start(clock::now()) < outage.until);
    }

    sleep_until((there.course.start + outage.until).into()).await;
    let until = clock::now() + REBIND;
    while there.get().await.is_err() {
        assert!(clock::now() < until);
        sleep(Duration::from_millis(1)).await;
    }
}
