//! The table, 100 columns wide.

use std::{
    env,
    fmt::{self, Write},
    io::{IsTerminal, stdout},
};

use super::{Changed, Counted, Summary};
use crate::{file::TraceFile, load, serve::Served, story::Story, tally::Figures, weather::Weather};

/// A promise's name takes so much of a line.
const NAME: usize = 52;
/// The last screen is made for a terminal of the usual width.
const TERMINAL: usize = 80;
/// Wider lines are cut.
const WIDTH: usize = 100;
/// More changes of state than this are cut in the middle.
const CHANGES: usize = 24;

/// Whether to paint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

// ===== impl Paint =====

impl Paint {
    /// In colour where standard output is a terminal, unless `NO_COLOR` is set to anything.
    pub(crate) fn of_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self(stdout().is_terminal() && !refused)
    }

    /// Without colour.
    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self(false)
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

// ===== impl Summary =====

impl Summary {
    /// The run as a person reads it.
    pub(crate) fn table(&self, paint: Paint) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_table(&mut out, paint);
        out
    }

    fn write_table(&self, out: &mut String, paint: Paint) -> fmt::Result {
        let (seconds, seed, rate) = (self.seconds, self.seed, load::RATE);
        let title = "The same load through a bare client and through the stack";
        writeln!(out, "{}", paint.bold(title))?;
        let burst = rate * Weather::Burst.load();
        let setting = format!(
            "{seconds} s · seed {seed} · {rate} requests/s each, {burst} in the burst · the bare client \
             is abandoned after {:?}",
            load::PATIENCE
        );
        let setting = cut_to(&setting, WIDTH);
        writeln!(out, "{}\n", paint.dim(&setting))?;
        self.write_weather(out, paint)?;
        writeln!(out)?;
        self.write_counts(out, paint)?;
        writeln!(out)?;
        self.write_breaker(out, paint)?;
        writeln!(out)?;
        self.write_check(out, paint)?;
        match &self.served {
            Some(served) => write_served(out, paint, served)?,
            None => self.write_promises(out, paint)?,
        }
        if let Some(story) = &self.trace {
            write_story(out, paint, story)?;
        }
        match &self.trace_file {
            Some(file) => write_file(out, paint, file),
            None => Ok(()),
        }
    }

    fn write_weather(&self, out: &mut String, paint: Paint) -> fmt::Result {
        writeln!(
            out,
            "{:<14} {:>8} {:>13} {:>13} {:>13} {:>13} {:>19}",
            "", "", "success %", "p50 ms", "p95 ms", "p99 ms", "upstream calls"
        )?;
        let sides = format!("{:>6} {:>6}", "bare", "stack");
        let header = format!(
            "{:<14} {:>8} {sides} {sides} {sides} {sides} {sides} {:>5}",
            "weather", "requests", "×"
        );
        writeln!(out, "{}", paint.dim(&header))?;
        for phase in &self.weather {
            let name = phase.weather.name();
            let row = row(name, &phase.without_stack, &phase.with_stack, paint);
            writeln!(out, "{row}")?;
        }
        writeln!(out, "{}", paint.dim(&"─".repeat(header.chars().count())))?;
        let all = row("in all", &self.without_stack, &self.with_stack, paint);
        writeln!(out, "{all}")
    }

    fn write_counts(&self, out: &mut String, paint: Paint) -> fmt::Result {
        let hinted = self.retries.after_hint;
        let retried = [("after a backoff", self.retries.made - hinted), ("after a hint", hinted)];
        let retried = retried.map(|(what, count)| Counted { what: what.to_owned(), count });
        counts(out, paint, "rejected", &self.rejections)?;
        self.write_waits(out, paint)?;
        counts(out, paint, "timed out", &self.timeouts)?;
        counts(out, paint, "retried", &retried)?;
        counts(out, paint, "gave up", &self.retries.gave_up)?;
        counts(out, paint, "traces", &self.traces.kept)
    }

    fn write_waits(&self, out: &mut String, paint: Paint) -> fmt::Result {
        let limit = &self.limit;
        let told = format!(
            "for the limit, {:.0} ms at most · all were held back {} times for a hint",
            limit.longest_wait_ms, limit.held_back
        );
        writeln!(out, "{:<9} {:>6}  {}", "waited", limit.waited, paint.dim(&told))
    }

    fn write_breaker(&self, out: &mut String, paint: Paint) -> fmt::Result {
        let breaker = format!("breaker: {} at the end", self.breaker_at_end);
        writeln!(out, "{}", paint.bold(&breaker))?;
        let all = &self.transitions[..];
        let (first, last) = match all.len() {
            ..=CHANGES => (all, &all[..0]),
            many => (&all[..CHANGES / 2], &all[many - CHANGES / 2..]),
        };
        for changed in first {
            writeln!(out, "{}", changed.line(paint))?;
        }
        let cut = all.len() - first.len() - last.len();
        if cut > 0 {
            let cut = format!("{:>8}  … {cut} more (--json has all)", "");
            writeln!(out, "{}", paint.dim(&cut))?;
        }
        for changed in last {
            writeln!(out, "{}", changed.line(paint))?;
        }
        Ok(())
    }

    fn write_promises(&self, out: &mut String, paint: Paint) -> fmt::Result {
        writeln!(out, "{}", paint.bold("promises"))?;
        for invariant in &self.invariants {
            let mark = match invariant.held {
                true => paint.good("✓"),
                false => paint.bad("✗"),
            };
            let detail = paint.dim(&cut_to(&invariant.detail, WIDTH - NAME - 3));
            writeln!(out, " {mark} {:<NAME$}{detail}", invariant.name)?;
        }
        let all = self.invariants.len();
        let broken = self.invariants.iter().filter(|invariant| !invariant.held).count();
        let sum = match broken {
            0 => paint.good(&format!("all {all} promises kept")),
            _ => paint.bad(&format!("{broken} of {all} promises broken")),
        };
        write!(out, "{sum}")
    }
}

impl Summary {
    /// What `Stack::check` says of the settings, each in a line.
    fn write_check(&self, out: &mut String, paint: Paint) -> fmt::Result {
        if self.check.is_empty() {
            return Ok(());
        }
        writeln!(out, "{}", paint.bold("the settings, checked"))?;
        for found in &self.check {
            let line = format!(" {:<8} {:<14} {}", found.severity, found.part, found.what);
            writeln!(out, "{}", cut_to(&line, WIDTH))?;
        }
        writeln!(out)
    }
}

// ===== impl Changed =====

impl Changed {
    fn line(&self, paint: Paint) -> String {
        let change = format!("{} → {}", self.from, self.to);
        let open_for = self.open_for_ms.map(|ms| format!("; open for {ms:.0} ms"));
        let reason = format!("{}{}", self.reason, open_for.unwrap_or_default());
        let change = match self.to {
            "closed" => paint.good(&format!("{change:<19}")),
            "open" => paint.bad(&format!("{change:<19}")),
            _ => format!("{change:<19}"),
        };
        format!(
            "{:>6.2} s  {:<14} {change}  {}",
            self.at_seconds,
            self.weather.name(),
            cut_to(&reason, WIDTH - 46)
        )
    }
}

fn write_story(out: &mut String, paint: Paint, story: &Story) -> fmt::Result {
    writeln!(out, "\n")?;
    for line in wrap(&story.title(), TERMINAL) {
        writeln!(out, "{}", paint.bold(&line))?;
    }
    for line in wrap(&story.reason(), TERMINAL) {
        writeln!(out, "{}", paint.dim(&line))?;
    }
    writeln!(out)?;
    let picture = story.record.waterfall().width(TERMINAL).colour(paint.0).to_string();
    write!(out, "{}", picture.trim_end())
}

/// Nothing is judged while anybody may reset a breaker.
fn write_served(out: &mut String, paint: Paint, served: &Served) -> fmt::Result {
    let lines = wrap(&format!("{served}; above is the last lap"), WIDTH);
    write!(out, "{}", paint.bold(&lines.join("\n")))
}

/// In the last lines, where it can be copied from.
fn write_file(out: &mut String, paint: Paint, file: &TraceFile) -> fmt::Result {
    let TraceFile { path, question, command } = file;
    writeln!(out, "\n")?;
    let place = format!("the traces are in {}; {question}:", path.display());
    writeln!(out, "{}", paint.bold(&place))?;
    write!(out, "{command}")
}

fn row(name: &str, bare: &Figures, stack: &Figures, paint: Paint) -> String {
    let mut row = format!("{name:<14} {:>8}", stack.requests);
    let success = |figures: &Figures| format!("{:>6.1}", 100.0 * figures.success_rate);
    let better = stack.success_rate - bare.success_rate;
    push(&mut row, [bare, stack].map(success), better, paint);
    let times = |figures: &Figures| [figures.p50_ms, figures.p95_ms, figures.p99_ms];
    for (bare, stack) in times(bare).into_iter().zip(times(stack)) {
        // What a loaded machine does by itself is neither better nor worse.
        let better = match (bare - stack).abs() > 10.0 {
            true => (bare - stack) / bare.max(stack),
            false => 0.0,
        };
        push(&mut row, [bare, stack].map(time), better, paint);
    }
    let calls = |figures: &Figures| format!("{:>6}", figures.upstream_calls);
    push(&mut row, [bare, stack].map(calls), 0.0, paint);
    row.push_str(&format!(" {:>5.2}", stack.amplification));
    row
}

/// Both sides' values; the stack's in colour where the difference is one to speak of.
fn push(row: &mut String, [bare, stack]: [String; 2], better: f64, paint: Paint) {
    let stack = match better {
        0.05.. => paint.good(&stack),
        ..=-0.05 => paint.bad(&stack),
        _ => stack,
    };
    row.push_str(&format!(" {bare} {stack}"));
}

/// In milliseconds, six columns wide.
fn time(ms: f64) -> String {
    match ms {
        ..99.95 => format!("{ms:>6.1}"),
        _ => format!("{ms:>6.0}"),
    }
}

fn counts(out: &mut String, paint: Paint, name: &str, all: &[Counted]) -> fmt::Result {
    let sum: usize = all.iter().map(|counted| counted.count).sum();
    let parts = all.iter().filter(|counted| counted.count > 0);
    let parts = parts.map(|counted| format!("{} {}", counted.count, counted.what));
    let parts = cut_to(&parts.collect::<Vec<_>>().join(" · "), WIDTH - 18);
    let line = format!("{name:<9} {sum:>6}  {}", paint.dim(&parts));
    writeln!(out, "{}", line.trim_end())
}

/// The lines of a text, broken between its words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn cut_to(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_within_their_column() {
        for (ms, shown) in
            [(0.04, "   0.0"), (99.94, "  99.9"), (99.96, "   100"), (12345.6, " 12346")]
        {
            assert_eq!(time(ms), shown);
        }
    }

    #[test]
    fn a_sentence_is_broken_between_words() {
        assert_eq!(wrap("it was refused", 8), ["it was", "refused"]);
        assert_eq!(wrap("it was refused", 14), ["it was refused"]);
    }

    #[test]
    fn a_long_line_is_cut_by_characters() {
        assert_eq!(cut_to("open → closed", 13), "open → closed");
        assert_eq!(cut_to("open → closed", 7), "open →…");
    }
}
