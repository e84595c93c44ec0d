//! Takes the project's page's snippets of reqwest for the tests here, where there is a server to run them
//! against.

use std::{env, fs, io, path::Path};

const PAGE: &str = "../../README.md";
const HEADING: &str = "## The stack in front of reqwest";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let mut snippets = snippets(&page);
    for file in ["middleware.rs", "service.rs"] {
        fs::write(Path::new(&out).join(file), snippets.next().unwrap_or_default())?;
    }
    Ok(())
}

/// The blocks of code below the heading.
fn snippets(page: &str) -> impl Iterator<Item = &str> {
    let section = page.split_once(HEADING).map(|(_, section)| section).unwrap_or_default();
    let blocks = section.split("```rust\n").skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0))
}
