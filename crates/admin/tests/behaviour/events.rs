//! Events as they happen.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use portcullis::{Call, LayerKind, Outcome, Reason, State, Voice, What, clock};
use portcullis_admin::Admin;
use serde_json::Value;
use tokio::time::{Instant, advance};
use tower::ServiceExt;

use crate::{ask, get, request, tell};

/// Somebody who reads events.
struct Reader {
    frames: BodyDataStream,
    text: String,
}

/// One event: its kind and its data; a comment has none.
type Told = (String, Value);

// ===== impl Reader =====

impl Reader {
    async fn of(admin: &Admin) -> Self {
        let response = admin.router().oneshot(request("GET", "/api/events")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body: Body = response.into_body();
        Self { frames: body.into_data_stream(), text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let told = parse(event);
                self.text = rest.to_owned();
                return Some(told);
            }
            let frame = self.frames.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    }

    /// The next event of a kind; others are passed over.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let (other, data) = self.next().await.expect("it goes on");
            if other == kind {
                return data;
            }
        }
    }
}

fn parse(event: &str) -> Told {
    let mut told = (String::new(), Value::Null);
    for line in event.lines() {
        match line.split_once(": ").or_else(|| line.split_once(':')) {
            Some(("event", kind)) => told.0 = kind.to_owned(),
            Some(("data", data)) => told.1 = serde_json::from_str(data).unwrap(),
            Some(("", _)) => told.0 = "comment".to_owned(),
            other => panic!("{other:?} in {event:?}"),
        }
    }
    told
}

fn opened() -> What<'static> {
    What::StateChanged {
        from: State::Closed,
        to: State::Open,
        reason: Reason::ConsecutiveFailures { count: 5, threshold: 5 },
        open_for: Some(Duration::from_millis(1500)),
    }
}

fn settled(outcome: Outcome) -> What<'static> {
    What::Settled { outcome, head_after: None, elapsed: Duration::from_millis(12) }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_state_is_told_at_once_with_its_reason() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    let name = "shop\n\nevent: forged\r";
    tell(&admin, LayerKind::Breaker, name, Some("a\u{2028}b"), opened());
    let before = Instant::now();
    let told = reader.next_of("breaker").await;
    assert!(before.elapsed() < Duration::from_millis(100));
    assert_eq!((&told["name"], &told["key"]), (&name.into(), &"a\u{2028}b".into()));
    assert_eq!((&told["from"], &told["to"]), (&"closed".into(), &"open".into()));
    assert_eq!(told["why"], "5 failures in a row (limit 5)");
    assert_eq!(told["open_for_ms"], 1500.0);
    assert!(told["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test(start_paused = true)]
async fn figures_are_told_to_have_changed_once_a_second_however_many_did() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    let began = Instant::now();
    let admin_of_calls = admin.clone();
    let calls = tokio::spawn(async move {
        for _ in 0..400 {
            tell(&admin_of_calls, LayerKind::Trace, "shop", None, What::Started);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut nudges = Vec::new();
    for _ in 0..4 {
        reader.next_of("figures").await;
        nudges.push(began.elapsed());
    }
    calls.await.unwrap();
    let gaps = nudges.windows(2).map(|pair| pair[1] - pair[0]);
    for gap in gaps {
        assert!(gap >= Duration::from_millis(990), "{nudges:?}");
    }
    // Then nothing changes, and nothing is said but that it is still there.
    let mut rest = Vec::new();
    while rest.last().is_none_or(|kind| kind != "comment") {
        rest.push(reader.next().await.unwrap().0);
    }
    assert!(rest.len() <= 2, "{rest:?}");
    assert!(began.elapsed() >= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn what_changes_right_after_it_was_told_is_told_with_the_next() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    tell(&admin, LayerKind::Trace, "shop", None, What::Started);
    reader.next_of("figures").await;
    let told = Instant::now();
    tell(&admin, LayerKind::Trace, "shop", None, What::Started);
    let (kind, _) = reader.next().await.unwrap();
    assert_eq!((&*kind, told.elapsed()), ("figures", Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn ends_of_calls_are_told_ten_a_second_at_most_and_failures_not_drowned() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    for count in 0..1000 {
        tell(&admin, LayerKind::Trace, "shop", None, settled(Outcome::Success));
        if count % 100 == 99 {
            tell(&admin, LayerKind::Trace, "shop", None, settled(Outcome::timeout()));
        }
        advance(Duration::from_millis(1)).await;
    }
    tell(&admin, LayerKind::Breaker, "shop", None, opened());
    let mut statuses = Vec::new();
    loop {
        let (kind, data) = reader.next().await.unwrap();
        match &*kind {
            "trace" => statuses.push(data["status"].as_str().unwrap().to_owned()),
            "breaker" => break,
            "figures" => {}
            other => panic!("{other}"),
        }
    }
    assert!(statuses.len() <= 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|it| *it == "timeout").count(), 5);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_told_what_was_missed_and_grows_nothing() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    let voice = Voice::new(LayerKind::Breaker, "shop").with_observer(Arc::new(admin.observer()));
    let (call, now) = (Call::new(), clock::now());
    voice.tell(&call, now, opened);
    let passed = allocation_counter::measure(|| {
        for _ in 0..100_000 {
            voice.tell(&call, now, opened);
        }
    });
    // The ring holds some 256 of them; what it lets go of is freed.
    assert!(passed.count_current < 2000, "{passed:?}");
    assert!(passed.bytes_current < 200_000, "{passed:?}");

    let missed = reader.next_of("missed").await["count"].as_u64().unwrap();
    let mut seen = 0;
    tell(&admin, LayerKind::Breaker, "last", None, opened());
    loop {
        match reader.next().await.unwrap() {
            (kind, data) if kind == "breaker" && data["name"] == "last" => break,
            (kind, _) if kind == "breaker" => seen += 1,
            (kind, data) if kind == "missed" => seen += data["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(missed + seen, 100_001, "every one was seen, or counted as missed");
}

#[tokio::test(start_paused = true)]
async fn readers_are_bounded_and_leave_room_when_they_go() {
    let admin = Admin::builder().build().unwrap();
    let mut readers = Vec::new();
    for _ in 0..64 {
        readers.push(Reader::of(&admin).await);
    }
    let one_more = get(&admin, "/api/events").await;
    assert_eq!(one_more.status, 503);
    assert!(one_more.problem().contains("64 readers"));
    readers.pop();
    readers.push(Reader::of(&admin).await);
    drop(readers);
    let head = ask(&admin.router(), request("HEAD", "/api/events")).await;
    assert_eq!(head.status, 200);
}

#[tokio::test(start_paused = true)]
async fn readers_come_to_an_end_when_events_are_closed() {
    let admin = Admin::builder().build().unwrap();
    let mut reader = Reader::of(&admin).await;
    tell(&admin, LayerKind::Breaker, "shop", None, opened());
    reader.next_of("breaker").await;
    admin.close_events();
    assert_eq!(reader.next().await, None, "whatever there is to tell");
    assert_eq!(get(&admin, "/api/events").await.status, 503);
    tell(&admin, LayerKind::Breaker, "shop", None, opened());
}
