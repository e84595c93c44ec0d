//! The agent: five steps, each a scope of its own in the trace, and each use of a tool one in it.

use futures_util::future::{join3, join4};
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
        let seen = TraceScope::start("investigate").run(investigate(tools, &found)).await;
        let shown = TraceScope::start("try out").run(try_out(tools)).await;
        let known = [found, seen, shown].join("\n");
        let answer = TraceScope::start("conclude").try_run(ask_model(tools, &known)).await?;
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

/// Asks three servers at once.
async fn gather(tools: &Tools, plan: &str) -> String {
    trace::attribute("plan", plan);
    let found = join3(
        using("search", 1, tools.search.get("/incidents")),
        using("metrics", 2, tools.metrics.get("/latency")),
        using("people", 3, tools.people.get("/on-call")),
    );
    <[String; 3]>::from(found.await).join("\n")
}

/// Runs four programs at once.
async fn investigate(tools: &Tools, found: &str) -> String {
    let seen = join4(
        using("logs", 4, tools.logs.run(found)),
        using("profile", 5, tools.profile.run("")),
        using("replay", 6, tools.replay.run("")),
        using("dump", 7, tools.dump.run("")),
    );
    <[String; 4]>::from(seen.await).join("\n")
}

/// Has a test bench do what takes it a while.
async fn try_out(tools: &Tools) -> String {
    using("bench", 8, tools.bench.run("without deploy 418")).await
}

/// Uses a tool, as the model's call of this number. What fails is reported to the model rather than to
/// the user.
async fn using(
    tool: &'static str,
    call: u32,
    work: impl Future<Output = Result<String, Error>>,
) -> String {
    let scope = TraceScope::tool(tool).call_id(format!("call_{call}"));
    let used = scope.try_run(async {
        let text = work.await?;
        trace::output(&text);
        Ok::<_, Error>(text)
    });
    match used.await {
        Ok(text) => format!("{tool}: {text}"),
        Err(error) => format!("{tool}: nothing ({error})"),
    }
}
