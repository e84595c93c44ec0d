//! The run as a table for a person, and as JSON for a program.

mod table;

use std::{collections::BTreeMap, time::Duration};

use portcullis::Report;
use serde::Serialize;

pub(crate) use self::table::Paint;
use crate::{
    args::Args, file::TraceFile, invariants::Invariant, load::Course, run::Lap, serve::Served,
    story::Story, tally::Figures, traces::TraceLog, watch::Transition, weather::Weather,
};

/// What the run came to. It serializes as the object that `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    seed: u64,
    seconds: u64,
    with_stack: Figures,
    without_stack: Figures,
    weather: Vec<InWeather>,
    /// Attempts for each call of the client with the stack; the bare one makes one.
    amplification: f64,
    rejections: Vec<Counted>,
    timeouts: Vec<Counted>,
    retries: Retries,
    limit: Limit,
    traces: Kept,
    breaker_at_end: &'static str,
    transitions: Vec<Changed>,
    invariants: Vec<Invariant>,
    check: Vec<Found>,
    trace: Option<Story>,
    trace_file: Option<TraceFile>,
    /// What all laps came to, if there were several.
    served: Option<Served>,
}

/// Both sides in one weather.
#[derive(Debug, Serialize)]
struct InWeather {
    #[serde(rename = "name")]
    weather: Weather,
    from_seconds: f64,
    until_seconds: f64,
    with_stack: Figures,
    without_stack: Figures,
}

/// So many of a kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Counted {
    what: String,
    count: usize,
}

/// What became of failed attempts.
#[derive(Debug, Serialize)]
struct Retries {
    made: usize,
    after_hint: usize,
    gave_up: Vec<Counted>,
}

/// What the limit made of attempts.
#[derive(Debug, Serialize)]
struct Limit {
    passed: usize,
    waited: usize,
    longest_wait_ms: f64,
    held_back: usize,
}

/// What became of traces.
#[derive(Debug, Serialize)]
struct Kept {
    seen: usize,
    kept: Vec<Counted>,
    lost: usize,
}

/// What the stack's check says of its settings.
#[derive(Debug, Serialize)]
struct Found {
    severity: String,
    part: String,
    code: &'static str,
    what: String,
    why: String,
}

/// A breaker's change of state.
#[derive(Debug, Serialize)]
struct Changed {
    at_seconds: f64,
    weather: Weather,
    from: &'static str,
    to: &'static str,
    reason: String,
    open_for_ms: Option<f64>,
}

// ===== impl Summary =====

impl Summary {
    /// What was logged, not judged.
    pub(crate) fn new(args: &Args, lap: &Lap, traced: &TraceLog) -> Self {
        let Lap { course, bare, stack, report, .. } = lap;
        let with_stack = stack.figures();
        let told = &report.told;
        let phases = course.script.phases().iter();
        Self {
            seed: args.seed,
            seconds: args.seconds,
            with_stack,
            without_stack: bare.figures(),
            weather: phases
                .map(|phase| InWeather {
                    weather: phase.weather,
                    from_seconds: seconds(phase.from),
                    until_seconds: seconds(phase.until),
                    with_stack: stack.figures_in(phase.weather, course),
                    without_stack: bare.figures_in(phase.weather, course),
                })
                .collect(),
            amplification: with_stack.amplification,
            rejections: count(told.rejections.iter().map(|rejected| {
                let (by, kind) = (rejected.by.as_str(), rejected.kind.as_str());
                format!("{by}: {kind}")
            })),
            timeouts: count(told.timed_out.iter().map(|(_, phase)| (*phase).to_owned())),
            retries: Retries {
                made: told.retries.len(),
                after_hint: told.retries.iter().filter(|retry| retry.hinted).count(),
                gave_up: count(told.gave_up.iter().map(|(_, why)| (*why).to_owned())),
            },
            limit: Limit {
                passed: told.passed.len(),
                waited: told.waited.len(),
                longest_wait_ms: {
                    let longest = told.waited.iter().map(|(_, waited)| *waited).max();
                    longest.unwrap_or_default().as_micros() as f64 / 1e3
                },
                held_back: told.held_back,
            },
            traces: Kept {
                seen: traced.seen,
                kept: count(traced.traced.iter().map(|traced| kept_for(traced.kept).to_owned())),
                lost: traced.lost,
            },
            breaker_at_end: report.state_at_end.as_str(),
            transitions: told
                .transitions
                .iter()
                .map(|transition| Changed::new(transition, course))
                .collect(),
            invariants: Vec::new(),
            check: Vec::new(),
            trace: None,
            trace_file: None,
            served: None,
        }
    }

    /// The same, judged.
    pub(crate) fn with_promises(mut self, invariants: Vec<Invariant>) -> Self {
        self.invariants = invariants;
        self
    }

    /// The same, with what the check of the settings says.
    pub(crate) fn with_check(mut self, report: &Report) -> Self {
        let found = report.findings.iter().map(|finding| Found {
            severity: finding.severity.to_string(),
            part: finding.part.to_string(),
            code: finding.code,
            what: finding.what.clone(),
            why: finding.why.clone(),
        });
        self.check = found.collect();
        self
    }

    /// The same, with the call to end with.
    pub(crate) fn with_story(mut self, story: Option<Story>) -> Self {
        self.trace = story;
        self
    }

    /// The same, with where the traces are.
    pub(crate) fn with_file(mut self, file: TraceFile) -> Self {
        self.trace_file = Some(file);
        self
    }

    /// The same as the last of many laps, which came to this.
    pub(crate) fn with_served(mut self, served: Served) -> Self {
        self.served = Some(served);
        self
    }

    /// Whether every promise was kept that was judged.
    pub(crate) fn held(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.held)
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> String {
        // Plain numbers and text under text keys: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// ===== impl Changed =====

impl Changed {
    fn new(transition: &Transition, course: &Course) -> Self {
        Self {
            at_seconds: seconds(course.since_start(transition.at)),
            weather: course.weather_at(transition.at),
            from: transition.from.as_str(),
            to: transition.to.as_str(),
            reason: transition.reason.to_string(),
            open_for_ms: transition.open_for.map(|time| time.as_micros() as f64 / 1e3),
        }
    }
}

fn kept_for(kept: portcullis::trace::Kept) -> &'static str {
    match kept {
        portcullis::trace::Kept::Failed => "failed",
        portcullis::trace::Kept::Retried => "retried",
        portcullis::trace::Kept::Slow => "slow",
        _ => "plain",
    }
}

/// How many there are of each, the most frequent first.
fn count(all: impl Iterator<Item = String>) -> Vec<Counted> {
    let mut counts = BTreeMap::new();
    for what in all {
        *counts.entry(what).or_insert(0) += 1;
    }
    let counts = counts.into_iter();
    let mut counts: Vec<_> = counts.map(|(what, count)| Counted { what, count }).collect();
    counts.sort_by_key(|counted| std::cmp::Reverse(counted.count));
    counts
}

/// To the tenth of a millisecond, which is more than a loaded machine can tell.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(large: bool) -> Figures {
        Figures {
            requests: if large { 90_000 } else { 450 },
            success_rate: 1.0,
            p50_ms: 5.25,
            p95_ms: 812.0,
            p99_ms: if large { 10_004.0 } else { 9.0 },
            upstream_calls: if large { 123_456 } else { 450 },
            amplification: 1.37,
        }
    }

    fn summary() -> Summary {
        let counted = |what: &str| Counted { what: what.repeat(20), count: 1_234 };
        let changed = || Changed {
            at_seconds: 412.25,
            weather: Weather::Throttling,
            from: "half-open",
            to: "closed",
            reason: "12 of 20 calls failed (limit 50 %)".repeat(3),
            open_for_ms: Some(201.4),
        };
        Summary {
            seed: u64::MAX,
            seconds: 600,
            with_stack: figures(true),
            without_stack: figures(true),
            weather: vec![InWeather {
                weather: Weather::Throttling,
                from_seconds: 8.0,
                until_seconds: 10.0,
                with_stack: figures(false),
                without_stack: figures(false),
            }],
            amplification: 1.37,
            rejections: vec![counted("breaker: open")],
            timeouts: vec![],
            retries: Retries { made: 5, after_hint: 2, gave_up: vec![counted("budget spent")] },
            limit: Limit { passed: 1, waited: 99_999, longest_wait_ms: 200.1, held_back: 9_999 },
            traces: Kept { seen: 93_000, kept: vec![counted("failed")], lost: 1 },
            breaker_at_end: "closed",
            transitions: (0..100).map(|_| changed()).collect(),
            invariants: vec![Invariant {
                name: "every attempt beyond the first was told as a retry",
                held: false,
                detail: "many numbers ".repeat(9),
            }],
            check: vec![Found {
                severity: "note".to_owned(),
                part: "retry".to_owned(),
                code: "worst-case-amplification",
                what: "One call sends at most 4 requests.".to_owned(),
                why: "max_attempts is 4.".to_owned(),
            }],
            trace: None,
            trace_file: None,
            served: None,
        }
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_a_hundred_columns() {
        let table = summary().table(Paint::plain());
        for line in table.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
        assert!(table.lines().count() < 60);
        assert!(table.contains("… 76 more"));
        assert!(table.ends_with("1 of 1 promises broken"));
        assert!(!table.contains('\x1b'));
    }

    #[test]
    fn of_many_laps_all_are_summed_up_and_none_is_judged() {
        let served = Served {
            seconds: 86_400.5,
            laps: 1_440,
            requests: 14_000_000,
            bare_succeeded: 7_000_000,
            stack_succeeded: 13_500_000,
        };
        let table = summary().with_promises(Vec::new()).with_served(served).table(Paint::plain());
        let all = "served for 86400s, whole laps: 1440; of 14000000 requests 50.0 % succeeded bare, \
                   96.4 % with the\nstack; above is the last lap";
        assert!(table.ends_with(all), "{table}");
        assert!(!table.contains("promises"));
        for line in table.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn json_is_one_object_with_both_sides() {
        let json: serde_json::Value = serde_json::from_str(&summary().json()).unwrap();
        for side in ["with_stack", "without_stack"] {
            for figures in [&json[side], &json["weather"][0][side]] {
                for figure in ["requests", "success_rate", "p50_ms", "p95_ms", "p99_ms"] {
                    assert!(figures[figure].is_number(), "{side} {figure}");
                }
                assert!(figures["upstream_calls"].is_u64());
            }
        }
        assert_eq!(json["weather"][0]["name"], "throttling");
        assert_eq!(json["amplification"], 1.37);
        assert_eq!(json["transitions"][99]["to"], "closed");
        assert_eq!(json["invariants"][0]["held"], false);
        assert_eq!(json["check"][0]["code"], "worst-case-amplification");
    }

    #[test]
    fn the_most_frequent_comes_first() {
        let all = ["a", "b", "b"].map(str::to_owned);
        let counts: Vec<_> = count(all.into_iter())
            .into_iter()
            .map(|counted| (counted.what, counted.count))
            .collect();
        assert_eq!(counts, [("b".to_owned(), 2), ("a".to_owned(), 1)]);
    }
}
