//! The deadline of a request: who sets it, and what happens when it passes.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Channel};
use portcullis::{
    Call, Elapsed, Phase, clock,
    inbound::{InboundBuilder, InboundLayer},
};

use crate::fakes::{MS, Text, answer, grpc, request, serve};

fn shop() -> InboundBuilder {
    InboundLayer::builder("shop").timeout_header(HeaderName::from_static("x-timeout-ms"))
}

/// The time left that a handler sees.
async fn left(shop: InboundBuilder, request: Request<Text>) -> Option<Duration> {
    let seen = Cell::new(None);
    let layer = shop.build().unwrap();
    let response = serve(&layer, request, || async {
        seen.set(Call::current().remaining(clock::now()));
        answer(200, Text::default())
    })
    .await;
    assert_eq!(response.status(), 200);
    seen.get()
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_the_time_that_the_request_says_or_the_default_and_never_more_than_the_most()
{
    let ms = |number| Some(Duration::from_millis(number));
    let bounded = || shop().default_timeout(2_000 * MS).max_timeout(5_000 * MS);
    for (expected, shop, request) in [
        (None, shop(), request(&[])),
        (ms(1_500), shop(), request(&[("x-timeout-ms", "1500")])),
        (ms(700), shop(), grpc(&[("grpc-timeout", "700m")])),
        (ms(500), shop(), grpc(&[("grpc-timeout", "700m"), ("x-timeout-ms", "500")])),
        (None, shop(), request(&[("grpc-timeout", "700m")])),
        (None, InboundLayer::builder("shop"), request(&[("x-timeout-ms", "500")])),
        (ms(2_000), bounded(), request(&[])),
        (ms(3_000), bounded(), request(&[("x-timeout-ms", "3000")])),
        (ms(5_000), bounded(), request(&[("x-timeout-ms", "60000")])),
        (ms(5_000), shop().max_timeout(5_000 * MS), request(&[])),
        (ms(5_000), bounded(), grpc(&[("grpc-timeout", "99999999H")])),
    ] {
        let headers = request.headers().clone();
        assert_eq!(left(shop, request).await, expected, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_limits_are_as_if_absent_and_absurd_ones_are_as_long_as_can_be() {
    for bad in ["", "soon", "-1", "1.5", "5s", "0x5", "1 2", "\u{666}", "184467440737095516160x"] {
        assert_eq!(left(shop(), request(&[("x-timeout-ms", bad)])).await, None, "{bad}");
        assert_eq!(left(shop(), grpc(&[("grpc-timeout", bad)])).await, None, "{bad}");
    }
    let year = Duration::from_secs(365 * 86_400);
    for absurd in [
        grpc(&[("grpc-timeout", "99999999H")]),
        request(&[("x-timeout-ms", "18446744073709551615")]),
        request(&[("x-timeout-ms", "99999999999999999999999999999999")]),
    ] {
        assert!(left(shop(), absurd).await.unwrap() > year);
    }
    // The timer for such a limit is made, too.
    let absurd = grpc(&[("grpc-timeout", "99999999H")]);
    let response = serve(&shop().build().unwrap(), absurd, || async {
        tokio::time::sleep(1_000 * MS).await;
        answer(200, Text::default())
    });
    assert_eq!(response.await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_scope_around_it_is_only_shortened() {
    let outer = Call::new().with_deadline(clock::now() + 1_000 * MS);
    for (asked, expected) in [("400", 400), ("4000", 1_000)] {
        let seen = outer.clone().in_scope(left(shop(), request(&[("x-timeout-ms", asked)])));
        assert_eq!(seen.await, Some(Duration::from_millis(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_is_refused_and_not_handled() {
    let layer = shop().build().unwrap();
    let never = || async { panic!("it was handled") };
    let late = request(&[("x-timeout-ms", "0")]);
    let response = serve::<_, _, Text>(&layer, late, never).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());

    let late = grpc(&[("grpc-timeout", "0n")]);
    let response = serve::<_, _, Text>(&layer, late, never).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-message"], "shop: inherited limit of 0ns ran out");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_before_the_head_drops_the_handler_and_is_answered() {
    struct Dropped(Rc<Cell<Option<(Instant, bool)>>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let in_scope = Call::current().deadline().is_some();
            self.0.set(Some((clock::now(), in_scope)));
        }
    }

    let dropped = Rc::new(Cell::new(None));
    let start = clock::now();
    let guard = Dropped(dropped.clone());
    let layer = shop().build().unwrap();
    let response =
        serve::<_, _, Text>(&layer, request(&[("x-timeout-ms", "250")]), || async move {
            let _guard = guard;
            std::future::pending().await
        })
        .await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(dropped.get(), Some((start + 250 * MS, true)));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_answers_at_the_deadline_has_the_word() {
    let layer = shop().build().unwrap();
    let response = serve(&layer, request(&[("x-timeout-ms", "250")]), || async {
        // What a call that gave up at the same moment leaves it.
        tokio::time::sleep(250 * MS).await;
        answer(200, Text::from("from the cache"))
    })
    .await;
    assert_eq!(response.status(), 200);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "from the cache");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_begins_at_the_deadline_ends_where_it_would_go_on() {
    let layer = shop().default_timeout(400 * MS).build().unwrap();
    for asked in [request(&[]), grpc(&[])] {
        let start = clock::now();
        let (mut sender, body) = Channel::<Bytes>::new(2);
        for text in ["what is there", ", whole"] {
            sender.send_data(Bytes::from(text)).await.unwrap();
        }
        let says_it_by_trailers = *asked.method() == http::Method::POST;
        let response = serve(&layer, asked, || async {
            tokio::time::sleep(400 * MS).await;
            answer(200, body)
        });
        let mut body = response.await.into_body();
        let mut text = Vec::new();
        let end = loop {
            match body.frame().await.unwrap() {
                Ok(frame) if frame.is_data() => text.extend(frame.into_data().unwrap()),
                other => break other,
            }
        };
        assert_eq!(text, b"what is there, whole");
        assert_eq!(end.is_ok(), says_it_by_trailers);
        match end {
            Ok(frame) => assert_eq!(frame.trailers_ref().unwrap()["grpc-status"], "4"),
            Err(error) => assert_eq!(error.to_string(), "shop: total limit of 400ms ran out"),
        }
        assert!(clock::now() <= start + 401 * MS);
        drop(sender);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_later_ends_the_body() {
    let layer = shop().default_timeout(400 * MS).build().unwrap();
    let start = clock::now();
    let (_sender, body) = Channel::<Bytes>::new(1);
    let response = serve(&layer, request(&[]), || async { answer(200, body) }).await;
    let error = response.into_body().collect().await.unwrap_err();
    let elapsed = error.find::<Elapsed>().unwrap();
    assert_eq!((elapsed.phase(), elapsed.limit()), (Phase::Total, 400 * MS));
    assert_eq!(error.to_string(), "shop: total limit of 400ms ran out");
    assert_eq!(clock::now(), start + 400 * MS);

    let (_sender, body) = Channel::<Bytes>::new(1);
    let response = serve(&layer, grpc(&[]), || async { answer(200, body) }).await;
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "4");
}

#[tokio::test(start_paused = true)]
async fn without_refusals_the_deadline_is_known_and_nothing_is_cut() {
    let layer = shop().without_refusals().build().unwrap();
    for asked in ["0", "250"] {
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let response = serve(&layer, request(&[("x-timeout-ms", asked)]), || async {
            assert!(Call::current().deadline().is_some());
            tokio::time::sleep(500 * MS).await;
            answer(200, body)
        });
        let response = response.await;
        assert_eq!(response.status(), 200);
        let sending = async {
            tokio::time::sleep(500 * MS).await;
            sender.send_data(Bytes::from("late")).await.unwrap();
            drop(sender);
        };
        let (_, collected) = tokio::join!(sending, response.into_body().collect());
        assert_eq!(collected.unwrap().to_bytes(), "late");
    }
}
