//! The live line, for whoever watches on a terminal.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::Arc,
    time::Duration,
};

use portcullis_core::clock;
use tokio::{task::JoinHandle, time::interval};

use crate::{
    load::{Course, Progress},
    stack::Handle,
};

const EVERY: Duration = Duration::from_millis(100);
const CLEAR: &str = "\r\x1b[2K";

/// The line on standard error; nothing where that is no terminal.
#[derive(Debug)]
pub(crate) struct Live(Option<JoinHandle<()>>);

// ===== impl Live =====

impl Live {
    /// Begins to show the run.
    pub(crate) fn start(
        course: Course,
        bare: Arc<Progress>,
        stack: Arc<Progress>,
        handle: Handle,
    ) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        Self(Some(tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            loop {
                ticks.tick().await;
                let line = line(&course, &bare, &stack, &handle);
                // A terminal that is gone is no reason to end the run.
                let _ = write!(stderr(), "{CLEAR}{line}");
            }
        })))
    }

    /// Ends the line and clears it.
    pub(crate) async fn end(self) {
        if let Some(shown) = self.0 {
            shown.abort();
            // Until it has ended it may write another line.
            let _ = shown.await;
            let _ = write!(stderr(), "{CLEAR}");
        }
    }
}

fn line(course: &Course, bare: &Progress, stack: &Progress, handle: &Handle) -> String {
    let now = clock::now();
    let weather = course.weather_at(now);
    let success = |side: &Progress| match side.success(weather) {
        Some(share) => format!("{:5.1} %", 100.0 * share),
        None => "      –".to_owned(),
    };
    let length = course.script.length().as_secs_f64();
    let elapsed = course.since_start(now).as_secs_f64();
    let weather = match elapsed > length {
        true => "waiting",
        false => weather.name(),
    };
    format!(
        "{elapsed:5.1} of {length:.0} s  {weather:<14}  success: bare {}, stack {}  breaker: {}",
        success(bare),
        success(stack),
        handle.state()
    )
}
