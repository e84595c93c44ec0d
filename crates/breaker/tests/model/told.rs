//! What a handle tells whoever listens, against its own exact numbers.

use std::{sync::Arc, time::Duration};

use portcullis_breaker::{BreakerLayer, Window};
use portcullis_core::{Event, Outcome, Reason, What, sync::Mutex};
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(32, 1_000, "proptest-regressions/told.txt"))]

    /// It is added up in another way, so that a call which is heard costs little more than others.
    #[test]
    fn an_admission_is_told_with_what_the_window_holds(
        window in prop_oneof![
            (100_u64..3_000).prop_map(|ms| Window::Time(Duration::from_millis(ms))),
            (1_u32..200).prop_map(Window::Count),
        ],
        steps in prop::collection::vec((0_u64..400, prop::bool::weighted(0.3)), 1_000..2_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::pause();
            let told = Arc::new(Mutex::new(None));
            let heard = told.clone();
            let observer = move |event: &Event<'_>| {
                if let What::Admitted { reason, .. } = event.what {
                    *heard.lock() = Some(reason);
                }
            };
            let layer = BreakerLayer::builder("test").window(window).minimum_calls(1);
            let layer = layer.consecutive_failures(None).failure_rate(None).observe(observer);
            let handle = layer.build().unwrap().handle();
            for (wait, failed) in steps {
                // Often none at all, and seldom as long as the whole window.
                let wait = if wait < 300 { 0 } else { (wait - 300).pow(2) / 4 };
                tokio::time::advance(Duration::from_millis(wait)).await;
                let holds = handle.snapshot().counts;
                let call = handle.admit().unwrap();
                let (failures, slow, total) = (holds.failures, holds.slow, holds.total);
                let expected = Reason::Window { failures, slow, total };
                prop_assert_eq!(told.lock().take(), Some(expected));
                call.settle(if failed { Outcome::timeout() } else { Outcome::Success });
            }
            Ok(())
        })?;
    }
}
