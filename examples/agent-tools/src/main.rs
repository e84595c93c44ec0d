//! An agent's turn: it asks a model what to do, uses three servers and four programs, has a test bench do
//! what takes a while, and has the model answer. The servers are real ones on the loopback interface; the
//! programs are this one, started again. Nearly each of them fails in a way of its own. In the end the
//! whole turn is shown as one story.

mod agent;
mod bench;
mod program;
mod tools;
mod world;

use std::{
    env::args_os,
    io::{IsTerminal, stdout},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use portcullis::trace::{Query, Recorder, record::Trace};

use self::{program::AS_TOOL, tools::Tools, world::World};

const QUESTION: &str = "why is checkout slow?";
const INTRODUCTION: &str = "\
An agent plans with a model, asks three servers, runs four programs, has a test
bench try something out, and has the model answer. The model is busy at first;
search fails once, metrics never answers, and nobody listens where people should
be; of the programs one is not ready at first, one crashes, one hangs and one
floods. The test bench takes its time. The agent gets by with what it can have.
";

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<_> = args_os().skip(1).collect();
    match &args[..] {
        [as_tool, tool, folder] if as_tool == AS_TOOL => {
            return Ok(program::main(&tool.to_string_lossy(), Path::new(folder)));
        }
        [] => tell(false)?,
        [json] if json == "--json" => tell(true)?,
        _ => anyhow::bail!("it has one option: --json prints the record of the turn"),
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn tell(as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let (_, story, _) = turn().await?;
        println!("{}", serde_json::to_string_pretty(&*story)?);
        return Ok(());
    }
    println!("{INTRODUCTION}");
    let (answer, story, tools) = turn().await?;
    println!("Asked: {QUESTION}\nAnswered: {answer}\n\nHow it came to that:\n");
    print!("{}", story.waterfall().colour(stdout().is_terminal()));

    println!(
        "\nWhat the settings of the stacks in front of servers come to, known before any call:\n"
    );
    for report in tools.checks() {
        println!("{}", report.to_string().lines().next().unwrap_or_default());
    }
    println!("\nIn full, for the metrics:\n\n{}", tools.metrics.check());
    Ok(())
}

/// One turn against a world of its own: the answer, the record of it all, and what it was done with.
async fn turn() -> anyhow::Result<(String, Arc<Trace>, Tools)> {
    let (world, folder) = (World::begin().await?, tempfile::tempdir()?);
    // One recorder for all stacks, so that whatever the agent does ends up in one trace.
    let recorder = Recorder::builder().build()?;
    let tools = Tools::new(&world, folder.path(), &recorder)?;
    let answer = agent::answer(&tools, QUESTION).await?;

    recorder.flush().await;
    let page = recorder.store().query(&Query::new()).map_err(anyhow::Error::from_boxed)?;
    let story = page.traces.first().cloned();
    Ok((answer, story.ok_or_else(|| anyhow::anyhow!("no trace was kept"))?, tools))
}
