//! What a person sees.

use portcullis_breaker::BreakerLayer;
use portcullis_ratelimit::RateLimitLayer;
use portcullis_retry::{Backoff, Jitter, RetryLayer};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::{About, Recorder, Trace, TraceLayer, TraceScope, output};
use tower_layer::Layer;

use crate::fakes::{Inner, MS, SECOND, answering, by_status, keep, one, recorder, stored};

/// An agent's turn: a plan, two searches at once of which one is retried, a tool that is refused.
async fn agent(recorder: &Recorder) -> Trace {
    let layer = |name: &'static str, target: &'static str| {
        let layer = TraceLayer::builder(name).recorder(recorder).classify(by_status());
        let describe = move |_: &&'static str, about: &mut About<'_>| {
            about.target(target);
        };
        layer.describe(describe).build().unwrap()
    };
    let slow = |by| -> Inner {
        ScriptedService::respond_with(move |_, _| Step::<_, TestError>::Ok(200).after(by))
    };
    let retry = RetryLayer::builder("retry", keep())
        .classify(by_status())
        .backoff(Backoff::fixed(300 * MS))
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let breaker = BreakerLayer::builder("crm").build().unwrap();
    breaker.handle().force_open();

    let mut plan = layer("plan", "model.example").layer(slow(340 * MS));
    let mut news =
        layer("search news", "news.example").layer(retry.layer(answering([503, 503, 200])));
    let mut web = layer("search web", "web.example").layer(slow(450 * MS));
    let mut lookup = layer("look up customer", "crm.internal").layer(breaker.layer(slow(MS)));
    let timeout = TimeoutLayer::total("answer", SECOND / 2).unwrap();
    let mut answer = layer("answer", "model.example").layer(timeout.layer(slow(SECOND)));
    TraceScope::start("answer question")
        .attribute("user", "u-17")
        .attribute("question", "why is the sky blue?")
        .run(async {
            send(&mut plan, "x").await.unwrap();
            TraceScope::start("gather")
                .run(async { tokio::join!(send(&mut news, "x"), send(&mut web, "x")) })
                .await
                .0
                .unwrap();
            send(&mut lookup, "x").await.unwrap_err();
            send(&mut answer, "x").await.unwrap_err();
            output("Because of Rayleigh scattering.");
        })
        .await;
    Trace::clone(&*one(recorder).await)
}

fn widest(picture: &str) -> usize {
    // Nothing in these pictures is wider than a cell.
    picture.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_stranger_reads_what_happened_and_why() {
    let trace = agent(&recorder()).await;
    let picture = trace.to_string();
    println!("{picture}");
    let without_ids = picture.replace(&trace.id.to_string(), "ID");
    for part in [
        "answer question · success in 1.47s",
        "trace ID · ",
        "kept because something in it failed",
        "user=u-17 · question=why is the sky blue?",
        "output: Because of Rayleigh scattering.",
        "#1",
        "#3",
        "status 503",
        "rejected: open",
        "timeout",
        "next in 300.0ms: backoff before",
        "error: crm: forced-open, by hand",
        "rejected (open): by hand",
    ] {
        assert!(without_ids.contains(part), "{part}\n{picture}");
    }
    assert!(widest(&picture) <= 80, "{picture}");
    assert!(!picture.contains('\u{1b}'), "plain unless asked for");

    let bar =
        |name: &str| picture.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    assert!(bar("search news").contains("░░") && bar("#1").contains("×░"), "{picture}");
    assert!(bar("look up customer").contains('×'));
}

#[tokio::test(start_paused = true)]
async fn it_is_as_wide_and_as_coloured_as_it_is_told() {
    let trace = agent(&recorder()).await;
    for columns in [60, 80, 120, 200] {
        let picture = trace.waterfall().width(columns).to_string();
        assert!(widest(&picture) <= columns, "{columns}\n{picture}");
        let coloured = trace.waterfall().width(columns).colour(true).to_string();
        assert!(coloured.contains("\u{1b}[31m") && coloured.contains("\u{1b}[32m"));
        let mut plain = coloured;
        for code in ["0", "1", "2", "31", "32", "33", "35"] {
            plain = plain.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(plain, picture, "colour changes nothing else");
    }
    let narrow = trace.waterfall().width(1).to_string();
    assert!(widest(&narrow) <= 60);
}

#[tokio::test(start_paused = true)]
async fn hostile_names_stay_within_their_line() {
    let recorder = recorder();
    let hostile =
        "evil\u{1b}[2J\u{1b}]0;title\u{7}\r\n\u{202e}name\u{0}\u{9b}31m 日本語 ".repeat(20);
    let inner: Inner = ScriptedService::respond_with(|_, _| {
        Step::Err(TestError("line\u{1b}[31m one\nline two \u{202e}gnp.exe"))
    });
    let layer = TraceLayer::builder(&*hostile).recorder(&recorder).build().unwrap();
    let mut client = layer.layer(inner);
    let scope = TraceScope::start(&*hostile).attribute("k\u{1b}[1m\n", &hostile);
    let _ = scope.try_run(async { send(&mut client, "x").await }).await;

    let trace = one(&recorder).await;
    let picture = trace.to_string();
    println!("{picture}");
    let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!picture.chars().any(bad), "{picture:?}");
    let wide = |line: &str| -> usize {
        line.chars().map(|c| if ('\u{3000}'..'\u{a000}').contains(&c) { 2 } else { 1 }).sum()
    };
    for line in picture.lines() {
        assert!(wide(line) <= 80, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_of_nothing_and_one_of_no_time_are_pictures_too() {
    let recorder = recorder();
    TraceScope::start("").recorder(&recorder).run(async {}).await;
    let inner: Inner = ScriptedService::answering(200);
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    send(&mut layer.layer(inner), "x").await.unwrap();
    for trace in stored(&recorder).await {
        let picture = trace.to_string();
        println!("{picture}");
        assert!(picture.contains("success in 0"));
        assert!(widest(&picture) <= 80);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_ones_turn_is_hatched_and_the_attempt_follows_it() {
    let recorder = recorder();
    let layer = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let limit = RateLimitLayer::builder("model").rate(10, SECOND).burst(1).max_wait(SECOND);
    let mut limited = layer.layer(limit.build().unwrap().layer(answering([200])));
    for _ in 0..2 {
        send(&mut limited, "x").await.unwrap();
    }

    let trace = &stored(&recorder).await[1];
    println!("{trace}");
    let call = &trace.calls[0];
    let waited = call.events.iter().find(|event| event.what == "waited").unwrap();
    assert_eq!((waited.offset, waited.wait), (90 * MS, Some(90 * MS)));
    assert_eq!((call.attempts[0].started, call.attempts[0].ended_after), (90 * MS, 10 * MS));
    let picture = trace.to_string();
    let bar = picture.lines().find(|line| line.starts_with("search  ")).unwrap();
    assert!(bar.contains("░░░░░░░░██"), "{picture}");
}
