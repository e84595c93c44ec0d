//! The word to stop.

use tokio::sync::watch;

/// Whether it is time to stop. Clones are told together.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Tells it.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

// ===== impl Stop =====

impl Stop {
    /// Both ends.
    pub(crate) fn new() -> (Stopper, Self) {
        let (stopper, stop) = watch::channel(false);
        (Stopper(stopper), Self(stop))
    }

    /// One that is never told.
    pub(crate) fn never() -> Self {
        Self::new().1
    }

    /// Waits for the word.
    pub(crate) async fn told(&self) {
        if self.0.clone().wait_for(|told| *told).await.is_err() {
            // Nobody is left to say it.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the word has fallen.
    pub(crate) fn is_told(&self) -> bool {
        *self.0.borrow()
    }
}

// ===== impl Stopper =====

impl Stopper {
    pub(crate) fn tell(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_clones_are_told_and_nobody_is_by_silence() {
        let (stopper, stop) = Stop::new();
        let clone = stop.clone();
        assert!(timeout(Duration::from_secs(60), clone.told()).await.is_err());
        assert!(!clone.is_told());
        stopper.tell();
        clone.told().await;
        assert!(stop.is_told());
        assert!(timeout(Duration::from_secs(60), Stop::never().told()).await.is_err());
    }
}
