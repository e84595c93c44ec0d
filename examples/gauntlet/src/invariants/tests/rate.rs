use super::*;

#[test]
fn what_passes_beyond_burst_and_rate_breaks_it() {
    let name = "limit: burst + rate · t in every interval";
    let run = Invented::new();
    // Five at one moment are the burst; a quarter of a second later five more may come.
    let fits = run.broken_where(|told, _| {
        let later = told.passed[0] + Duration::from_secs(3_600);
        told.passed.extend([later; 5]);
        told.passed.extend([later + Duration::from_millis(250); 5]);
    });
    assert_eq!(fits, [""; 0]);
    let one_more = run.broken_where(|told, _| {
        let later = told.passed[0] + Duration::from_secs(3_600);
        told.passed.extend([later; 5]);
        told.passed.extend([later + Duration::from_millis(249); 5]);
    });
    assert_eq!(one_more, [name]);
}

#[test]
fn one_that_waited_may_be_told_of_as_late_as_a_timer_is() {
    let name = "limit: burst + rate · t in every interval";
    let run = Invented::new();
    // Its turn may have been the 50 ms before the five that bring in one; there is no room for two.
    let late = run.broken_where(|told, _| {
        let later = told.passed[0] + Duration::from_secs(3_600);
        let woken = later + Duration::from_millis(1);
        told.passed.extend([later; 5]);
        told.passed.push(woken);
        told.waited.push((woken, TOOK));
    });
    assert_eq!(late, [""; 0]);
    let two = run.broken_where(|told, _| {
        let later = told.passed[0] + Duration::from_secs(3_600);
        let woken = later + Duration::from_millis(1);
        told.passed.extend([later; 5]);
        told.passed.extend([woken; 2]);
        told.waited.extend([(woken, TOOK); 2]);
    });
    assert_eq!(two, [name]);
}

#[test]
fn what_is_sent_at_once_or_without_having_passed_breaks_it() {
    let name = "limit: burst + rate · t in every interval";
    let mut run = Invented::new();
    let none = run.broken_where(|told, _| told.passed.truncate(5));
    assert_eq!(none, [name]);

    for attempt in &mut run.stack.attempts[..7] {
        attempt.started = run.course.start;
    }
    let spread = run.broken_where(|told, _| {
        let first = told.passed[0];
        let times = (0..).map(|n| first + Duration::from_millis(100 * n));
        told.passed = times.take(told.passed.len()).collect();
    });
    assert_eq!(spread, [name]);
}
