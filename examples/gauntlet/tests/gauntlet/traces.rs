//! The file that a run leaves behind, asked as a person would ask it.

use std::{path::Path, process::Command};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// What `sqlite3` would be given, as a shell reads the line.
fn words(line: &str) -> Vec<String> {
    let script = format!("sqlite3() {{ printf '%s\\0' \"$@\"; }}\n{line}");
    let shell = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(shell.status.success(), "{line}: {shell:?}");
    let told = String::from_utf8(shell.stdout).unwrap();
    told.split_terminator('\0').map(str::to_owned).collect()
}

fn open(path: &str) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn number(file: &Connection, query: &str) -> u64 {
    file.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
}

/// A short run. The promises are not judged here: this machine does other things at the same time.
fn run(path: &Path) -> Value {
    let gauntlet = Command::new(env!("CARGO_BIN_EXE_gauntlet"))
        .args(["--seconds", "5", "--json", "--traces"])
        .arg(path)
        .output()
        .unwrap();
    let told = String::from_utf8(gauntlet.stdout).unwrap();
    serde_json::from_str(&told)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&gauntlet.stderr)))
}

fn kept(told: &Value) -> u64 {
    let kept = told["traces"]["kept"].as_array().unwrap().iter();
    kept.map(|counted| counted["count"].as_u64().unwrap()).sum()
}

#[test]
fn what_a_run_leaves_answers_what_people_ask() {
    let folder = tempfile::tempdir().unwrap();
    // Not a plain word to a shell.
    let path = folder.path().join("it's here.db");
    let told = run(&path);

    let words = words(told["trace_file"]["command"].as_str().unwrap());
    let [first, second, file, query] = &words[..] else { panic!("{words:?}") };
    assert_eq!([first, second], ["-readonly", "-box"]);
    assert_eq!(Path::new(file), path);
    let file = open(file);

    // The line that the summary prints: the slowest calls.
    let mut slowest = file.prepare(query).unwrap();
    assert_eq!(slowest.column_names(), ["date", "operation", "ms", "status", "attempts", "error"]);
    let slowest: Vec<(f64, String)> = slowest
        .query_map([], |row| Ok((row.get("ms")?, row.get("status")?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(slowest.len(), 5);
    assert!(slowest.is_sorted_by(|one, next| one.0 >= next.0), "{slowest:?}");
    let longest = "SELECT round(max(ms)) FROM spans WHERE kind = 'call'";
    let longest: f64 = file.query_row(longest, [], |row| row.get(0)).unwrap();
    assert_eq!(slowest[0].0, longest);
    assert!(longest > 100.0, "the upstream hung, and nobody waited: {longest} ms");

    // Every trace that was kept is there, and nothing of the weather is missing.
    assert_eq!(number(&file, "SELECT count(*) FROM traces"), kept(&told));
    for (asked, why) in [
        ("status <> 'success'", "calls failed"),
        ("status = 'rejected' AND error_kind IS NOT NULL", "the breaker or the limit refused"),
        ("attempts > 1", "calls were tried again"),
        ("name = 'upstream' AND events > 0", "decisions were told"),
    ] {
        let query = format!("SELECT count(*) FROM spans WHERE kind = 'call' AND {asked}");
        assert!(number(&file, &query) > 0, "{why}: {query}");
    }

    // The call that is told at the end, in full.
    let id = told["trace"]["record"]["id"].as_str().unwrap();
    let of_one = format!("SELECT count(*) FROM spans WHERE trace = '{id}' AND kind = 'call'");
    assert_eq!(number(&file, &of_one), 1);
    let decisions = format!(
        "SELECT count(*) FROM traces t, json_each(t.record, '$.calls') c, \
         json_each(c.value, '$.events') e WHERE t.id = '{id}' AND e.value ->> '$.why' <> ''"
    );
    assert!(number(&file, &decisions) > 1);

    // A second run in the same file adds to it, and speaks of its own alone.
    let before = kept(&told);
    let again = run(&path);
    assert_eq!(number(&file, "SELECT count(*) FROM traces"), before + kept(&again));
    assert_ne!(again["trace"]["record"]["id"], told["trace"]["record"]["id"]);
}

#[test]
fn a_file_that_cannot_be_had_ends_the_run_before_it_begins() {
    let gauntlet = Command::new(env!("CARGO_BIN_EXE_gauntlet"))
        .args(["--seconds", "600", "--traces", "/no/such/folder/traces.db"])
        .output()
        .unwrap();
    assert_eq!(gauntlet.status.code(), Some(1));
    let told = String::from_utf8(gauntlet.stderr).unwrap();
    assert!(told.contains("/no/such/folder"), "{told}");
}
