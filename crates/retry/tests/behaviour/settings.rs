//! Settings and their ranges.

use std::time::Duration;

use portcullis_retry::{
    Backoff, BudgetConfig, Jitter, OperationConfig, Policy, RetryConfig, Throttling,
    ThrottlingConfig,
};

use crate::fakes::{SECOND, builder};

fn refused(change: impl FnOnce(&mut RetryConfig)) -> &'static str {
    let mut config = RetryConfig::default();
    change(&mut config);
    let invalid = builder().config(config).build().unwrap_err();
    invalid.field()
}

fn refused_budget(change: impl FnOnce(&mut BudgetConfig)) -> &'static str {
    let mut budget = BudgetConfig::default();
    change(&mut budget);
    let invalid = builder().budget(budget).build().unwrap_err();
    assert_eq!(portcullis_retry::Budget::new(budget).unwrap_err(), invalid);
    invalid.field()
}

#[test]
fn what_is_out_of_its_range_is_named() {
    let day = SECOND * 86_400;
    let longer = day + Duration::from_nanos(1);
    assert_eq!(refused(|c| c.max_attempts = 0), "max_attempts");
    assert_eq!(refused(|c| c.max_hint = longer), "max_hint");
    assert_eq!(refused(|c| c.backoff = Backoff::fixed(longer)), "backoff.delay");
    for backoff in [
        Backoff::exponential(Duration::ZERO, day),
        Backoff::exponential(SECOND * 2, SECOND),
        Backoff::decorrelated(Duration::ZERO, day),
    ] {
        assert_eq!(refused(|c| c.backoff = backoff), "backoff.initial");
    }
    let too_long = Backoff::decorrelated(SECOND, longer);
    assert_eq!(refused(|c| c.backoff = too_long), "backoff.max");
    for multiplier in [0.0, -0.5, f64::NAN, f64::INFINITY] {
        let backoff = Backoff::Exponential { initial: SECOND, multiplier, max: SECOND };
        assert_eq!(refused(|c| c.backoff = backoff), "backoff.multiplier");
    }
    for fraction in [-0.1, 1.1, f64::NAN] {
        let jitter = Jitter::Fraction(fraction);
        assert_eq!(refused(|c| c.jitter = jitter), "jitter.fraction");
        let jitter = Jitter::Around(fraction);
        assert_eq!(refused(|c| c.jitter = jitter), "jitter.around");
    }
    assert_eq!(refused_budget(|b| b.capacity = 0), "budget.capacity");
    assert_eq!(refused_budget(|b| b.capacity = 1_001), "budget.capacity");
    assert_eq!(refused_budget(|b| b.ratio = 1.01), "budget.ratio");
    assert_eq!(refused_budget(|b| b.ratio = f64::NAN), "budget.ratio");
    assert_eq!(refused_budget(|b| b.reserve = -1.0), "budget.reserve");
    assert_eq!(refused_budget(|b| b.reserve = 100.1), "budget.reserve");

    for (tokens, ratio, field) in [
        (0, 0.1, "throttling.max_tokens"),
        (1_001, 0.1, "throttling.max_tokens"),
        (10, 0.0, "throttling.token_ratio"),
        (10, 0.0009, "throttling.token_ratio"),
        (10, -1.0, "throttling.token_ratio"),
        (10, f64::NAN, "throttling.token_ratio"),
        (10, f64::INFINITY, "throttling.token_ratio"),
    ] {
        let throttling = ThrottlingConfig::new(tokens, ratio);
        assert_eq!(refused(|c| c.throttling = Some(throttling)), field);
        assert_eq!(Throttling::new(throttling).unwrap_err().field(), field);
    }

    let twice = OperationConfig::new().with_max_attempts(0);
    let invalid = builder().operation("search", twice).build().unwrap_err();
    assert_eq!(invalid.to_string(), "operation `search`: max_attempts is 0, allowed is at least 1");
    let backwards = OperationConfig::new().with_backoff(Backoff::exponential(day, SECOND));
    assert_eq!(
        refused(|c| c.operations.extend([("search".to_owned(), backwards)])),
        "backoff.initial"
    );

    let custom = builder().backoff_fn(longer, |_| SECOND).build();
    assert_eq!(custom.unwrap_err().field(), "backoff.max");
}

#[test]
fn a_policy_says_how_long_its_waits_can_be() {
    let mut config = RetryConfig::default();
    config.max_hint = SECOND * 7;
    for (backoff, longest) in [
        (Backoff::fixed(SECOND * 2), SECOND * 2),
        (Backoff::exponential(SECOND, SECOND * 30), SECOND * 30),
        (Backoff::decorrelated(SECOND, SECOND * 20), SECOND * 20),
    ] {
        config.backoff = backoff;
        let policy = Policy::new(&config).unwrap();
        assert_eq!((policy.max_hint(), policy.longest_backoff()), (SECOND * 7, longest));
    }
}

#[test]
fn a_layer_has_a_budget_or_throttling_and_the_last_word_counts() {
    let throttling = ThrottlingConfig::new(10, 0.1);
    let of = |builder: portcullis_retry::RetryBuilder<_>| {
        let layer = builder.build().unwrap();
        (layer.budget().is_some(), layer.throttling().is_some())
    };
    let budget = BudgetConfig::default;
    assert_eq!(of(builder()), (true, false));
    assert_eq!(of(builder().throttling(throttling)), (false, true));
    assert_eq!(of(builder().throttling(throttling).budget(budget())), (true, false));
    assert_eq!(of(builder().throttling(throttling).no_budget()), (false, false));
    let shared = Throttling::new(throttling).unwrap();
    assert_eq!(of(builder().shared_throttling(shared.clone())), (false, true));
    assert_eq!(of(builder().shared_throttling(shared.clone()).budget(budget())), (true, false));
    let own = portcullis_retry::Budget::new(budget()).unwrap();
    assert_eq!(of(builder().shared_throttling(shared).shared_budget(own)), (true, false));
}

#[test]
fn defaults_are_what_the_docs_say() {
    let config = RetryConfig::default();
    assert_eq!(config.max_attempts, 3);
    assert_eq!(config.backoff, Backoff::exponential(SECOND, SECOND * 30));
    assert_eq!(config.jitter, Jitter::Full);
    assert_eq!(config.max_hint, SECOND * 60);
    let budget = config.budget.unwrap();
    assert_eq!((budget.capacity, budget.ratio, budget.reserve), (100, 0.2, 1.0));
}

#[test]
fn the_waits_that_settings_allow_are_known_beforehand() {
    let waits = |backoff, jitter| {
        let mut config = RetryConfig::default();
        (config.backoff, config.jitter, config.max_hint) = (backoff, jitter, SECOND * 60);
        let layer = builder().config(config).build().unwrap();
        let waits = layer.policy().waits().take(3);
        waits
            .map(|w| (w.shortest, w.longest, w.hinted))
            .map(|(a, b, c)| (a.as_millis(), b.as_millis(), c.as_millis()))
            .collect::<Vec<_>>()
    };
    let doubling = Backoff::exponential(SECOND, SECOND * 3);
    assert_eq!(
        waits(doubling, Jitter::Full),
        [(0, 1_000, 61_000), (0, 2_000, 62_000), (0, 3_000, 63_000)]
    );
    assert_eq!(
        waits(doubling, Jitter::None),
        [(1_000, 1_000, 60_000), (2_000, 2_000, 60_000), (3_000, 3_000, 60_000)]
    );
    // Each is drawn from what the one before was: the longest, from the longest.
    assert_eq!(
        waits(Backoff::decorrelated(SECOND, SECOND * 20), Jitter::Full),
        [(1_000, 3_000, 62_000), (1_000, 9_000, 68_000), (1_000, 20_000, 80_000)]
    );
}

#[cfg(feature = "serde")]
mod files {
    use super::*;

    fn read(text: &str) -> Result<RetryConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_takes_its_default() {
        assert_eq!(read("{}").unwrap(), RetryConfig::default());
        let config = read(
            r#"{ "backoff": { "exponential": { "initial": "250ms" } }, "jitter": { "fraction": 0.25 },
                 "max_hint": "2m", "budget": { "capacity": 10 },
                 "operations": { "search": { "max_attempts": 1, "jitter": { "around": 0.2 } } } }"#,
        );
        let mut expected = RetryConfig::default();
        expected.backoff = Backoff::exponential(SECOND / 4, SECOND * 30);
        expected.jitter = Jitter::Fraction(0.25);
        expected.max_hint = SECOND * 120;
        let search = OperationConfig::new().with_max_attempts(1).with_jitter(Jitter::Around(0.2));
        expected.operations.insert("search".to_owned(), search);
        expected.budget = Some(BudgetConfig::default()).map(|mut budget| {
            budget.capacity = 10;
            budget
        });
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn a_budget_can_be_switched_off() {
        for off in [r#""off""#, "null"] {
            let config = read(&format!(r#"{{ "budget": {off} }}"#)).unwrap();
            assert_eq!(config.budget, None);
        }
        let neither = read(r#"{ "budget": false }"#).unwrap_err();
        assert!(neither.contains(r#"expected a setting, or "off""#), "{neither}");
    }

    #[test]
    fn unknown_fields_are_errors_that_name_them() {
        for text in [
            r#"{ "retries": 3 }"#,
            r#"{ "backoff": { "exponential": { "retries": 1 } } }"#,
            r#"{ "budget": { "retries": 1 } }"#,
            r#"{ "operations": { "search": { "retries": 1 } } }"#,
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("unknown field `retries`"), "{error}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let mut config = RetryConfig::default();
        config.backoff = Backoff::decorrelated(SECOND / 3, SECOND * 7);
        config.jitter = Jitter::Equal;
        config.throttling = Some(ThrottlingConfig::new(10, 0.1));
        let hint = OperationConfig::new().with_max_hint(SECOND * 3);
        config.operations.insert("search".to_owned(), hint.with_backoff(Backoff::fixed(SECOND)));
        for budget in [None, Some(BudgetConfig::default())] {
            config.budget = budget;
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(read(&text).unwrap(), config, "{text}");
        }
    }
}
