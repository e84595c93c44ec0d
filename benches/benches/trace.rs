//! What recording a call costs: alone, and with a whole stack inside.

mod inner;

use std::{
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::{
    ByClone, Event,
    breaker::{BreakerLayer, Window},
    call::with,
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use portcullis_trace::{Recorder, TraceLayer, TraceScope};
use tower::{Layer, Service, ServiceBuilder};

use self::inner::{AtOnce, call};

const LIMIT: Duration = Duration::from_secs(30);

fn measure<S: Service<()>>(c: &mut Criterion, name: &str, mut service: S) {
    c.bench_function(name, |b| b.iter(|| call(&mut service, ())));
}

macro_rules! stack {
    () => {
        ServiceBuilder::new()
            .layer(TimeoutLayer::total("bench", LIMIT).expect("valid"))
            .layer(RetryLayer::builder("bench", ByClone::idempotent()).build().expect("valid"))
            .layer(
                BreakerLayer::builder("bench").window(Window::Time(LIMIT)).build().expect("valid"),
            )
            .layer(TimeoutLayer::attempt("bench", LIMIT).expect("valid"))
            .service(AtOnce)
    };
}

fn recorder(rate: f64) -> Recorder {
    Recorder::builder().sample_rate(rate).build().expect("valid")
}

fn traced(recorder: &Recorder) -> TraceLayer {
    TraceLayer::builder("bench").recorder(recorder).build().expect("valid")
}

fn trace(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let _entered = runtime.as_ref().expect("a runtime").enter();

    measure(c, "stack", stack!());
    c.bench_function("stack, told to an observer that does nothing", |b| {
        let mut service = stack!();
        let call_it = with().observe(|_: &Event<'_>| {}).run(async {
            b.iter(|| call(&mut service, ()));
        });
        assert!(pin!(call_it).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    let none = recorder(0.0);
    measure(c, "trace alone, not kept", traced(&none).layer(AtOnce));
    measure(c, "trace and stack, not kept", traced(&none).layer(stack!()));
    let usual = recorder(0.1);
    measure(c, "trace and stack, a tenth kept", traced(&usual).layer(stack!()));
    let all = recorder(1.0);
    measure(c, "trace and stack, all kept or dropped", traced(&all).layer(stack!()));

    let layer = traced(&none);
    c.bench_function("a scope of ten calls, with stack, not kept", |b| {
        let mut service = layer.layer(stack!());
        b.iter(|| {
            let scope = TraceScope::start("bench").recorder(&none).run(async {
                for _ in 0..10 {
                    call(&mut service, ());
                }
            });
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(scope).poll(&mut cx).is_ready());
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = trace
}
criterion_main!(benches);
