//! Breakers on the page: their states as they change, and orders to them.

use browser::{Chrome, World};

use crate::{assert_content, assert_content_but_for};

#[tokio::test(start_paused = true)]
async fn a_change_of_state_shows_without_a_reload() {
    let mut world = World::new("shop");
    world.call("pay", "http://pay.example/?200:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".tile .state", "closed").await;
    chrome.sees("#health", "all well").await;
    chrome.sees("#live", "live").await;
    chrome.run("window.isTheSame = true").await;

    world.trip("pay", "pay.example").await;
    chrome.sees(".tile .state", "open").await;
    chrome.sees(".tile .why", "5 failures in a row (limit 5)").await;
    chrome.sees(".tile .gauge", "half-open in").await;
    chrome.sees("#latest", "closed → open").await;
    chrome.sees("#health", "degraded: 1 open").await;
    chrome.until("document.title.startsWith('(1 open)')").await;
    let left = "parseFloat(document.querySelector('.tile .gauge b').textContent)";
    let before = chrome.until(left).await.as_f64().unwrap();
    assert!(before <= 30.0, "{before}");
    chrome.until(&format!("{left} < {before}")).await;

    chrome.sees(".tile .foot", "1 ok, 5 failed, 1 rejected").await;
    chrome.sees("#targets-body", "pay").await;
    assert_eq!(chrome.run("return window.isTheSame").await, true);
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_takes_the_token_and_a_wrong_one_is_refused() {
    let mut world = World::new("shop");
    world.trip("pay", "pay.example").await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "dark").await;
    chrome.open(&url).await;
    chrome.sees(".tile .state", "open").await;

    chrome.click(".tile .dots").await;
    chrome.sees(".menu", "Reset").await;
    chrome.click(".menu button:first-child").await;
    chrome.sees("dialog[open]", "Reset: pay pay.example?").await;
    chrome.press(&format!("guess{}", Chrome::ENTER)).await;
    chrome.sees("dialog[open] .problem", "The token was refused").await;
    chrome.sees(".tile .state", "open").await;
    // Neither does one that no header can hold come from a server that is gone.
    chrome.press(&format!("10€{}", Chrome::ENTER)).await;
    chrome.until("document.querySelector('#ask-token').value === ''").await;
    chrome.sees("dialog[open] .problem", "The token was refused").await;
    // There is room for the longest that can be configured.
    chrome.until("document.querySelector('#ask-token').maxLength === 4096").await;

    // Pasted with what stood around it.
    chrome.press(&format!(" {} {}", world.token(), Chrome::ENTER)).await;
    chrome.sees(".tile .state", "closed").await;
    chrome.until("!document.querySelector('dialog').open").await;
    chrome.sees("#token", "Token set").await;

    // It is known by now: the next order asks for no more than a confirmation.
    chrome.click(".tile .dots").await;
    chrome.click(".menu button:nth-child(2)").await;
    chrome.sees("dialog[open]", "Force open: pay pay.example?").await;
    assert_eq!(chrome.texts("dialog[open] input").await.len(), 0);
    chrome.press(Chrome::ENTER).await;
    chrome.sees(".tile .state", "forced open").await;
    chrome.sees(".tile .why", "by hand").await;
    world.call("pay", "http://pay.example/?200:1").await.unwrap_err();
    assert_content_but_for(&chrome, "401").await;
}

#[tokio::test(start_paused = true)]
async fn where_no_token_is_configured_nothing_is_offered() {
    let mut world = World::to_look_at("shop");
    world.call("pay", "http://pay.example/?200:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".tile .state", "closed").await;
    chrome.click(".tile .dots").await;
    chrome.sees(".menu", "No token is configured").await;
    assert_eq!(chrome.texts(".menu button").await.len(), 0);
    let hidden = "['token', 'figures-reset'].every((id) => document.getElementById(id).hidden)";
    chrome.until(hidden).await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn since_when_is_not_made_up_where_it_is_not_known() {
    let mut world = World::hard_of_hearing("shop");
    world.call("pay", "http://other.example/?200:5").await.unwrap();
    world.trip("pay", "pay.example").await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".tile.is-open .state", "open").await;
    chrome.sees(".tile.is-closed", "since the start").await;
    let all = chrome.texts(".tile.is-open").await;
    assert!(!all.is_empty() && all.iter().all(|text| !text.contains("since")), "{all:?}");
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn figures_begin_anew_when_they_are_reset() {
    let mut world = World::new("shop");
    for n in 0..3 {
        world.call("pay", &format!("http://pay.example/{n}?200:5")).await.unwrap();
    }
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".targets .success", "of 3 attempts").await;
    chrome.sees(".tile .foot", "3 ok").await;
    chrome.click("#figures-reset").await;
    chrome.press(&format!("{}{}", world.token(), Chrome::ENTER)).await;
    chrome.sees(".targets .success", "of 0 attempts").await;
    chrome.sees(".tile .foot", "last 60 s: 0 ok").await;
    world.call("pay", "http://pay.example/again?200:1").await.unwrap();
    chrome.sees(".targets .success", "of 1 attempt").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_the_closed_ones_are_lines_and_a_filter_finds_any() {
    let mut world = World::new("crawler");
    for host in 0..200 {
        let uri = format!("http://host-{host:03}.example/?200:1");
        world.call("crawl", &uri).await.unwrap();
    }
    world.trip("crawl", "host-123.example").await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees("#breakers-sum", "199 closed").await;
    assert_eq!(chrome.texts(".tile h3").await, ["crawlhost-123.example"]);
    assert_eq!(chrome.texts("#closed h3").await.len(), 30);
    chrome.click("#closed-more").await;
    chrome.until("document.querySelectorAll('#closed h3').length === 199").await;

    chrome.click("#breakers-filter").await;
    chrome.press("HOST-07").await;
    chrome.until("document.querySelectorAll('.tile h3').length === 10").await;
    assert_eq!(chrome.query().await, "?breakers=HOST-07");
    chrome.reload().await;
    chrome.until("document.querySelectorAll('.tile h3').length === 10").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn when_many_open_at_once_the_page_stays_short_and_takes_orders_to_each() {
    let mut world = World::new("crawler");
    for host in 0..80 {
        world.trip("crawl", &format!("host-{host:03}.example")).await;
    }
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees("#health", "degraded: ").await;
    chrome.until("document.querySelectorAll('.tile').length === 24").await;
    assert_eq!(chrome.texts("#closed article").await.len(), 30);
    chrome.click("#closed-more").await;
    chrome.until("document.querySelectorAll('#closed article').length === 56").await;
    chrome.click("#closed article:last-child .dots").await;
    chrome.click("#closed article:last-child .menu button:first-child").await;
    chrome.press(&format!("{}{}", world.token(), Chrome::ENTER)).await;
    chrome.sees("#breakers-sum", "1 closed").await;
    chrome.until("document.querySelectorAll('#closed article.is-closed').length === 1").await;
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn a_menu_is_opened_and_left_by_keyboard_alone() {
    let mut world = World::new("shop");
    world.call("pay", "http://pay.example/?200:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".tile .state", "closed").await;

    let is_focused = "document.activeElement.matches('.tile .dots')";
    let mut presses = 0;
    while chrome.run(&format!("return {is_focused}")).await != true {
        presses += 1;
        assert!(presses < 20, "the menu is not in reach");
        chrome.press(Chrome::TAB).await;
    }
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(chrome.run(outline).await, "solid");
    chrome.press(Chrome::ENTER).await;
    chrome.until("document.activeElement.textContent === 'Reset'").await;
    chrome.press(Chrome::DOWN).await;
    chrome.until("document.activeElement.textContent === 'Force open'").await;
    chrome.press(Chrome::ESCAPE).await;
    chrome.until(is_focused).await;
    assert_eq!(chrome.texts(".menu:not([hidden])").await.len(), 0);

    chrome.press(&format!("{}{}{}", Chrome::ENTER, Chrome::DOWN, Chrome::ENTER)).await;
    chrome.sees("dialog[open]", "Force open").await;
    chrome.press(Chrome::ESCAPE).await;
    chrome.until("!document.querySelector('dialog').open").await;
    chrome.sees(".tile .state", "closed").await;
    assert_content(&chrome).await;
}
