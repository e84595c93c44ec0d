use super::*;
use crate::invariants::traces as judge_traces;

#[test]
fn a_failed_call_without_a_trace_that_says_so_breaks_it() {
    let name = "traces: every failed call has one";
    let run = Invented::new();
    let lost = run.broken_where(|_, log| {
        let failed = log.traced.iter().position(|traced| traced.failed).unwrap();
        log.traced.remove(failed);
    });
    assert_eq!(lost, [name]);
    let whitewashed = run.broken_where(|_, log| {
        log.traced.iter_mut().find(|traced| traced.failed).unwrap().failed = false;
    });
    assert_eq!(whitewashed, [name]);
}

#[test]
fn a_share_that_is_off_its_rate_breaks_it() {
    let name = "traces: the share of plain successes is as set";
    let run = Invented::new();
    // Nine of ninety, where nine ± fourteen may be.
    assert_eq!(run.broken_where(|_, log| log.sampled = 0.3), [""; 0]);
    assert_eq!(run.broken_where(|_, log| log.sampled = 0.4), [name]);
    assert_eq!(run.broken_where(|_, log| log.sampled = 0.005), [name]);
    assert_eq!(run.broken_where(|_, log| log.sampled = 1.0), [name]);
}

#[test]
fn what_is_kept_as_plain_and_is_not_breaks_it() {
    let name = "traces: the share of plain successes is as set";
    let run = Invented::new();
    let failed = run.broken_where(|_, log| {
        log.traced.iter_mut().find(|traced| traced.failed).unwrap().kept = Kept::Share;
    });
    assert_eq!(failed, [name]);
    assert_eq!(run.broken_where(|_, log| log.seen -= 1), [name]);
}

#[test]
fn attempts_that_a_trace_tells_otherwise_break_it() {
    let name = "traces: attempts equal client's and upstream's log";
    let breaks: [fn(&mut TraceLog); 6] = [
        // Left out.
        |log| {
            log.traced[0].sent.pop();
        },
        // Made up.
        |log| {
            let sent = log.traced[0].sent[0];
            log.traced[0].sent.push(sent);
        },
        // In a span that the upstream was not told.
        |log| log.traced[0].sent[0].span = span(1_000, 1),
        // Ended otherwise.
        |log| log.traced[0].sent[0].outcome = Outcome::timeout(),
        // Told twice.
        |log| log.traced.push(log.traced[0].clone()),
        // Of nobody.
        |log| {
            log.traced[0].id = None;
            log.traced[0].kept = Kept::Retried;
        },
    ];
    let mut run = Invented::new();
    // The upstream's word on a call that was traced, answered 503 and not tried again.
    run.stack.attempts[5].end = AttemptEnd::Head(StatusCode::SERVICE_UNAVAILABLE);
    run.stack.accesses[5].status = Some(StatusCode::SERVICE_UNAVAILABLE);
    run.stack.calls[5].result = Err(Failed::Status(StatusCode::SERVICE_UNAVAILABLE));
    run.bare.calls[5].result = Err(Failed::Body);
    assert_eq!(run.broken(), [""; 0]);
    for (place, break_it) in breaks.into_iter().enumerate() {
        let mut traced = run.stack.traced();
        break_it(&mut traced);
        let judged = judge_traces::agree(&run.stack, &traced);
        assert!(!judged.held && judged.name == name, "break {place}");
    }

    // An access that no trace and no client knows of.
    let mut stray = run.stack.accesses[5];
    stray.attempt = 2;
    run.stack.accesses.push(stray);
    assert!(run.broken().contains(&name));
}
