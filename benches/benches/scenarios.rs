//! Every scenario under criterion: how its time is spread, and whether it changed since the last run.
//! Compare ratios, not nanoseconds; `cargo xtask compare` shows the peers beside it.

use std::time::Duration;

use benches::scenario;
use criterion::{Criterion, criterion_group, criterion_main};

fn scenarios(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let _entered = runtime.as_ref().expect("a runtime").enter();
    for scenario in scenario::all() {
        let mut work = scenario.set_up();
        c.bench_function(scenario.name, |b| b.iter(&mut work));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = scenarios
}
criterion_main!(benches);
