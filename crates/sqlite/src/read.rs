//! Finding traces.

use std::{fmt::Write, sync::Arc};

use portcullis_core::TraceId;
use portcullis_trace::{Cursor, Page, Query, Status, Trace};
use rusqlite::{ToSql, Transaction};

use crate::{
    day::{self, Day},
    error::Trouble,
    schema,
};

/// Characters of a text that rows are searched for; the whole text is compared in what is found.
const SEARCHED: usize = 200;
/// Escapes the wildcards of a pattern. No JSON has one.
const ESCAPE: char = '\u{1}';

/// What was found, and how many records could not be read.
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) unreadable: u64,
}

/// All records of a trace that do not stand before the horizon, in the order of their starts.
pub(crate) fn get(
    tx: &Transaction<'_>,
    id: TraceId,
    horizon: i64,
) -> Result<Found<Vec<Arc<Trace>>>, Trouble> {
    let id = id.to_string();
    let mut unreadable = 0;
    let mut found = Vec::new();
    for entry in schema::days(tx)? {
        if entry.day.end() <= horizon {
            break;
        }
        let table = entry.day.table();
        let mut select = tx.prepare_cached(&format!(
            "SELECT record FROM {table} WHERE id = ?1 AND started >= ?2"
        ))?;
        let mut rows = select.query((&id, horizon))?;
        while let Some(row) = rows.next()? {
            match read(row) {
                Some(trace) => found.push(Arc::new(trace)),
                None => unreadable += 1,
            }
        }
    }
    found.sort_by_key(|trace| (trace.started_at, trace.span));
    Ok(Found { value: found, unreadable })
}

/// The page that a query asks for, of what does not stand before the horizon. Goes from the newest day
/// to the oldest, and no further than the page.
pub(crate) fn query(
    tx: &Transaction<'_>,
    query: &Query,
    horizon: i64,
) -> Result<Found<Page>, Trouble> {
    let since = query.since.map_or(horizon, |since| day::bound(since).max(horizon));
    let until = query.until.map_or(i64::MAX, day::bound);
    // Strictly before this place and span.
    let cursor = query.cursor.map(|cursor| (day::place_at(cursor.nanos()), cursor.span()));
    let (place, span) = cursor.unwrap_or((i64::MAX, 0)).min((until, 0));
    // Written as they are in the file, where their order is that of the numbers.
    let span = format!("{span:016x}");

    let mut page = Page::default();
    let mut unreadable = 0;
    let search = Search::of(query);
    for entry in schema::days(tx)? {
        if entry.day.start() > place {
            continue;
        }
        if entry.day.end() <= since {
            break;
        }
        let mut select = tx.prepare_cached(&search.sql(entry.day))?;
        let mut values: Vec<&dyn ToSql> = vec![&since, &place, &span];
        values.extend(search.values.iter().map(|value| &**value));
        let mut rows = select.query(&values[..])?;
        while let Some(row) = rows.next()? {
            match read(row) {
                None => unreadable += 1,
                Some(trace) if !query.matches(&trace) => {}
                // One more than the page has: so there is a next one.
                Some(_) if page.traces.len() == query.page_size() => {
                    page.next = page.traces.last().map(|last| Cursor::after(last));
                    return Ok(Found { value: page, unreadable });
                }
                Some(trace) => page.traces.push(Arc::new(trace)),
            }
        }
    }
    Ok(Found { value: page, unreadable })
}

/// What SQLite can say about which rows are not looked for. What it lets pass is read, and compared
/// with the query itself.
struct Search {
    conditions: String,
    values: Vec<Box<dyn ToSql>>,
    failed_only: bool,
}

// ===== impl Search =====

impl Search {
    fn of(query: &Query) -> Self {
        let mut search = Self { conditions: String::new(), values: Vec::new(), failed_only: false };
        if let Some(status) = query.status {
            search.failed_only = status != Status::Success;
            search.add("status = ?", Box::new(status.as_str()));
        }
        if let Some(least) = query.min_duration {
            let least = i64::try_from(least.as_nanos()).unwrap_or(i64::MAX);
            search.add("duration >= ?", Box::new(least));
        }
        // A name is somewhere in the record as JSON writes it, quotes included.
        for name in [&query.name, &query.target].into_iter().flatten() {
            search.add("instr(record, ?) > 0", Box::new(format!("\"{}\"", escaped(name))));
        }
        if let Some(text) = &query.text {
            let begin: String = text.chars().take(SEARCHED).collect();
            search.add("record LIKE ? ESCAPE char(1)", Box::new(pattern(&escaped(&begin))));
        }
        search
    }

    fn add(&mut self, condition: &str, value: Box<dyn ToSql>) {
        let _ = write!(self.conditions, " AND {condition}");
        self.values.push(value);
    }

    fn sql(&self, day: Day) -> String {
        let table = day.table();
        let conditions = &self.conditions;
        // The words by which SQLite knows that the partial index will do.
        let (index, failed) = match self.failed_only {
            true => ("failed", " AND status <> 'success'"),
            false => ("order", ""),
        };
        format!(
            "SELECT record FROM {table} INDEXED BY {table}_{index} \
             WHERE started >= ? AND (started, span) < (?, ?){failed}{conditions} \
             ORDER BY started DESC, span DESC"
        )
    }
}

/// `None` if it cannot be read: something has changed the file.
fn read(row: &rusqlite::Row<'_>) -> Option<Trace> {
    serde_json::from_str(row.get_ref(0).ok()?.as_str().ok()?).ok()
}

/// A text as it stands within a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// What `LIKE` finds this text with, wherever it is.
fn pattern(text: &str) -> String {
    let mut pattern = "%".to_owned();
    for c in text.chars() {
        if matches!(c, '%' | '_') {
            pattern.push(ESCAPE);
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
