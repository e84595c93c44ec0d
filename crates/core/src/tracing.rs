//! Events as `tracing` events.

use tracing::{Level, event};

use crate::{Event, Observer, ProcessStage, State, What};

/// Writes every event as a `tracing` event of target `portcullis`.
///
/// What an operator must know (a breaker that opened) is a warning, other changes of state, refusals,
/// timeouts and retries are information, and what happens on every call is debug.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracing;

// ===== impl Tracing =====

impl Observer for Tracing {
    fn on_event(&self, event: &Event<'_>) {
        macro_rules! write {
            ($level:expr) => {
                event!(
                    target: "portcullis",
                    $level,
                    layer = event.layer.as_str(),
                    name = event.name,
                    key = event.key,
                    attempt = event.call.attempt(),
                    event = event.what.as_str(),
                    "{}",
                    event.what
                )
            };
        }
        match event.what {
            What::StateChanged { to: State::Open | State::ForcedOpen, .. }
            | What::Overflowed { .. } => write!(Level::WARN),
            What::Acquired { .. }
            | What::Adjusted { .. }
            | What::Admitted { .. }
            | What::Answered { .. }
            | What::Attempting { .. }
            | What::Process { stage: ProcessStage::Started | ProcessStage::Exited(0), .. }
            | What::Settled { .. }
            | What::Started => write!(Level::DEBUG),
            _ => write!(Level::INFO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::{
        Metadata, Subscriber,
        span::{Attributes, Id, Record},
    };

    use super::*;
    use crate::{Call, LayerKind, Outcome, Reason, Voice, clock, sync::Mutex};

    /// Notes the level of each event.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for Levels {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            assert_eq!(event.metadata().target(), "portcullis");
            self.0.lock().push(*event.metadata().level());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_happens_on_every_call_is_debug_and_a_breaker_that_opens_a_warning() {
        let levels = Levels::default();
        let voice = Voice::new(LayerKind::Breaker, "search").with_observer(Arc::new(Tracing));
        tracing::subscriber::with_default(levels.clone(), || {
            let outcome = Outcome::timeout();
            let opened = What::StateChanged {
                from: State::Closed,
                to: State::Open,
                reason: Reason::Manual,
                open_for: None,
            };
            let gave_up = What::GaveUp { attempt: 1, outcome, reason: Reason::RetryDisabled };
            let everyday = [
                What::Acquired { cost: 1, left: 9 },
                What::Admitted { state: State::Closed, reason: Reason::Manual },
                What::Attempting { attempt: 1 },
                What::Settled { outcome, head_after: None, elapsed: Default::default() },
            ];
            for what in everyday.into_iter().chain([gave_up, opened]) {
                voice.tell(&Call::new(), clock::now(), || what);
            }
        });
        let levels = std::mem::take(&mut *levels.0.lock());
        let expected = [Level::DEBUG, Level::DEBUG, Level::DEBUG, Level::DEBUG];
        assert_eq!(levels, [&expected[..], &[Level::INFO, Level::WARN]].concat());
    }
}
