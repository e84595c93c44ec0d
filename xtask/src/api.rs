//! What each library offers, held against the `api.txt` on record beside its manifest.
//!
//! A change of the public API is then seen in the change itself, and made on purpose. The items are
//! read from rustdoc's JSON by the package `api`; how that is written is not settled, so the compiler
//! must be told to do it, and one that writes another format is none to judge by.

use std::{ffi::OsStr, io};

use crate::{
    house::{self, Member},
    runner::{Outcome, cargo, root, status},
};

/// Where the documentation is built. What is told to the compiler makes another build of everything.
const TARGET: &str = "target/api";

/// Holds every library's API against the one on record; `record` writes it down in place of that.
pub(crate) fn run(record: bool) -> Outcome {
    compare(record).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

fn compare(record: bool) -> io::Result<Outcome> {
    let libraries: Vec<_> = house::members()?.into_iter().filter(Member::is_library).collect();
    let mut document =
        cargo(["doc", "--quiet", "--no-deps", "--lib", "--all-features", "--target-dir", TARGET]);
    document
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    for library in &libraries {
        document.args(["--package", &library.name]);
    }
    if let Outcome::Failed(why) = status(&mut document) {
        return Ok(Outcome::Failed(format!("rustdoc: {why}")));
    }

    let mut changed = Vec::new();
    for library in &libraries {
        let json = format!("{TARGET}/doc/{}.json", library.name.replace('-', "_"));
        let on_record = root().join(&library.folder).join("api.txt");
        let mut judge = cargo(["run", "--quiet", "--package", "api", "--"]);
        judge.args([OsStr::new(&json), on_record.as_os_str()]);
        if record {
            judge.arg("--record");
        }
        let judged = judge.output()?;
        let diff = String::from_utf8_lossy(&judged.stdout);
        let error = String::from_utf8_lossy(&judged.stderr);
        match judged.status.code() {
            Some(0 | 1) if !diff.is_empty() => {
                eprint!("{}\n{diff}", library.name);
                changed.push(library.name.as_str());
            }
            Some(0) => {}
            Some(3) => return Ok(Outcome::NotRun(error.trim().to_owned())),
            _ => return Ok(Outcome::Failed(format!("{}: {}", library.name, error.trim()))),
        }
    }
    Ok(if record || changed.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed(format!(
            "another than on record: {}; `cargo xtask api --record` records it",
            changed.join(", ")
        ))
    })
}
