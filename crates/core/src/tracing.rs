//! Events as `tracing` events.

use tracing::{Level, event};

use crate::{Event, Observer, State, What};

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
            What::Admitted { .. } | What::Attempting { .. } | What::Settled { .. } => {
                write!(Level::DEBUG);
            }
            _ => write!(Level::INFO),
        }
    }
}
