//! What a gRPC request says of its call, in a server whose handlers call out.

use std::convert::Infallible;

use http::Request;
use portcullis::{
    Call, Elapsed, call as ordering,
    http::GrpcCallLayer,
    inbound::InboundLayer,
    timeout::{Limits, TimeoutLayer},
    trace::TraceLayer,
};
use portcullis_testkit::{ScriptedService, Step, call};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::fakes::{MS, Text, answer, grpc, one, recorder};

const METHOD: &str = "shop.v1.Carts/Add";

/// Limits of which the method's own is the shorter one.
fn limits(name: &str) -> TimeoutLayer {
    let short = Limits::new().with_total(5 * MS);
    TimeoutLayer::builder(name).total(1_000 * MS).operation(METHOD, short).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_method_that_is_served_is_no_name_of_the_calls_that_its_handler_makes() {
    let recorder = recorder();
    let inner: ScriptedService<(), u16> =
        ScriptedService::respond_with(|(), _| Step::Ok(200).after(10 * MS));
    let stock = TraceLayer::builder("stock").recorder(&recorder).build().unwrap();
    let stock = stock.layer(limits("stock").layer(inner));
    let handler = service_fn(|_: Request<Text>| {
        let mut stock = stock.clone();
        async move {
            let bare = call(&mut stock, ()).await;
            let ordered = ordering::with().no_retry().run(call(&mut stock, ())).await;
            let named = ordering::with().name(METHOD).run(call(&mut stock, ())).await;
            assert_eq!((bare.unwrap(), ordered.unwrap()), (200, 200));
            assert!(named.unwrap_err().is::<Elapsed>(), "the caller's word");
            Ok::<_, Infallible>(answer(200, Text::default()))
        }
    });
    let inbound = InboundLayer::builder("shop").recorder(&recorder).build().unwrap();
    let server = ServiceBuilder::new().layer(inbound).layer(GrpcCallLayer::new()).service(handler);
    drop(server.oneshot(grpc(&[])).await);

    let trace = one(&recorder).await;
    let operations: Vec<_> = trace.calls.iter().map(|call| call.operation.as_deref()).collect();
    assert_eq!((&*trace.name, operations), (METHOD, vec![None, None, Some(METHOD)]));
}

#[tokio::test(start_paused = true)]
async fn the_layers_of_the_server_know_the_method_that_is_served() {
    let handler = service_fn(|_: Request<Text>| async {
        tokio::time::sleep(10 * MS).await;
        Ok::<_, Infallible>(answer(200, Text::default()))
    });
    let server =
        ServiceBuilder::new().layer(GrpcCallLayer::new()).layer(limits("shop")).service(handler);
    let error = server.oneshot(grpc(&[])).await.unwrap_err();
    assert_eq!(error.find::<Elapsed>().unwrap().limit(), 5 * MS);
}

#[tokio::test]
async fn a_timeout_that_is_there_twice_is_as_if_absent_whoever_reads_it() {
    let asked = || {
        let mut request = grpc(&[]);
        for value in ["1S", "2S"] {
            request.headers_mut().append("grpc-timeout", http::HeaderValue::from_static(value));
        }
        request
    };
    let seen = || {
        service_fn(|_: Request<Text>| {
            assert_eq!(Call::current().deadline(), None);
            std::future::ready(Ok::<_, Infallible>(answer(200, Text::default())))
        })
    };
    assert_eq!(InboundLayer::new().layer(seen()).oneshot(asked()).await.unwrap().status(), 200);
    assert_eq!(GrpcCallLayer::new().layer(seen()).oneshot(asked()).await.unwrap().status(), 200);
}
