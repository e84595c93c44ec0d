//! The agent: three steps, each a scope of its own in the trace.

use futures_util::future::join3;
use portcullis::{
    Error,
    trace::{self, TraceScope},
};

use crate::tools::Tools;

/// Answers a question. That some tools fail does not end the turn; that the model fails does.
pub(crate) async fn answer(tools: &Tools, question: &str) -> Result<String, Error> {
    let scope = TraceScope::start(format!("answer: {question}")).attribute("user", "u-17");
    let turn = async {
        let plan = TraceScope::start("plan").try_run(ask_model(tools, question)).await?;
        let found = TraceScope::start("gather").run(gather(tools, &plan)).await;
        let answer = TraceScope::start("conclude").try_run(ask_model(tools, &found)).await?;
        // What comes out of a turn is in its trace because it is put there, here.
        trace::output(&answer);
        Ok(answer)
    };
    scope.try_run(turn).await
}

async fn ask_model(tools: &Tools, prompt: &str) -> Result<String, Error> {
    let text = tools.model.post("/v1/complete", prompt).await?;
    trace::output(&text);
    Ok(text)
}

/// Uses all tools at once. What fails is reported to the model rather than to the user.
async fn gather(tools: &Tools, plan: &str) -> String {
    trace::attribute("plan", plan);
    let (search, metrics, people) = join3(
        tools.search.get("/incidents"),
        tools.metrics.get("/latency"),
        tools.people.get("/on-call"),
    )
    .await;
    let found = [("search", search), ("metrics", metrics), ("people", people)];
    let found = found.map(|(tool, result)| match result {
        Ok(text) => format!("{tool}: {text}"),
        Err(error) => format!("{tool}: nothing ({error})"),
    });
    found.join("\n")
}
