//! What is kept.

use std::time::Duration;

use portcullis_core::TraceId;
use portcullis_retry::{Backoff, RetryLayer};
use portcullis_testkit::{ScriptedService, Seed, Step, TestError, call as send};
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::{
    Kept, Query, Recorder, Sampler, Status, Summary, TraceConfig, TraceLayer, TraceScope,
};
use tower_layer::Layer;

use crate::fakes::{Inner, MS, SECOND, answering, keep, stored};

fn sampler(rate: f64) -> Sampler {
    let mut config = TraceConfig::default();
    config.sample_rate = rate;
    Sampler::new(&config).unwrap()
}

#[test]
fn the_share_is_what_it_should_be_within_its_statistical_bound() {
    const DRAWS: u32 = 100_000;
    let mut seed = Seed::new(11);
    for rate in [0.0, 0.001, 0.1, 0.5, 1.0] {
        let sampler = sampler(rate);
        let id = |seed: &mut Seed| {
            TraceId::new(u128::from(seed.next_u64()) << 64 | u128::from(seed.next_u64()))
        };
        let kept = (0..DRAWS).filter(|_| sampler.is_of_the_share(id(&mut seed).unwrap())).count();
        let expected = f64::from(DRAWS) * rate;
        // Four standard deviations of a binomial.
        let bound = 4.0 * (expected * (1.0 - rate)).sqrt();
        assert!((kept as f64 - expected).abs() <= bound, "{rate}: {kept}, {expected} ± {bound}");
    }
}

#[test]
fn a_share_of_none_has_not_even_the_lowest_id_and_a_share_of_all_has_the_highest() {
    // Of all that is random in it nothing is set, and everything.
    let lowest = TraceId::new(1 << 64).unwrap();
    let highest = TraceId::new(u128::MAX).unwrap();
    assert!(!sampler(0.0).is_of_the_share(lowest));
    assert!(sampler(1e-15).is_of_the_share(lowest));
    assert!(sampler(1.0).is_of_the_share(highest));
    assert!(!sampler(0.999_999).is_of_the_share(highest));
}

#[test]
fn every_process_decides_alike_by_the_id_and_a_larger_share_holds_the_smaller() {
    let mut seed = Seed::new(12);
    let (small, large) = (sampler(0.1), sampler(0.2));
    for _ in 0..10_000 {
        let low = u128::from(seed.next_u64());
        let (Some(a), Some(b)) = (TraceId::new(low), TraceId::new(low | 1 << 100)) else {
            continue;
        };
        assert_eq!(small.is_of_the_share(a), small.is_of_the_share(b));
        assert!(!small.is_of_the_share(a) || large.is_of_the_share(a));
    }
}

#[test]
fn whatever_is_remarkable_is_kept_at_a_rate_of_one() {
    let sampler = sampler(0.0);
    let usual = Summary::new(TraceId::new(1).unwrap(), SECOND);
    let remarkable = |change: fn(&mut Summary)| {
        let mut summary = usual;
        change(&mut summary);
        sampler.keeps(&summary)
    };
    assert_eq!(sampler.keeps(&usual), None);
    assert_eq!(remarkable(|it| it.failed = true), Some(Kept::Failed));
    assert_eq!(remarkable(|it| it.retried = true), Some(Kept::Retried));
    assert_eq!(remarkable(|it| it.slow = true), Some(Kept::Slow));
    assert_eq!(remarkable(|it| it.duration = 10 * SECOND), Some(Kept::Slow));
    assert_eq!(remarkable(|it| it.duration = 10 * SECOND - Duration::from_nanos(1)), None);
    for kept in [Kept::Failed, Kept::Retried, Kept::Slow] {
        assert!((sampler.rate(kept) - 1.0).abs() < f64::EPSILON);
    }
    assert!((sampler.rate(Kept::Share)).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn all_that_failed_was_slow_or_retried_is_there_and_the_rate_stands_beside_it() {
    let recorder = Recorder::builder().sample_rate(0.0).slow(2 * SECOND).build().unwrap();
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    let retry = RetryLayer::builder("r", keep()).backoff(Backoff::fixed(MS)).build().unwrap();
    let timeout = TimeoutLayer::builder("t").slow(SECOND).build().unwrap();

    send(&mut layer.layer(answering([200])), "unremarkable").await.unwrap();
    send(&mut layer.layer(answering([0])), "failed").await.unwrap_err();
    send(&mut layer.layer(retry.layer(answering([0, 200]))), "retried").await.unwrap();
    let slow = |by: Duration| -> Inner {
        ScriptedService::respond_with(move |_, _| Step::<_, TestError>::Ok(200).after(by))
    };
    send(&mut layer.layer(slow(2 * SECOND)), "slow").await.unwrap();
    send(&mut layer.layer(timeout.layer(slow(SECOND))), "slow by a layer's word").await.unwrap();

    let kept: Vec<_> = stored(&recorder).await.iter().map(|t| (t.kept, t.sampling_rate)).collect();
    assert_eq!(
        kept,
        [(Kept::Failed, 1.0), (Kept::Retried, 1.0), (Kept::Slow, 1.0), (Kept::Slow, 1.0)]
    );
    let counts = recorder.counts();
    assert_eq!((counts.seen, counts.kept, counts.stored), (5, 4, 4));
}

#[tokio::test]
async fn a_share_of_successes_is_kept_and_counted() {
    let recorder = Recorder::builder().sample_rate(0.1).build().unwrap();
    let inner: Inner = ScriptedService::answering(200);
    let mut client = TraceLayer::builder("c").recorder(&recorder).build().unwrap().layer(inner);
    for _ in 0..2000 {
        send(&mut client, "x").await.unwrap();
    }
    recorder.flush().await;
    let counts = recorder.counts();
    assert_eq!(counts.seen, 2000);
    assert_eq!(counts.stored + counts.dropped_successes, counts.kept);
    // Random ids: seven standard deviations.
    assert!((106..=294).contains(&counts.kept), "{counts:?}");
    let page = recorder.store().query(&Query::new().status(Status::Success)).unwrap();
    assert!(page.traces.iter().all(|t| t.kept == Kept::Share && t.sampling_rate == 0.1));
}

#[tokio::test]
async fn the_flag_sent_on_says_what_will_be_kept() {
    let recorder = Recorder::builder().sample_rate(0.5).build().unwrap();
    for _ in 0..50 {
        let scope = TraceScope::start("s").recorder(&recorder);
        let sampled = scope.run(async { portcullis_core::Call::current().trace().unwrap() }).await;
        recorder.flush().await;
        let kept = !recorder.store().get(sampled.trace_id).unwrap().is_empty();
        assert_eq!(sampled.sampled, kept);
    }
}

#[test]
fn settings_out_of_range_are_named() {
    type Change = fn(&mut TraceConfig);
    let wrong: [(&str, Change); 11] = [
        ("sample_rate", |c| c.sample_rate = 1.5),
        ("sample_rate", |c| c.sample_rate = f64::NAN),
        ("slow", |c| c.slow = Some(Duration::ZERO)),
        ("max_calls", |c| c.max_calls = 0),
        ("max_events", |c| c.max_events = 1001),
        ("max_text", |c| c.max_text = 1_000_000),
        ("max_name", |c| c.max_name = 7),
        ("queue", |c| c.queue = 0),
        ("queue_bytes", |c| c.queue_bytes = 1 << 10),
        ("queue_bytes", |c| c.queue_bytes = 1 << 40),
        ("batch_interval", |c| c.batch_interval = 61 * SECOND),
    ];
    for (field, change) in wrong {
        let mut config = TraceConfig::default();
        change(&mut config);
        assert_eq!(Recorder::builder().config(config).build().unwrap_err().field(), field);
    }
    assert!(TraceConfig::default().validate().is_ok());
}

#[cfg(feature = "serde")]
#[test]
fn settings_read_from_files() {
    let config: TraceConfig =
        serde_json::from_str(r#"{"sample_rate": 0.5, "slow": "2s"}"#).unwrap();
    assert_eq!((config.sample_rate, config.slow), (0.5, Some(2 * SECOND)));
    assert_eq!(config.max_text, 500);
    assert!(serde_json::from_str::<TraceConfig>(r#"{"rate": 0.5}"#).is_err());
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<TraceConfig>(&text).unwrap(), config);
}
