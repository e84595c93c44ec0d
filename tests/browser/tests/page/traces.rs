//! The list of traces: filters, pages, and new ones.

use browser::{Chrome, World};

use crate::assert_content;

async fn busy() -> World {
    let mut world = World::new("shop");
    for n in 0..70 {
        world.call("search", &format!("http://web.example/{n}?200:{}", 200 + n)).await.unwrap();
    }
    world.call("pay", "http://pay.example/charge?500:40").await.unwrap();
    world.call("slow", "http://slow.example/?hang").await.unwrap_err();
    world
}

#[tokio::test(start_paused = true)]
async fn filters_work_and_are_in_the_address() {
    let mut world = busy().await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    // What failed comes first: it is what one came for.
    chrome.until("document.querySelectorAll('.traces .row').length === 2").await;
    assert_eq!(chrome.texts(".traces .name").await, ["slow", "pay"]);
    assert_eq!(chrome.query().await, "");

    chrome.click("input[value=error]").await;
    chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    assert_eq!(chrome.query().await, "?status=error");
    chrome.click("input[value=all]").await;
    chrome.until("document.querySelectorAll('.traces .row').length === 50").await;

    chrome.click("input[name=target]").await;
    chrome.press("web.example").await;
    chrome.click("input[name=min_ms]").await;
    chrome.press("265").await;
    chrome.until("document.querySelectorAll('.traces .row').length === 5").await;
    assert_eq!(chrome.query().await, "?status=all&target=web.example&min_ms=265");

    // A field that was typed into is one step back, whatever it took to type it.
    chrome.back().await;
    chrome.until("document.querySelectorAll('.traces .row').length === 50").await;
    assert_eq!(chrome.query().await, "?status=all&target=web.example");
    assert_eq!(chrome.run("return document.querySelector('[name=min_ms]').value").await, "");
    chrome.click("#filters-clear").await;
    chrome.until("location.search === '?status=all'").await;

    chrome.open(&format!("{url}?status=all&name=nobody")).await;
    chrome.sees("#traces-note", "No trace matches these filters").await;
    chrome.open(&format!("{url}?status=all&target=pay.example&q=nothing")).await;
    chrome.sees("#traces-note", "No trace matches these filters").await;
    chrome.open(&format!("{url}?status=success&min_ms=269&since=1h")).await;
    chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn older_ones_are_fetched_and_newer_ones_do_not_move_the_list() {
    let mut world = busy().await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&format!("{url}?status=all")).await;
    chrome.until("document.querySelectorAll('.traces .row').length === 50").await;
    chrome.click("#traces-more").await;
    chrome.until("document.querySelectorAll('.traces .row').length === 72").await;
    chrome.until("document.getElementById('traces-more').hidden").await;
    let first = chrome.texts(".traces .row:first-child .name").await;

    for _ in 0..3 {
        world.call("fresh", "http://new.example/?200:1").await.unwrap();
    }
    world.settle().await;
    chrome.sees("#fresh", "3 new").await;
    assert_eq!(chrome.texts(".traces .row:first-child .name").await, first);
    chrome.click("#fresh").await;
    chrome.sees(".traces li:nth-child(3) .name", "fresh").await;
    chrome.until("document.getElementById('fresh').hidden").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_is_opened_by_keyboard_alone_and_left_where_it_was() {
    let mut world = busy().await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "dark").await;
    chrome.open(&format!("{url}?status=error")).await;
    chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    let mut presses = 0;
    while chrome.run("return document.activeElement.matches('.traces .row')").await != true {
        presses += 1;
        assert!(presses < 60, "the trace is not in reach");
        chrome.press(Chrome::TAB).await;
    }
    let scrolled = chrome.run("return window.scrollY").await;
    chrome.press(Chrome::ENTER).await;
    chrome.sees("#trace-title", "pay").await;
    chrome.until("location.search.includes('trace=')").await;

    // The picture is one stop; within it the arrows go from row to row.
    presses = 0;
    while chrome.run("return document.activeElement.matches('[role=treeitem]')").await != true {
        presses += 1;
        assert!(presses < 20, "the waterfall is not in reach");
        chrome.press(Chrome::TAB).await;
    }
    chrome.sees("#tip", "status 500").await;

    chrome.back().await;
    chrome.until("!document.getElementById('overview').hidden").await;
    assert_eq!(chrome.query().await, "?status=error");
    assert_eq!(chrome.run("return window.scrollY").await, scrolled);
    assert_eq!(chrome.texts(".traces .name").await, ["pay"]);
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_is_not_there_is_said_to_be_gone() {
    let mut world = World::new("shop");
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.open(&format!("{url}?trace=0123456789abcdef0123456789abcdef")).await;
    chrome.sees("#trace-title", "not here").await;
    chrome.sees("#trace", "expired").await;
    chrome.click("#trace .back").await;
    chrome.sees("#traces-note", "Nothing that went wrong is kept").await;
    chrome.sees("#breakers-note", "No breaker yet").await;
    chrome.sees("#targets-note", "No call yet").await;
    crate::assert_content_but_for(&chrome, "404").await;
}
