//! The bars of a waterfall.

use std::time::Duration;

use crate::{
    record::{Attempt, Call, Kind, Status, Trace},
    waterfall::is_marked,
};

/// The time that a picture covers, and its cells.
pub(crate) struct Axis {
    whole: Duration,
    cells: usize,
}

/// One cell of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Blank,
    /// An attempt is under way.
    Busy,
    /// Nothing is under way: a backoff, a limit, readiness.
    Waiting,
    /// A scope.
    Open,
    /// It failed here, or was refused.
    Failed,
}

/// The bar of a call: busy while an attempt was, hatched in between; a line for a scope.
pub(crate) fn of_call(axis: &Axis, call: &Call) -> Vec<Cell> {
    let mut cells = vec![Cell::Blank; axis.cells];
    let end = call.started.saturating_add(call.duration);
    if call.kind == Kind::Scope {
        axis.fill(&mut cells, call.started, end, Cell::Open);
        return cells;
    }
    axis.fill(&mut cells, call.started, end, Cell::Waiting);
    for attempt in &call.attempts {
        let over = attempt.started.saturating_add(attempt.ended_after);
        axis.fill(&mut cells, attempt.started, over, Cell::Busy);
        axis.fill_turns(&mut cells, attempt, call);
    }
    axis.fill_polls(&mut cells, call);
    if !matches!(call.status, Status::Success | Status::Cancelled) {
        axis.mark(&mut cells, end);
    }
    cells
}

/// The bar of an attempt, hatched from its end to the start of the next one.
pub(crate) fn of_attempt(
    axis: &Axis,
    attempt: &Attempt,
    next: Option<&Attempt>,
    call: &Call,
) -> Vec<Cell> {
    let mut cells = vec![Cell::Blank; axis.cells];
    let over = attempt.started.saturating_add(attempt.ended_after);
    let end = call.started.saturating_add(call.duration);
    // After the last one there may have been a wait that led nowhere.
    let waited =
        call.events.iter().any(|event| event.attempt == attempt.number && event.what == "retrying");
    let until = next.map(|next| next.started).or(waited.then_some(end));
    if let Some(until) = until.filter(|until| *until > over) {
        axis.fill(&mut cells, over, until, Cell::Waiting);
        // Where the next one begins is its own row's.
        if let Some(next) = next {
            let first = axis.cell(next.started);
            cells[first..].fill(Cell::Blank);
        }
    }
    axis.fill(&mut cells, attempt.started, over, Cell::Busy);
    axis.fill_turns(&mut cells, attempt, call);
    if attempt.number == 1 && call.attempts.len() == 1 {
        axis.fill_polls(&mut cells, call);
    }
    if is_marked(&attempt.outcome) {
        axis.mark(&mut cells, over);
    }
    cells
}

// ===== impl Axis =====

impl Axis {
    pub(crate) fn new(trace: &Trace, cells: usize) -> Self {
        let ends = trace.calls.iter().map(|call| call.started.saturating_add(call.duration));
        Self { whole: ends.fold(trace.duration, Duration::max), cells }
    }

    pub(crate) fn whole(&self) -> Duration {
        self.whole
    }

    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    /// The cell that a moment falls into.
    fn cell(&self, at: Duration) -> usize {
        if self.whole.is_zero() {
            return 0;
        }
        let share = at.as_secs_f64() / self.whole.as_secs_f64();
        ((share * self.cells as f64) as usize).min(self.cells - 1)
    }

    /// The cell that ends with a moment: what ends where another begins does not share its cell.
    fn last(&self, at: Duration) -> usize {
        if self.whole.is_zero() {
            return 0;
        }
        let share = at.as_secs_f64() / self.whole.as_secs_f64();
        ((share * self.cells as f64).ceil() as usize).clamp(1, self.cells) - 1
    }

    fn fill(&self, cells: &mut [Cell], from: Duration, to: Duration, with: Cell) {
        let first = self.cell(from);
        let last = self.last(to).max(first);
        cells[first..=last].fill(with);
    }

    /// Hatches what an attempt spent waiting for its turn.
    fn fill_turns(&self, cells: &mut [Cell], attempt: &Attempt, call: &Call) {
        let over = attempt.started.saturating_add(attempt.ended_after);
        for event in call.events.iter().filter(|event| event.what == "waited") {
            let began = event.offset.saturating_sub(event.wait.unwrap_or_default());
            if event.attempt == attempt.number && began >= attempt.started && event.offset <= over {
                self.fill(cells, began, event.offset, Cell::Waiting);
                // What followed has its cells, however short it was.
                self.fill(cells, event.offset, over, Cell::Busy);
            }
        }
    }

    /// Hatches the waits before an operation was asked about again.
    fn fill_polls(&self, cells: &mut [Cell], call: &Call) {
        let end = call.started.saturating_add(call.duration);
        let mut asked = call.started;
        let mut requests = Vec::new();
        for event in call.events.iter().filter(|event| event.what == "polled") {
            // One that was left while it waited was not asked about.
            if event.offset >= asked {
                requests.push((asked, event.offset));
            }
            let Some(wait) = event.wait else { continue };
            asked = event.offset.saturating_add(wait);
            self.fill(cells, event.offset, asked.min(end), Cell::Waiting);
        }
        // However short a request was, it has its cells.
        for (asked, answered) in requests {
            self.fill(cells, asked, answered, Cell::Busy);
        }
    }

    fn mark(&self, cells: &mut [Cell], at: Duration) {
        let start = cells.iter().position(|cell| *cell == Cell::Busy).unwrap_or(0);
        cells[self.last(at).max(start)] = Cell::Failed;
    }
}

// ===== impl Cell =====

impl Cell {
    pub(crate) const fn as_char(self) -> char {
        match self {
            Self::Blank => ' ',
            Self::Busy => '█',
            Self::Waiting => '░',
            Self::Open => '─',
            Self::Failed => '×',
        }
    }
}
