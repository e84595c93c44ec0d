//! What is counted of the processes of one target.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, Value,
    metrics::{BoundCounter, BoundHistogram, BoundUpDownCounter},
};
use portcullis_core::{Outcome, ProcessStage};

use crate::{
    instruments::Instruments,
    names::{OTHER, attribute},
    target::{FEW, MANY, Series, Target},
};

/// The series of a target that runs processes.
pub(crate) struct Processes {
    started: OnceLock<BoundCounter<u64>>,
    active: OnceLock<BoundUpDownCounter<i64>>,
    duration: Series<&'static str, BoundHistogram<f64>>,
    /// By how they ended, and the code or the signal.
    exits: Series<Exit, BoundCounter<u64>>,
    errors: Series<&'static str, BoundCounter<u64>>,
    output: [OnceLock<BoundHistogram<u64>>; 2],
}

type Exit = (&'static str, i32);

/// The streams, as their sizes come.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

// ===== impl Processes =====

impl Processes {
    pub(crate) fn new() -> Self {
        Self {
            started: OnceLock::new(),
            active: OnceLock::new(),
            duration: Series::new(FEW),
            exits: Series::new(MANY),
            errors: Series::new(FEW),
            output: [OnceLock::new(), OnceLock::new()],
        }
    }

    pub(crate) fn tell(
        &self,
        of: &Instruments,
        target: &Target,
        stage: ProcessStage,
        elapsed: Duration,
        put_out: [u64; 2],
    ) {
        if let Some(error) = error(stage) {
            let bind = |word: Option<&'static str>| {
                let word = word.unwrap_or(OTHER);
                of.process_errors.bind(&target.with(&[(attribute::ERROR_TYPE, word.into())]))
            };
            self.errors.get(error, bind).add(1);
        }
        let active = || self.active.get_or_init(|| of.processes_active.bind(target.attributes()));
        if stage == ProcessStage::Started {
            let started = &self.started;
            started.get_or_init(|| of.processes_started.bind(target.attributes())).add(1);
            active().add(1);
        }
        let Some(status) = status(stage) else { return };
        active().add(-1);
        let duration = self.duration.get(status, |status| {
            let status = status.unwrap_or(OTHER);
            of.process_duration.bind(&target.with(&[(attribute::PROCESS_STATUS, status.into())]))
        });
        duration.record(elapsed.as_secs_f64());
        let exit = (status, number(stage));
        self.exits.get(exit, |exit| of.process_exits.bind(&attributes(target, exit))).add(1);
        for ((stream, name), bytes) in self.output.iter().zip(STREAMS).zip(put_out) {
            let own = [(attribute::PROCESS_STREAM, name.into())];
            stream.get_or_init(|| of.process_output.bind(&target.with(&own))).record(bytes);
        }
    }
}

/// How a process ended, in a word; `None` if it did not.
fn status(stage: ProcessStage) -> Option<&'static str> {
    Some(match stage {
        ProcessStage::Exited(0) => "success",
        ProcessStage::Exited(_) => "failure",
        ProcessStage::Signalled(_) => "signal",
        ProcessStage::Broken(_) => "broken",
        ProcessStage::Killed(_) => "killed",
        _ => return None,
    })
}

/// What failed in running it, in a word. That its caller gave up is no failure.
fn error(stage: ProcessStage) -> Option<&'static str> {
    match stage {
        ProcessStage::Killed(Outcome::Cancelled) => None,
        ProcessStage::Killed(_) => Some("timeout"),
        stage => stage.fault().map(|fault| fault.as_str()),
    }
}

/// The code or the signal that it ended with.
fn number(stage: ProcessStage) -> i32 {
    match stage {
        ProcessStage::Exited(number) | ProcessStage::Signalled(number) => number,
        _ => 0,
    }
}

/// The attributes of an exit; `None` for those there is no room for.
fn attributes(target: &Target, exit: Option<Exit>) -> Vec<KeyValue> {
    let (status, number) = exit.unwrap_or((OTHER, 0));
    let mut own: Vec<(&'static str, Value)> = vec![(attribute::PROCESS_STATUS, status.into())];
    match (status, number) {
        ("success" | "failure", 0..=255) => {
            own.push((attribute::PROCESS_EXIT_CODE, i64::from(number).into()));
        }
        ("signal", _) => {
            let name = ProcessStage::signal_name(number).unwrap_or(OTHER);
            own.push((attribute::PROCESS_SIGNAL, name.into()));
        }
        _ => {}
    }
    target.with(&own)
}
