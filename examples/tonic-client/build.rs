//! Generates the client and the server from the service's description here, so that no compiler of
//! `.proto` files is needed. A program that has one uses `tonic_prost_build` as ever.

use std::{env, fs, io, path::Path};

use tonic_build::manual::{Builder, Method, Service};

/// Where the project's page shows a client like this one.
const PAGE: &str = "../../README.md";
const HEADING: &str = "## The stack in front of tonic";

fn main() -> io::Result<()> {
    let say_hello = Method::builder()
        .name("say_hello")
        .route_name("SayHello")
        .input_type("crate::hello::HelloRequest")
        .output_type("crate::hello::HelloReply")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let greeter = Service::builder().package("hello").name("Greeter").method(say_hello).build();
    Builder::new().build_transport(false).compile(&[greeter]);

    // The page's snippet is compiled and run by the tests here, for only here is there a client that was
    // generated.
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("readme.rs"), snippet(&page).unwrap_or_default())
}

/// The first block of code below the heading.
fn snippet(page: &str) -> Option<&str> {
    let (_, section) = page.split_once(HEADING)?;
    let (_, block) = section.split_once("```rust,ignore\n")?;
    Some(block.split_once("```")?.0)
}
