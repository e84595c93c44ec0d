//! What callers do with the error, at every height of a stack.

use std::{error::Error as StdError, time::Duration};

use portcullis::{
    BoxError, ByClone, Elapsed, Error, Phase, RejectionKind,
    breaker::{BreakerLayer, Open},
    find_rejection,
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Reply, SOON, Upstream, build, client, stack};

#[tokio::test]
async fn a_question_mark_takes_it_into_what_people_use() {
    async fn anyhow() -> anyhow::Result<()> {
        let upstream = Upstream::always(Reply::Hang).await;
        let stack = stack().attempt(|timeout| timeout.attempt(SOON)).build()?;
        stack.without_retry().layer(client()).oneshot(upstream.get("/")).await?;
        Ok(())
    }
    async fn boxed() -> Result<(), Box<dyn StdError>> {
        let stack = build(stack());
        stack.breaker().handles().get_or_create("").force_open();
        stack.layer(client()).oneshot(Default::default()).await?;
        Ok(())
    }
    async fn boxed_send() -> Result<(), BoxError> {
        let stack = build(stack());
        stack.breaker().handles().get_or_create("").force_open();
        stack.layer(client()).oneshot(Default::default()).await?;
        Ok(())
    }
    let error = anyhow().await.unwrap_err();
    let elapsed = error.downcast_ref::<Error>().unwrap().find::<Elapsed>().unwrap();
    assert_eq!(elapsed.phase(), Phase::Attempt);
    assert_eq!(
        find_rejection(boxed().await.unwrap_err().as_ref()).unwrap().kind(),
        RejectionKind::Open
    );
    assert!(boxed_send().await.unwrap_err().downcast::<Error>().unwrap().is::<Open>());
}

#[tokio::test]
async fn layers_compose_in_any_order_over_any_service() {
    let timeout = || TimeoutLayer::total("t", Duration::from_secs(1)).unwrap();
    let retry = || RetryLayer::builder("r", ByClone::idempotent()).build().unwrap();
    let breaker = || BreakerLayer::builder("b").build().unwrap();
    let inner = || service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) });
    let infallible =
        || service_fn(|n: u32| async move { Ok::<_, std::convert::Infallible>(n + 1) });

    macro_rules! orders {
        ($inner:expr; $([$a:expr, $b:expr, $c:expr]),*) => {
            [$(ServiceBuilder::new().layer($a).layer($b).layer($c).service($inner).oneshot(1).await),*]
        };
    }
    let answers: [Result<u32, Error>; 6] = orders![inner();
        [timeout(), retry(), breaker()], [timeout(), breaker(), retry()],
        [retry(), timeout(), breaker()], [retry(), breaker(), timeout()],
        [breaker(), timeout(), retry()], [breaker(), retry(), timeout()]];
    assert!(answers.iter().all(|answer| matches!(answer, Ok(2))));
    let answers = orders![infallible(); [timeout(), retry(), breaker()]];
    assert!(matches!(answers, [Ok(2)]));
}
