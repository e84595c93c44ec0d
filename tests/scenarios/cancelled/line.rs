//! Those who wait in line for a limit, and any of them giving up.

use std::{collections::BTreeSet, time::Duration};

use portcullis::{clock, ratelimit::Limiter};
use portcullis_testkit::Bound;
use tokio::{
    task::JoinSet,
    time::{advance, sleep, sleep_until},
};

/// One passes in this time.
const SPACING: Duration = Duration::from_millis(10);
const WAITERS: u32 = 4;

/// Has those of `leaving` give up so long after the start. What each of the others waited, and how long
/// somebody who came then would have to wait.
async fn with(leaving: &BTreeSet<u32>, at: Duration) -> (Vec<(u32, Duration)>, Duration) {
    let limiter = Limiter::builder("line").rate(1, SPACING).burst(1).max_wait(SPACING * 100);
    let limiter = limiter.build().unwrap();
    limiter.try_acquire().unwrap();
    let start = tokio::time::Instant::now();
    let mut line = JoinSet::new();
    for number in 1..=WAITERS {
        let (limiter, leaves) = (limiter.clone(), leaving.contains(&number));
        line.spawn(async move {
            let mut turn = Box::pin(limiter.until_ready());
            tokio::select! {
                biased;
                passed = &mut turn => passed.map(|_| (number, start.elapsed())).ok(),
                () = sleep_until(start + at), if leaves => None,
            }
        });
        // Each is in line before the next one comes.
        tokio::task::yield_now().await;
    }
    sleep(at).await;
    // Those who leave do so at this moment, and before whoever asks now.
    tokio::task::yield_now().await;
    let wait = limiter.snapshot().wait;
    let mut passed: Vec<_> = line.join_all().await.into_iter().flatten().collect();
    passed.sort_unstable();
    advance(SPACING * 10).await;
    assert_eq!((limiter.snapshot().left, limiter.snapshot().wait), (1, Duration::ZERO));
    (passed, wait)
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_line_costs_the_others_no_more_than_a_turn_each() {
    for subset in 0..1_u32 << WAITERS {
        for turns in 0..WAITERS {
            let at = SPACING * turns + SPACING / 2;
            let leaving = (1..=WAITERS).filter(|number| subset & (1 << (number - 1)) != 0);
            let leaving: BTreeSet<_> = leaving.collect();
            let (passed, wait) = with(&leaving, at).await;
            let case = format!("{leaving:?} leave after {at:?}: {passed:?}, {wait:?}");

            // Whoever stays passes at the very turn he was given, or sooner; nobody is forgotten.
            let stays = |number: &u32| !leaving.contains(number) || *number <= turns;
            let staying: Vec<u32> = (1..=WAITERS).filter(stays).collect();
            let numbers: Vec<u32> = passed.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, staying, "{case}");
            assert!(passed.iter().all(|(number, at)| *at <= SPACING * *number), "{case}");

            // The limit is kept, and lost is at most a turn for each who left.
            let bound = Bound { capacity: 1.0, ratio: 0.0, per_second: 100.0 };
            let start = clock::now();
            let all = [Duration::ZERO].into_iter().chain(passed.iter().map(|(_, at)| *at));
            let all: Vec<_> = all.map(|after| start + after).collect();
            assert!(bound.worst(&all, &[], Duration::ZERO).unwrap().drawn < 1.001, "{case}");
            let taken = u32::try_from(all.len()).unwrap();
            let (left, gone) = (WAITERS + 1 - taken, (SPACING * taken).saturating_sub(at));
            assert!(wait >= gone && wait <= gone + SPACING * left, "{case}");
            // Behind the last in line nobody had queued: his turn is given back whole.
            if leaving.iter().copied().eq([WAITERS]) && turns < WAITERS {
                assert_eq!(wait, gone, "{case}");
            }
        }
    }
}
