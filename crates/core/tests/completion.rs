//! What a completion carries, and what its end tells.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{
    Call, Completion, End, FaultKind, Outcome, Replay, Settle, Throttle, Ticket, clock, sync::Mutex,
};

/// What a layer was told of a call's end.
#[derive(Debug, PartialEq)]
struct Told {
    ticket: Ticket,
    outcome: Outcome,
    attempt: u32,
    ended: Instant,
    elapsed: Duration,
    head_after: Option<Duration>,
}

struct Seen(Arc<str>, Mutex<Vec<Told>>);

impl Settle for Seen {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    fn settle(&self, ticket: Ticket, end: &End<'_>) {
        self.1.lock().push(Told {
            ticket,
            outcome: end.outcome,
            attempt: end.call.attempt(),
            ended: end.ended,
            elapsed: end.elapsed(),
            head_after: end.head_after(),
        });
    }
}

#[test]
fn it_carries_what_the_layer_gave_along() {
    let seen = Arc::new(Seen("search".into(), Mutex::default()));
    let start = clock::now();
    let done = Completion::new(seen.clone(), Ticket(3, 4), Call::new().with_attempt(2), start);
    assert_eq!(done.ticket(), Ticket(3, 4));
    assert_eq!(done.started(), Some(start));
    assert_eq!(done.call().map(Call::attempt), Some(2));

    let nobody = Completion::none();
    assert_eq!((nobody.ticket(), nobody.started()), (Ticket::default(), None));
    assert!(nobody.call().is_none());
}

#[test]
fn an_end_says_how_long_it_took_to_the_head_and_in_all() {
    let seen = Arc::new(Seen("search".into(), Mutex::default()));
    let start = clock::now();
    let [head, end] = [20, 50].map(|millis| start + Duration::from_millis(millis));
    let done = || Completion::new(seen.clone(), Ticket(3, 4), Call::new().with_attempt(2), start);
    done().with_head(head).settle_at(Outcome::Success, end);
    done().settle_at(Outcome::Ignored, end);

    let told = |outcome, head_after| Told {
        ticket: Ticket(3, 4),
        outcome,
        attempt: 2,
        ended: end,
        elapsed: Duration::from_millis(50),
        head_after,
    };
    let with_head = told(Outcome::Success, Some(Duration::from_millis(20)));
    assert_eq!(*seen.1.lock(), [with_head, told(Outcome::Ignored, None)]);
}

#[test]
fn only_a_success_is_one() {
    assert!(Outcome::Success.is_success());
    for other in [
        Outcome::Ignored,
        Outcome::Cancelled,
        Outcome::timeout(),
        Outcome::failure(FaultKind::Other, Replay::Safe),
        Outcome::Throttled(Throttle::new(FaultKind::Status(429))),
    ] {
        assert!(!other.is_success(), "{other}");
    }
}
