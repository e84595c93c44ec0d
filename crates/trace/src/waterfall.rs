//! A picture of a trace for a terminal.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use portcullis_core::{Outcome, SpanId};

use crate::{
    Kept,
    bar::{self, Axis, Cell},
    ink::{Pen, Short, Style, wrap},
    record::{Attempt, Call, Event, Kind, Status, Trace},
    text::{fit, printable, width},
};

/// A trace as a picture: a bar for each call, with its attempts below it, hatched where it waited;
/// then what every layer decided, and why.
///
/// Made by [`Trace::waterfall`]; the trace's own `Display` is this picture, plain, at 80 columns.
///
/// Names and texts come from peers and users: control characters and marks that turn the direction of
/// writing are taken out, wide characters are counted as such, and what is too long is cut.
///
/// ```
/// # fn show(trace: &portcullis_trace::Trace) {
/// use std::io::{IsTerminal, stdout};
///
/// print!("{}", trace.waterfall().colour(stdout().is_terminal()));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Waterfall<'a> {
    trace: &'a Trace,
    width: usize,
    colour: bool,
}

/// Columns of a call's name.
const LABEL: usize = 20;
/// Columns of its duration and its status.
const FIGURES: usize = 24;
/// The narrowest picture that says anything.
const NARROWEST: usize = 60;
const WIDEST: usize = 400;
/// Lines of an output or an error that are shown.
const LINES: usize = 4;

// ===== impl Trace =====

impl Trace {
    /// The trace as a picture for a terminal.
    pub const fn waterfall(&self) -> Waterfall<'_> {
        Waterfall { trace: self, width: 80, colour: false }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waterfall().fmt(f)
    }
}

// ===== impl Waterfall =====

impl Waterfall<'_> {
    /// Columns of the terminal, from 60 to 400; 80 unless set.
    pub fn width(mut self, columns: usize) -> Self {
        self.width = columns.clamp(NARROWEST, WIDEST);
        self
    }

    /// Whether to use ANSI colours. Not unless set.
    pub fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    fn pen(&self) -> Pen {
        Pen { colour: self.colour }
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, pen) = (self.trace, self.pen());
        let verdict = format!(" · {} in {}", trace.status, Short(trace.duration));
        let room = self.width.saturating_sub(width(&verdict));
        let name = fit(&trace.name, room.min(width(&printable(&trace.name))));
        pen.write(f, Style::Bold, &name)?;
        pen.write(f, Style::of(trace.status), &verdict)?;
        f.write_char('\n')?;

        let mut line = format!("trace {} · ", trace.id);
        // It refuses dates that no calendar has.
        if write!(line, "{}", humantime::format_rfc3339_millis(trace.started_at)).is_err() {
            line.push_str("date unknown");
        }
        self.paragraph(f, "", &line, Style::Dim)?;
        let why = match trace.kept {
            Kept::Failed => "kept because something in it failed".to_owned(),
            Kept::Retried => "kept because an attempt was repeated".to_owned(),
            Kept::Slow => "kept because it was slow".to_owned(),
            Kept::Share => {
                let percent = (trace.sampling_rate * 1e4).round() / 1e2;
                format!("kept as one of the {percent} % of successes that are")
            }
        };
        pen.line(f, Style::Dim, &why)?;
        let pairs = trace.attributes.iter().map(|(key, value)| format!("{key}={value}"));
        let mut pairs = pairs.collect::<Vec<_>>().join(" · ");
        if trace.omitted.attributes > 0 {
            let _ = write!(pairs, " · … {} attributes more", trace.omitted.attributes);
        }
        self.paragraph(f, "", &pairs, Style::Plain)?;
        self.texts(f, trace.error.as_deref(), trace.output.as_ref())
    }

    fn bars(&self, f: &mut fmt::Formatter<'_>, rows: &[(usize, &Call)]) -> fmt::Result {
        let (trace, pen) = (self.trace, self.pen());
        if rows.is_empty() {
            return Ok(());
        }
        let axis = Axis::new(trace, self.width - LABEL - FIGURES - 2);
        let whole = Short(axis.whole()).to_string();
        let zero = fit("0", axis.cells().saturating_sub(width(&whole)));
        pen.line(f, Style::Dim, &format!("\n{:LABEL$} {zero}{whole}", ""))?;
        for (depth, call) in rows {
            self.call_row(f, &axis, *depth, call)?;
        }
        if trace.omitted.calls > 0 {
            pen.line(f, Style::Dim, &format!("… and {} calls more", trace.omitted.calls))?;
        }
        pen.line(f, Style::Dim, "\n█ under way   ░ waiting   × failed or refused")
    }

    fn call_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        axis: &Axis,
        depth: usize,
        call: &Call,
    ) -> fmt::Result {
        let indent = " ".repeat(2 * depth.min(5));
        let label = fit(&format!("{indent}{}", title(call)), LABEL);
        let what = match call.status {
            Status::Success | Status::Cancelled => call.status.as_str(),
            _ => call.error_kind.as_deref().unwrap_or(call.status.as_str()),
        };
        let style = Style::of(call.status);
        self.row(f, &label, Style::Bold, &bar::of_call(axis, call), style, call.duration, what)?;
        let is_plain = matches!(&*call.attempts, [] | [Attempt { number: 1, .. }])
            && call.events.iter().all(|event| event.what != "retrying");
        if is_plain {
            return Ok(());
        }
        for (index, attempt) in call.attempts.iter().enumerate() {
            let next = call.attempts.get(index + 1);
            let cells = bar::of_attempt(axis, attempt, next, call);
            let label = fit(&format!("{indent}  #{}", attempt.number), LABEL);
            let what = match attempt.outcome.kind() {
                Some(kind) => kind.to_string(),
                None => attempt.outcome.as_str().to_owned(),
            };
            let style = Style::of(Status::of(&attempt.outcome));
            self.row(f, &label, Style::Dim, &cells, style, attempt.ended_after, &what)?;
        }
        if call.omitted_attempts > 0 {
            let more = format!("{indent}  … and {} attempts more", call.omitted_attempts);
            self.pen().line(f, Style::Dim, &more)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one line, from left to right")]
    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        label: &str,
        label_style: Style,
        cells: &[Cell],
        style: Style,
        took: Duration,
        what: &str,
    ) -> fmt::Result {
        let pen = self.pen();
        pen.write(f, label_style, label)?;
        f.write_char(' ')?;
        for run in cells.chunk_by(|a, b| a == b) {
            let text: String = run.iter().map(|cell| cell.as_char()).collect();
            match run.first() {
                Some(Cell::Busy | Cell::Failed) => pen.write(f, style, &text)?,
                Some(Cell::Waiting | Cell::Open) => pen.write(f, Style::Dim, &text)?,
                _ => f.write_str(&text)?,
            }
        }
        let figures = FIGURES - 10;
        write!(f, " {:>7}  ", Short(took).to_string())?;
        let what = fit(what, figures + 1);
        pen.line(f, style, what.trim_end())
    }

    fn story(&self, f: &mut fmt::Formatter<'_>, rows: &[(usize, &Call)]) -> fmt::Result {
        let pen = self.pen();
        for (_, call) in rows {
            let has_something = !call.events.is_empty()
                || call.error.is_some()
                || call.output.is_some()
                || !call.attributes.is_empty();
            if !has_something {
                continue;
            }
            f.write_char('\n')?;
            let mut title = title(call);
            for (before, part) in [
                (" ", call.operation.as_deref().filter(|it| *it != call.name)),
                (" → ", call.target.as_deref()),
                (" for ", call.key.as_deref()),
            ] {
                if let Some(part) = part {
                    let _ = write!(title, "{before}{part}");
                }
            }
            let shown = fit(&title, self.width);
            pen.line(f, Style::Bold, shown.trim_end())?;
            let pairs = call.attributes.iter().map(|(key, value)| format!("{key}={value}"));
            self.paragraph(f, "  ", &pairs.collect::<Vec<_>>().join(" · "), Style::Plain)?;
            self.events(f, Some(call), &call.events, call.omitted_events)?;
            self.texts(f, call.error.as_deref(), call.output.as_ref())?;
        }
        if !self.trace.events.is_empty() {
            f.write_str("\n")?;
            pen.line(f, Style::Bold, "outside of its calls")?;
            self.events(f, None, &self.trace.events, self.trace.omitted.events)?;
        }
        Ok(())
    }

    fn events(
        &self,
        f: &mut fmt::Formatter<'_>,
        of: Option<&Call>,
        events: &[Event],
        omitted: u32,
    ) -> fmt::Result {
        let pen = self.pen();
        // Who tells, as wide as it must be, within reason. What the call's title says already is not
        // said again.
        let teller = |event: &Event| {
            let mut teller = event.layer.to_string();
            if of.is_none_or(|call| call.name != event.name) {
                let _ = write!(teller, " {}", event.name);
            }
            let known = |key: &str| {
                key == &*event.name
                    || of.is_some_and(|of| {
                        [&of.target, &of.key].into_iter().any(|it| it.as_deref() == Some(key))
                    })
            };
            if let Some(key) = event.key.as_deref().filter(|key| !known(key)) {
                let _ = write!(teller, " [{key}]");
            }
            teller
        };
        let widest = events.iter().map(|event| width(&printable(&teller(event)))).max();
        let widest = widest.unwrap_or(0).clamp(8, 24);
        let mut ends: Vec<(u32, &str)> = Vec::new();
        for event in events {
            // Every layer tells of the end; once is enough to read.
            if event.what == "settled" {
                let end = (event.attempt, event.why.split(" after ").next().unwrap_or_default());
                if ends.contains(&end) {
                    continue;
                }
                ends.push(end);
            }
            let attempt = match event.attempt {
                0 => String::new(),
                number => format!("#{number}"),
            };
            let (at, teller) = (Short(event.offset).to_string(), fit(&teller(event), widest));
            let margin = format!("{at:>8}  {attempt:<3} {teller}  ");
            let style = match &*event.what {
                "rejected" | "timed_out" | "gave_up" | "signalled" | "broken" | "killed"
                | "not_started" | "not_understood" => Style::Red,
                "retrying" | "resending" | "slow" | "state_changed" | "overflowed"
                | "would_reject" | "held_back" => Style::Yellow,
                _ => Style::Plain,
            };
            // The row says already which attempt it is about.
            let why = event.why.strip_prefix(&format!("attempt {}: ", event.attempt));
            let why = why.unwrap_or(&event.why);
            // Where the head was all there is, once is enough.
            let why = match why.split_once(" (head after ") {
                Some((all, head)) if all.ends_with(head.trim_end_matches(')')) => all,
                _ => why,
            };
            let rest = self.width.saturating_sub(width(&margin)).max(20);
            for (index, line) in wrap(why, rest).enumerate() {
                match index {
                    0 => pen.write(f, Style::Dim, &margin)?,
                    _ => write!(f, "{:1$}", "", width(&margin))?,
                }
                pen.line(f, style, &line)?;
            }
        }
        if omitted > 0 {
            pen.line(f, Style::Dim, &format!("{:>8}  and {omitted} events more", "…"))?;
        }
        Ok(())
    }

    fn texts(
        &self,
        f: &mut fmt::Formatter<'_>,
        error: Option<&str>,
        output: Option<&crate::record::Output>,
    ) -> fmt::Result {
        if let Some(error) = error {
            self.paragraph(f, "  error: ", error, Style::Red)?;
        }
        if let Some(output) = output {
            let more = match output.omitted {
                0 => String::new(),
                omitted => format!("… ({omitted} characters more)"),
            };
            self.paragraph(f, "  output: ", &format!("{}{more}", output.text), Style::Plain)?;
        }
        Ok(())
    }

    /// A text below each other, its first lines only.
    fn paragraph(
        &self,
        f: &mut fmt::Formatter<'_>,
        margin: &str,
        text: &str,
        style: Style,
    ) -> fmt::Result {
        let pen = self.pen();
        let mut lines = wrap(text, self.width - width(margin)).peekable();
        let mut index = 0;
        while let Some(line) = lines.next() {
            match index {
                0 => pen.write(f, Style::Dim, margin)?,
                _ => write!(f, "{:1$}", "", width(margin))?,
            }
            index += 1;
            if index == LINES && lines.peek().is_some() {
                let cut = format!("{} …", line.trim_end());
                let cut = fit(&cut, self.width - width(margin));
                return pen.line(f, style, cut.trim_end());
            }
            pen.line(f, style, &line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Waterfall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = rows(self.trace);
        self.heading(f)?;
        self.bars(f, &rows)?;
        self.story(f, &rows)
    }
}

/// The calls as a tree from the top, each with its depth.
fn rows(trace: &Trace) -> Vec<(usize, &Call)> {
    let known = |span: SpanId| trace.calls.iter().any(|call| call.span == span);
    let mut rows: Vec<(usize, &Call)> = Vec::with_capacity(trace.calls.len());
    let mut shown = vec![false; trace.calls.len()];
    // A stack and no recursion: a record that was read from somewhere may be of any depth, or even
    // be its own parent.
    let is_top = |call: &Call| call.parent.is_none_or(|parent| !known(parent));
    let tops = trace.calls.iter().enumerate().filter(|(_, call)| is_top(call)).map(|(at, _)| at);
    let mut stack: Vec<(usize, usize)> = tops.map(|at| (0, at)).collect();
    stack.reverse();
    while let Some((depth, at)) = stack.pop() {
        if std::mem::replace(&mut shown[at], true) {
            continue;
        }
        rows.push((depth, &trace.calls[at]));
        let of_this = |call: &Call| call.parent == Some(trace.calls[at].span);
        let children = trace.calls.iter().enumerate().rev().filter(|(_, call)| of_this(call));
        stack.extend(children.map(|(child, _)| (depth + 1, child)));
    }
    let left = trace.calls.iter().zip(&shown).filter(|(_, shown)| !**shown);
    rows.extend(left.map(|(call, _)| (0, call)));
    rows
}

fn title(call: &Call) -> String {
    match call.kind {
        Kind::Scope => format!("▾ {}", call.name),
        Kind::Call => call.name.clone(),
    }
}

/// Whether an outcome is drawn with a mark.
pub(crate) fn is_marked(outcome: &Outcome) -> bool {
    !matches!(Status::of(outcome), Status::Success | Status::Cancelled)
}
