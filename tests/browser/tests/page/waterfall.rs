//! The picture of one trace.

use browser::{Chrome, World};

use crate::assert_content;

#[tokio::test(start_paused = true)]
async fn a_retried_call_has_a_bar_for_each_attempt_and_a_hatched_gap_between_them() {
    let mut world = World::new("shop");
    world.call("news", "http://news.example/?503:40,503:20,200:30+60").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&format!("{url}?status=all")).await;
    chrome.sees(".traces .row", "3 attempts").await;
    chrome.click(".traces .row").await;
    chrome.sees("#trace .verdict", "success in 750 ms").await;
    chrome.until("document.querySelectorAll('.plot .attempt').length === 3").await;
    let labels = chrome.texts(".plot .label").await;
    assert_eq!(labels, ["newsnews.example", "#1", "#2", "#3"]);
    let whats = chrome.texts(".plot .what").await;
    assert_eq!(whats, ["success", "status 503", "status 503", "success"]);
    let took = chrome.texts(".plot .took").await;
    assert_eq!(took, ["750 ms", "40 ms", "20 ms", "90 ms"]);

    // Each gap is hatched, as wide as the wait, between the attempts that it is between.
    let boxes = "[...document.querySelectorAll('.plot .line')].map((line) =>
        [...line.querySelectorAll('rect')].map((it) =>
            [it.getAttribute('fill') ?? it.getAttribute('class'), +it.getAttribute('x'),
             +it.getAttribute('x') + +it.getAttribute('width')]))";
    let rows = chrome.run(&format!("return {boxes}")).await;
    let width = chrome.run("return document.querySelector('.axis').getBoundingClientRect().width");
    let width = width.await.as_f64().unwrap();
    let x = |ms: f64| ms / 750.0 * width;
    let find = |row: usize, kind: &str| -> (f64, f64) {
        let shapes = rows[row].as_array().unwrap();
        let shape = shapes.iter().find(|it| it[0].as_str().unwrap().starts_with(kind)).unwrap();
        (shape[1].as_f64().unwrap(), shape[2].as_f64().unwrap())
    };
    let near = |(from, to): (f64, f64), (wanted_from, wanted_to): (f64, f64)| {
        assert!((from - x(wanted_from)).abs() < 1.0, "{from} is not {}", x(wanted_from));
        assert!((to - x(wanted_to)).abs() < 1.0, "{to} is not {}", x(wanted_to));
    };
    near(find(1, "url(#hatch)"), (40.0, 340.0));
    near(find(1, "busy is-error"), (0.0, 40.0));
    near(find(2, "url(#hatch)"), (360.0, 660.0));
    near(find(2, "busy is-error"), (340.0, 360.0));
    near(find(3, "busy is-success"), (660.0, 690.0));
    near(find(3, "busy body is-success"), (690.0, 750.0));
    near(find(0, "url(#hatch)"), (0.0, 750.0));
    // The moment of the head.
    assert!((find(0, "head").0 - x(690.0)).abs() < 1.0);

    // Why it waited is said where one points at the wait, and in the list below.
    let gap = "document.querySelectorAll('.plot .attempt')[0].querySelector('[fill]')";
    let place = format!(
        "const box = {gap}.getBoundingClientRect(); return [box.x + box.width / 2, box.y + 4]"
    );
    let place = chrome.run(&place).await;
    let at = |axis: usize| place[axis].as_f64().unwrap() as i64;
    chrome.point(at(0), at(1)).await;
    chrome.sees("#tip", "backoff before retry 1").await;
    chrome.sees(".story .events", "next in 300.0ms: backoff before retry 1").await;
    assert_eq!(chrome.texts(".story .attempts tbody tr").await.len(), 3);
    let otlp = chrome.run("return document.querySelector('a[download]').href").await;
    assert!(otlp.as_str().unwrap().ends_with("/otlp"));
    let script = "fetch(document.querySelector('a[download]').href).then((it) => it.json()).then((it) => { window.otlp = it })";
    chrome.run(script).await;
    chrome.until("window.otlp?.resourceSpans.length > 0").await;

    // It has an address of its own.
    let address = chrome.run("return location.href").await;
    chrome.open("about:blank").await;
    chrome.open(address.as_str().unwrap()).await;
    chrome.until("document.querySelectorAll('.plot .attempt').length === 3").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn scopes_are_groups_and_refusals_are_marks() {
    let mut world = World::new("shop");
    world.trip("crm", "crm.example").await;
    let plan = world.calling("model", "http://model.example/plan?200:100");
    let news = world.calling("news", "http://news.example/?200:30");
    let crm = world.calling("crm", "http://crm.example/?500:1");
    let gather = world.scope("gather").attribute("sources", 2);
    let turn = world.scope("answer question").attribute("user", "u-17");
    turn.run(async {
        plan.await.unwrap();
        gather.run(async { (news.await.unwrap(), crm.await.unwrap_err()) }).await;
        portcullis::trace::output("Because of Rayleigh scattering.");
    })
    .await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "dark").await;
    chrome.open(&format!("{url}?status=all&name=answer%20question")).await;
    chrome.click(".traces .row").await;
    chrome.sees("#trace-title", "answer question").await;
    chrome.sees("#trace .attributes", "u-17").await;
    chrome.sees("#trace .block", "Because of Rayleigh scattering.").await;
    let levels = "return [...document.querySelectorAll('.plot .line')].map((it) =>
        [it.querySelector('.label bdi').textContent, +it.ariaLevel])";
    let wanted = serde_json::json!([
        ["answer question", 1],
        ["model", 2],
        ["gather", 2],
        ["news", 3],
        ["crm", 3],
    ]);
    assert_eq!(chrome.run(levels).await, wanted);
    // The first that did not go well is what is told of.
    chrome.sees(".story h3", "crm.example").await;
    chrome.sees(".story .block", "5 failures in a row (limit 5)").await;
    assert_eq!(chrome.texts(".plot .is-rejected .cross").await.len(), 1);

    chrome.click(".plot .line.scope .fold").await;
    chrome.until("document.querySelectorAll('.plot .line').length === 3").await;
    chrome.click(".plot .line.scope").await;
    chrome.sees(".story", "sources").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_of_256_calls_stays_usable() {
    let mut world = World::new("crawler");
    let calls: Vec<_> = (0..256)
        .map(|n| {
            let status = if n == 200 { 500 } else { 200 };
            world
                .calling(&format!("crawl {}", n / 5), &format!("http://h{n}.example/?{status}:{n}"))
        })
        .collect();
    let crawl = world.scope("crawl everything");
    crawl
        .run(async {
            for call in calls {
                call.await.unwrap();
            }
        })
        .await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&format!("{url}?status=all&name=crawl%20everything")).await;
    chrome.click(".traces .row").await;
    chrome.until("document.querySelectorAll('.plot .line').length === 260").await;
    // What failed is in sight, and so is what is told of it.
    let is_in_sight = "(() => {
        const row = document.querySelector('.plot [aria-selected=true]').getBoundingClientRect();
        const frame = document.querySelector('.scroller').getBoundingClientRect();
        const story = document.querySelector('.story').getBoundingClientRect();
        return row.top >= frame.top && row.bottom <= frame.bottom && story.top < innerHeight;
    })()";
    chrome.until(is_in_sight).await;
    chrome.sees(".story h3", "h200.example").await;
    chrome.click(".waterfall button[aria-pressed]").await;
    chrome.until("document.querySelectorAll('.plot .line').length === 5").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn from_a_link_that_one_was_sent_the_way_back_leads_to_the_list() {
    let mut world = World::new("shop");
    world.call("news", "http://news.example/?503:40,200:30").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(390, 844, "light").await;
    chrome.open(&format!("{url}?status=all")).await;
    chrome.click(".traces .row").await;
    chrome.until("document.querySelectorAll('.plot .attempt').length === 2").await;
    let link = chrome.run("return location.href").await;
    chrome.open("about:blank").await;
    chrome.open(link.as_str().unwrap()).await;
    chrome.click(".plot .attempt").await;
    chrome.until("document.querySelector('.plot .attempt').ariaSelected === 'true'").await;
    chrome.reload().await;
    // What was looked at is part of the link, too.
    chrome.until("document.querySelector('.plot .attempt')?.ariaSelected === 'true'").await;
    chrome.click("#trace .back").await;
    chrome.until("location.search === '?status=all'").await;
    chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_and_its_client_kept_of_a_trace_is_drawn_as_one() {
    let mut world = World::new("shop");
    let call = world.calling("news", "http://traced.example/search?503:20,200:50");
    world.scope("answer question").run(call).await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&format!("{url}?status=all&name=answer%20question")).await;
    chrome.click(".traces .row").await;
    chrome.until("document.querySelectorAll('.plot .line').length === 6").await;
    let levels = "return [...document.querySelectorAll('.plot .line')].map((it) =>
        [it.querySelector('.label bdi').textContent, +it.ariaLevel])";
    let wanted = serde_json::json!([
        ["answer question", 1],
        ["news", 2],
        ["#1", 3],
        ["#2", 3],
        ["serve /search", 3],
        ["serve /search", 3],
    ]);
    assert_eq!(chrome.run(levels).await, wanted);
    // The server's time is the client's: what it did stands below the attempt that it answered.
    let starts = "return [...document.querySelectorAll('.plot .line')].map((it) =>
        +(it.querySelector('.strip .is-success, .strip .is-error')?.getAttribute('x')
          ?? it.querySelector('.strip .scope').getAttribute('d').match(/^M([\\d.]+)/)[1]))";
    let starts = chrome.run(starts).await;
    let start = |row: usize| starts[row].as_f64().unwrap();
    for (attempt, served) in [(2, 4), (3, 5)] {
        // Dates are in milliseconds.
        assert!((start(attempt) - start(served)).abs() < 5.0, "{starts}");
    }
    assert_content(&chrome).await;
}
