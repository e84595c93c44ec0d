//! What was measured, plain.

use serde::Serialize;

use crate::{loopback::Loopback, measure::Cost, memory::Held, targets::Target};

/// All of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Vec<Held>,
    pub(crate) loopback: Option<Loopback>,
    pub(crate) targets: Vec<Target>,
}

/// What it ran on.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) threads: usize,
    /// False says that no figure means anything.
    pub(crate) optimized: bool,
}

/// Ours beside one peer, or alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) ours_ns: f64,
    pub(crate) ours_allocs: f64,
    pub(crate) ours_bytes: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ours_speedup: Option<f64>,
    pub(crate) peer: Option<String>,
    pub(crate) peer_ns: Option<f64>,
    pub(crate) peer_allocs: Option<f64>,
    pub(crate) peer_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_speedup: Option<f64>,
    /// Ours' time by the peer's: below 1, ours is the quicker.
    pub(crate) ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

// ===== impl Row =====

impl Row {
    /// Ours alone.
    pub(crate) fn new(group: &'static str, name: &str, ours: Cost) -> Self {
        Self {
            group,
            name: name.to_owned(),
            ours_ns: ours.ns,
            ours_allocs: ours.allocs,
            ours_bytes: ours.bytes,
            ours_speedup: None,
            peer: None,
            peer_ns: None,
            peer_allocs: None,
            peer_bytes: None,
            peer_speedup: None,
            ratio: None,
            note: None,
        }
    }

    /// The same beside a peer.
    pub(crate) fn beside(&self, peer: &str, cost: Cost) -> Self {
        Self {
            peer: Some(peer.to_owned()),
            peer_ns: Some(cost.ns),
            peer_allocs: Some(cost.allocs),
            peer_bytes: Some(cost.bytes),
            ratio: Some(self.ours_ns / cost.ns),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_below_one_says_that_ours_is_the_quicker() {
        let cost = |ns| Cost { ns, allocs: 0.0, bytes: 0.0 };
        let row = Row::new("layers", "breaker", cost(100.0)).beside("peer", cost(400.0));
        assert_eq!((row.ratio, row.peer_ns), (Some(0.25), Some(400.0)));
        assert_eq!(row.peer.as_deref(), Some("peer"));
    }
}
