//! An agent's turn: it asks a model what to do, uses three tools at once, and has the model answer.
//! All of them are real servers on the loopback interface, and each fails in its own way. In the end
//! the whole turn is shown as one story.

mod agent;
mod tools;
mod world;

#[cfg(test)]
mod tests;

use std::{
    io::{IsTerminal, stdout},
    sync::Arc,
};

use portcullis::trace::{Query, Recorder, record::Trace};

use self::{tools::Tools, world::World};

const QUESTION: &str = "why is checkout slow?";
const INTRODUCTION: &str = "\
An agent plans with a model, uses three tools at once, and has the model answer.
The model is busy at first, search fails once, metrics never answers, and nobody
listens where people should be. It gets by with what it can have.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    println!("{INTRODUCTION}");
    let (answer, story, tools) = turn().await?;
    println!("Asked: {QUESTION}\nAnswered: {answer}\n\nHow it came to that:\n");
    print!("{}", story.waterfall().colour(stdout().is_terminal()));

    println!("\nWhat the settings of its four stacks come to, known before any call is made:\n");
    for tool in tools.all() {
        let report = tool.check();
        println!("{}", report.to_string().lines().next().unwrap_or_default());
    }
    println!("\nIn full, for the metrics:\n\n{}", tools.metrics.check());
    Ok(())
}

/// One turn against a world of its own: the answer, the record of it all, and what it was done with.
async fn turn() -> anyhow::Result<(String, Arc<Trace>, Tools)> {
    let world = World::begin().await?;
    // One recorder for all stacks, so that whatever the agent does ends up in one trace.
    let recorder = Recorder::builder().build()?;
    let tools = Tools::new(&world, &recorder)?;
    let answer = agent::answer(&tools, QUESTION).await?;

    recorder.flush().await;
    let page = recorder.store().query(&Query::new()).map_err(anyhow::Error::from_boxed)?;
    let story = page.traces.first().cloned();
    Ok((answer, story.ok_or_else(|| anyhow::anyhow!("no trace was kept"))?, tools))
}
