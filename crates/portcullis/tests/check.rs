//! What a stack says of its own settings, and of the order of layers.

use std::time::Duration;

use portcullis::{
    Finding, HttpStack, Part, Preset, Report, Severity, Stack, StackBuilder,
    breaker::{BreakerLayer, Mode, SlowPhase, Window},
    check_order,
    retry::{Backoff, BudgetConfig, Jitter, RetryBuilder},
    timeout::{Limits, TimeoutLayer},
};

const SECOND: Duration = Duration::from_secs(1);

fn production(set: impl FnOnce(StackBuilder) -> StackBuilder) -> HttpStack {
    set(Stack::production("search")).build().unwrap()
}

fn report(set: impl FnOnce(StackBuilder) -> StackBuilder) -> Report {
    production(set).check()
}

fn find(report: &Report, code: &str) -> Finding {
    report.find(code).unwrap_or_else(|| panic!("no {code} in {report}")).clone()
}

fn warned(set: impl FnOnce(StackBuilder) -> StackBuilder) -> Vec<&'static str> {
    report(set).warnings().map(|finding| finding.code).collect()
}

#[test]
fn presets_give_no_warning_but_that_developments_breaker_only_tells() {
    for (preset, expected) in [
        (Preset::Production, [].as_slice()),
        (Preset::Staging, &[]),
        (Preset::Development, &["breaker-off"]),
    ] {
        let report = StackBuilder::new("search", preset).build().unwrap().check();
        let warnings: Vec<_> = report.warnings().map(|finding| finding.code).collect();
        assert_eq!(warnings, expected, "{preset:?}: {report}");
    }
}

#[test]
fn the_worst_latency_is_the_total_limit_where_attempts_and_waits_may_take_longer() {
    let report = report(|stack| stack);
    assert_eq!((report.to_head, report.to_end), (Some(SECOND * 30), Some(SECOND * 30)));
    // Before the retries: 60 s hints, and full jitter on 100 ms and 200 ms.
    assert_eq!(
        find(&report, "worst-case-latency").why,
        "By themselves 3 × 10s for attempts, 3s of waiting for the rate limit, 120.3s of waiting \
         between them come to 153.3s; the total limit ends it at 30s."
    );
}

#[test]
fn the_worst_latency_without_a_total_limit_is_attempts_and_waits() {
    let stack = production(|stack| {
        stack.retry(|retry| retry.max_hint(Duration::ZERO)).limit(|limit| limit.max_wait(SECOND))
    });
    let report = stack.clone().without_total().check();
    assert_eq!(report.to_end, Some(Duration::from_millis(33_300)));
    assert_eq!(find(&report, "no-total-limit").severity, Severity::Note);
    let report = stack.without_total().without_retry().without_limit().check();
    assert_eq!((report.to_end, report.max_attempts), (Some(SECOND * 10), 1));
}

#[test]
fn a_stream_is_bounded_to_its_head_only() {
    let report = report(|stack| {
        stack
            .total(|total| total.total(Limits::NEVER).head(SECOND * 20).idle(SECOND * 5))
            .attempt(|attempt| attempt.attempt(Limits::NEVER).head(SECOND * 5))
    });
    assert_eq!((report.to_head, report.to_end), (Some(SECOND * 20), None));
    assert_eq!(report.warnings().count(), 0, "{report}");
    assert!(report.to_string().starts_with("search: at most 20s to the head and 3 attempts"));
}

#[test]
fn what_nothing_bounds_is_a_warning() {
    let report = production(|stack| stack).without_total().without_attempt().check();
    assert_eq!(report.to_head, None);
    assert_eq!(find(&report, "unbounded-latency").severity, Severity::Warning);
    assert_eq!(
        warned(|stack| stack.attempt(|one| one.attempt(Limits::NEVER))),
        ["no-attempt-limit"]
    );
}

#[test]
fn the_worst_amplification_is_told_with_the_budget_and_the_rate() {
    let set = report(|stack| stack.limit(|limit| limit.rate(50, SECOND).burst(10)));
    let finding = find(&set, "worst-case-amplification");
    assert_eq!(
        finding.what,
        "One call sends at most 3 requests; in an outage, n calls in t seconds send at most \
         1.2 · n + 100 + 1 · t."
    );
    assert!(finding.why.ends_with("lets no more than 10 + 50 per 1s through."), "{finding}");
    assert!(set.find("no-budget").is_none());

    let open = report(|stack| stack.retry(|retry| retry.no_budget().max_attempts(5)));
    let finding = find(&open, "no-budget");
    assert!(finding.why.contains("gets 5 times the load"), "{finding}");

    let mut config = BudgetConfig::default();
    (config.ratio, config.reserve) = (0.0, 0.0);
    assert_eq!(warned(|stack| stack.retry(|retry| retry.budget(config))), ["budget-runs-dry"]);
    assert!(warned(|stack| stack.retry(|retry| retry.max_attempts(1).no_budget())).is_empty());
}

#[test]
fn an_attempt_limit_that_never_runs_out_is_a_warning_for_operations_too() {
    let short = report(|stack| stack.total(|total| total.total(SECOND * 5)));
    let finding = find(&short, "attempt-beyond-total");
    assert_eq!((finding.severity, finding.part), (Severity::Warning, Part::Attempt));
    assert_eq!(finding.why, "It is 10s, and the total limit ends the call at 5s.");

    let report = report(|stack| {
        stack.total(|total| total.operation("suggest", Limits::new().with_total(SECOND)))
    });
    let finding = find(&report, "attempt-beyond-total");
    assert!(finding.what.contains("of the operation `suggest`"), "{finding}");
    let both = warned(|stack| {
        stack
            .total(|total| total.operation("suggest", Limits::new().with_total(SECOND)))
            .attempt(|one| one.operation("suggest", Limits::new().with_attempt(SECOND / 3)))
    });
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn retries_that_the_total_limit_leaves_no_time_for_are_told() {
    let backoff = Backoff::exponential(SECOND * 20, SECOND * 60);
    let report = report(|stack| {
        stack.retry(|retry| retry.max_attempts(4).backoff(backoff).jitter(Jitter::None))
    });
    let finding = find(&report, "retries-never-fit");
    assert_eq!(finding.what, "Retries 2 to 3 never happen.");
    assert!(finding.why.contains("after 60s at the soonest"), "{finding}");
    // Attempts that take 10 s each leave no room for the first either.
    let finding = find(&report, "timeouts-leave-fewer-attempts");
    assert_eq!(finding.what, "If attempts run into their limit, a call has 1 of its 4 attempts.");
}

#[test]
fn full_jitter_may_always_be_short_and_so_never_rules_a_retry_out() {
    let backoff = Backoff::exponential(SECOND * 20, SECOND * 60);
    let report = report(|stack| stack.retry(|retry| retry.backoff(backoff)));
    assert_eq!(report.warnings().count(), 0, "{report}");
}

#[test]
fn limits_of_the_rate_limit_are_held_against_the_total_one() {
    assert_eq!(
        warned(|stack| stack.limit(|limit| limit.max_wait(SECOND * 30))),
        ["limit-wait-beyond-total"]
    );
    let report = report(|stack| stack);
    let finding = find(&report, "hint-outlasts-wait");
    assert_eq!(
        finding.why,
        "A hint holds for up to 60s, and a call waits no longer than 1s for its turn. A refused \
         attempt is made again if that takes 5s or less."
    );
    assert_eq!(find(&report, "hint-beyond-total").part, Part::Retry);
}

#[test]
fn thresholds_of_the_breaker_that_cannot_be_reached_are_told() {
    let report = report(|stack| {
        stack
            .limit(|limit| limit.rate(1, SECOND * 10).burst(2))
            .breaker(|breaker| breaker.window(Window::Time(SECOND * 60)).minimum_calls(9))
    });
    let finding = find(&report, "minimum-calls-out-of-reach");
    assert_eq!(
        finding.why,
        "minimum_calls is 9, and in a window of 60s the rate limit lets at most 8 through: 2 + 1 \
         per 10s."
    );
    assert!(report.find("breaker-never-trips").is_none());

    let reached = warned(|stack| {
        stack
            .limit(|limit| limit.rate(1, SECOND * 10).burst(2))
            .breaker(|breaker| breaker.window(Window::Time(SECOND * 60)).minimum_calls(8))
    });
    assert!(reached.is_empty(), "{reached:?}");
    // A window of calls gathers them however slowly they come.
    let counted = warned(|stack| {
        stack
            .limit(|limit| limit.rate(1, SECOND * 10).burst(2))
            .breaker(|breaker| breaker.window(Window::Count(50)))
    });
    assert!(counted.is_empty(), "{counted:?}");
}

#[test]
fn a_slow_threshold_beyond_the_limit_is_told() {
    let slow = |threshold: Duration, phase| {
        warned(move |stack| {
            stack.breaker(|breaker| {
                breaker.slow_rate(0.5).slow_threshold(threshold).slow_phase(phase)
            })
        })
    };
    assert_eq!(slow(SECOND * 10, SlowPhase::Head), ["slow-beyond-limit"]);
    assert!(slow(SECOND * 9, SlowPhase::Total).is_empty());
    let attempt = TimeoutLayer::builder("mine").attempt(SECOND * 40).slow(SECOND * 30);
    let report = production(|stack| stack).with_attempt(attempt.build().unwrap()).check();
    assert!(report.find("slow-beyond-total").is_some(), "{report}");
}

#[test]
fn a_breaker_that_never_trips_or_never_closes_is_told() {
    assert_eq!(
        warned(|stack| stack.breaker(|b| b.consecutive_failures(None).failure_rate(None))),
        ["breaker-never-trips"]
    );
    let only_slow = warned(|stack| {
        stack.breaker(|breaker| {
            let breaker = breaker.consecutive_failures(None).failure_rate(None);
            breaker.slow_rate(0.5).slow_threshold(SECOND * 20)
        })
    });
    assert_eq!(only_slow, ["slow-beyond-limit", "breaker-never-trips"]);
    for (mode, code) in [
        (Mode::Disabled, "breaker-off"),
        (Mode::ForcedClosed, "breaker-off"),
        (Mode::ForcedOpen, "breaker-forced-open"),
    ] {
        assert_eq!(warned(|stack| stack.breaker(|breaker| breaker.mode(mode))), [code]);
    }
}

#[test]
fn an_opening_that_no_retry_waits_for_is_noted() {
    let set = report(|stack| stack);
    let finding = find(&set, "open-outlasts-retries");
    assert!(finding.why.starts_with("It opens for 15s at least"), "{finding}");
    let short =
        report(|stack| stack.breaker(|breaker| breaker.open_time(SECOND * 10, SECOND * 60)));
    assert!(short.find("open-outlasts-retries").is_none(), "{short}");
}

#[test]
fn a_trace_that_cannot_be_slow_is_noted() {
    let report = report(|stack| {
        stack.total(|total| total.total(SECOND * 5)).attempt(|attempt| attempt.attempt(SECOND))
    });
    assert_eq!(find(&report, "slow-trace-beyond-total").severity, Severity::Note);
}

#[test]
fn absurd_settings_are_summed_without_overflow() {
    let day = SECOND * 86_400;
    let report = report(|stack| {
        stack
            .total(|total| total.total(Limits::NEVER).slow(SECOND))
            .attempt(|attempt| attempt.attempt(day * 365 * 29))
            .retry(|retry| {
                let retry = retry.max_attempts(u32::MAX).max_hint(day);
                retry.backoff(Backoff::exponential(day, day))
            })
            .limit(|limit| limit.max_wait(day))
    });
    assert!(report.to_end.unwrap() > day * 365 * 29);
}

#[test]
fn it_reads_as_a_text_of_80_columns_with_warnings_first() {
    let report =
        report(|stack| stack.total(|total| total.total(SECOND * 5)).retry(RetryBuilder::no_budget));
    let text = report.to_string();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.starts_with("search: at most 5s and 3 attempts a call; 2 warnings, "), "{text}");
    let severities: Vec<_> = report.findings.iter().map(|finding| finding.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "{text}");
}

#[test]
fn the_ready_made_order_is_as_it_should_be() {
    use Part::*;
    let ready = [Rejections, Trace, Total, Retry, Limit, Breaker, Attempt, Propagate];
    assert_eq!(check_order(&ready), []);
    let mut above = vec![Buffer];
    above.extend(ready);
    assert_eq!(check_order(&above), []);
    let mut below = ready.to_vec();
    below.push(Buffer);
    assert_eq!(check_order(&below), []);
}

#[test]
fn what_a_poll_layer_asks_through_is_a_stack_of_its_own() {
    use Part::*;
    let requests = [Trace, Total, Retry, Limit, Breaker, Attempt, Propagate];
    let mut operation = vec![Trace, Total, Poll];
    operation.extend(requests);
    assert_eq!(check_order(&operation), []);
    let codes = |parts: &[Part]| check_order(parts).iter().map(|it| it.code).collect::<Vec<_>>();
    assert_eq!(codes(&[Retry, Poll, Retry]), ["retry-outside-poll"]);
    assert_eq!(codes(&[Poll, Breaker, Retry]), ["breaker-outside-retry"]);
}

#[test]
fn every_wrong_pair_is_explained_once() {
    use Part::*;
    for (parts, code) in [
        ([Limit, Retry], "limit-outside-retry"),
        ([Limit, Total], "limit-outside-total"),
        ([Breaker, Retry], "breaker-outside-retry"),
        ([Breaker, Limit], "breaker-outside-limit"),
        ([Breaker, Total], "breaker-outside-total"),
        ([Retry, Total], "retry-outside-total"),
        ([Retry, Retry], "retry-in-retry"),
        ([Attempt, Retry], "attempt-outside-retry"),
        ([Retry, Poll], "retry-outside-poll"),
        ([Attempt, Poll], "attempt-outside-poll"),
        ([Limit, Poll], "limit-outside-poll"),
        ([Breaker, Poll], "breaker-outside-poll"),
        ([Attempt, Limit], "attempt-outside-limit"),
        ([Attempt, Breaker], "attempt-outside-breaker"),
        ([Propagate, Retry], "propagate-outside-retry"),
        ([Propagate, Attempt], "propagate-outside-timeout"),
        ([Retry, Trace], "layer-outside-trace"),
        ([Trace, Trace], "trace-in-trace"),
        ([Breaker, Rejections], "layer-outside-rejections"),
    ] {
        let findings = check_order(&parts);
        assert_eq!(findings.len(), 1, "{parts:?}");
        assert_eq!((findings[0].code, findings[0].part), (code, parts[0]));
        let [one, other] = parts;
        if one != other {
            assert_eq!(check_order(&[other, one]), [], "{other} outside {one}");
        }
    }
    let findings = check_order(&[Trace, Buffer, Retry]);
    assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["buffer-between-layers"]);
}

#[test]
fn every_code_is_in_the_docs() {
    let docs = include_str!("../../../docs/stack.md");
    let rules = [
        include_str!("../src/stack/check/rules.rs"),
        include_str!("../src/stack/check/rules/state.rs"),
        include_str!("../src/stack/check/order.rs"),
    ];
    let is_code = |word: &&str| {
        word.contains('-') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let mut codes = 0;
    for code in rules.iter().flat_map(|text| text.split('"')).filter(is_code) {
        assert!(docs.contains(&format!("`{code}`")), "{code} is not in docs/stack.md");
        codes += 1;
    }
    assert!(codes >= 30, "found only {codes} codes");
}

#[test]
fn a_breaker_that_hosts_share_is_reached_by_the_limits_of_all() {
    let few = |stack: StackBuilder| {
        stack
            .limit(|limit| limit.rate(1, SECOND).burst(5))
            .breaker(|breaker| breaker.minimum_calls(2_000).consecutive_failures(None))
    };
    assert!(report(few).find("minimum-calls-out-of-reach").is_some());

    let shared = BreakerLayer::builder("shared").minimum_calls(2_000).build().unwrap();
    let report = production(few).with_breaker(shared).check();
    assert!(report.find("minimum-calls-out-of-reach").is_none(), "{report}");
}

#[test]
fn the_longest_call_is_said_to_be_of_no_named_operation_where_there_are_some() {
    let report = report(|stack| {
        let export = Limits::new().with_total(300 * SECOND);
        stack.total(|total| total.operation("export", export))
    });
    let finding = find(&report, "worst-case-latency");
    assert_eq!(finding.what, "A call of no named operation takes at most 30s.");
}
