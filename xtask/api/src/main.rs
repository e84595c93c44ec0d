//! Holds what a library offers against the `api.txt` on record.
//!
//! Its exit status is the answer: 0 for the same or recorded, 1 for another, 3 for a rustdoc whose JSON
//! is of a format that is not read here, 2 for all that went wrong. What changed is printed, a line for
//! each item.

use std::{env, ffi::OsString, fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use lexopt::Arg;
use serde::Deserialize;
use similar::{ChangeTag, TextDiff};

const USAGE: &str = "usage: api [--record] <rustdoc's JSON> <api.txt>";

#[derive(Debug, PartialEq, Eq)]
struct Args {
    json: PathBuf,
    on_record: PathBuf,
    record: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Same,
    /// With what was recorded already, if it was to be recorded.
    Changed(String),
    /// The format of the JSON, which is not the one that is read.
    Foreign(u32),
}

fn main() -> ExitCode {
    let answer = parse(env::args_os().skip(1)).and_then(|args| {
        let answer = compare(&args)?;
        Ok((answer, args.record))
    });
    match answer {
        Ok((Answer::Same, _)) => ExitCode::SUCCESS,
        Ok((Answer::Changed(diff), recorded)) => {
            print!("{diff}");
            if recorded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok((Answer::Foreign(format), _)) => {
            eprintln!(
                "rustdoc's JSON is of format {format} here, and {} is read; another version of \
                 public-api in Cargo.toml may read it",
                rustdoc_types::FORMAT_VERSION
            );
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString, IntoIter: 'static>) -> anyhow::Result<Args> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut files = Vec::new();
    let mut record = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("record") => record = true,
            Arg::Value(file) if files.len() < 2 => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected()).context(USAGE),
        }
    }
    let [json, on_record] = files.try_into().ok().context(USAGE)?;
    Ok(Args { json, on_record, record })
}

fn compare(args: &Args) -> anyhow::Result<Answer> {
    let json = fs::read_to_string(&args.json)
        .with_context(|| format!("{} cannot be read", args.json.display()))?;
    let format = format_of(&json).with_context(|| args.json.display().to_string())?;
    if format != rustdoc_types::FORMAT_VERSION {
        return Ok(Answer::Foreign(format));
    }
    let now = public_api::Builder::from_rustdoc_json(&args.json)
        // What follows from the items and is the same for every type, or nearly.
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .with_context(|| args.json.display().to_string())?
        .to_string();
    let on_record = match fs::read_to_string(&args.on_record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(args.on_record.display().to_string()),
    };

    let diff = diff(&on_record, &now);
    if diff.is_empty() {
        return Ok(Answer::Same);
    }
    if args.record {
        fs::write(&args.on_record, now).with_context(|| args.on_record.display().to_string())?;
    }
    Ok(Answer::Changed(diff))
}

/// The version of the format that a JSON of rustdoc says it is of.
fn format_of(json: &str) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u32,
    }

    serde_json::from_str(json).map(|Versioned { format_version }| format_version)
}

/// The lines that went and came, in their order. A line names its item in full and needs no
/// neighbours to be understood.
fn diff(on_record: &str, now: &str) -> String {
    // As a checkout of another platform ends its lines.
    let on_record = on_record.replace("\r\n", "\n");
    TextDiff::from_lines(&on_record, now)
        .iter_all_changes()
        .filter_map(|change| match change.tag() {
            ChangeTag::Delete => Some(format!("- {}\n", change.value().trim_end())),
            ChangeTag::Insert => Some(format!("+ {}\n", change.value().trim_end())),
            ChangeTag::Equal => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_came_stand_beside_each_other() {
        let on_record = "pub mod a\npub fn a::go(u8)\npub fn a::stay()\npub fn a::went()\n";
        let now = "pub mod a\npub fn a::go(u16)\npub fn a::stay()\npub fn b::came()\n";
        assert_eq!(
            diff(on_record, now),
            "- pub fn a::go(u8)\n+ pub fn a::go(u16)\n- pub fn a::went()\n+ pub fn b::came()\n"
        );
        assert_eq!(diff("", "pub mod a\n"), "+ pub mod a\n");
        assert_eq!(diff(now, now), "");
    }

    #[test]
    fn line_ends_of_another_platform_are_no_change() {
        assert_eq!(diff("pub mod a\r\npub fn a::b()\r\n", "pub mod a\npub fn a::b()\n"), "");
    }

    #[test]
    fn the_format_is_known_before_the_rest_can_be_read() {
        assert_eq!(format_of(r#"{"root":[{}],"format_version":4711}"#).unwrap(), 4711);
        assert!(format_of(r#"{"root":0}"#).is_err());
    }

    #[test]
    fn takes_two_files_and_one_option() {
        let parsed = |words: &[&'static str]| {
            parse(words.iter().map(OsString::from).collect::<Vec<_>>())
                .map_err(|error| format!("{error:#}"))
        };
        let args = Args { json: "a.json".into(), on_record: "api.txt".into(), record: false };
        assert_eq!(parsed(&["a.json", "api.txt"]), Ok(args));
        assert!(parsed(&["a.json", "--record", "api.txt"]).unwrap().record);
        assert!(parsed(&["a.json"]).unwrap_err().contains("usage"));
        assert!(parsed(&["a.json", "api.txt", "b.txt"]).unwrap_err().contains("b.txt"));
        assert!(parsed(&["--recrod", "a.json", "api.txt"]).unwrap_err().contains("--recrod"));
    }
}
