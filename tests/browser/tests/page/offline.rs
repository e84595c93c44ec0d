//! A server that goes away, and comes back.

use browser::{Chrome, World};

#[tokio::test(start_paused = true)]
async fn the_page_says_so_and_recovers_by_itself() {
    let mut world = World::new("shop");
    world.call("pay", "http://pay.example/?200:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees("#live", "live").await;
    chrome.sees(".tile .state", "closed").await;
    chrome.run("window.isTheSame = true").await;

    world.hide();
    chrome.sees("#banner", "The server does not answer").await;
    chrome.sees("#live", "offline").await;
    // What was known is still to be read.
    chrome.sees(".tile .state", "closed").await;
    world.trip("pay", "pay.example").await;
    assert_eq!(world.show().await, url);
    chrome.sees("#live", "live").await;
    chrome.until("document.getElementById('banner').hidden").await;
    chrome.sees(".tile .state", "open").await;
    chrome
        .until("document.querySelectorAll('.traces .row, #fresh:not([hidden])').length > 0")
        .await;
    assert_eq!(chrome.run("return window.isTheSame").await, true);
    crate::assert_content_but_for(&chrome, "net::ERR_").await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_could_not_be_read_is_read_once_the_server_is_back() {
    let mut world = World::new("shop");
    world.call("pay", "http://pay.example/?500:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.open(&url).await;
    chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    world.hide();
    chrome.sees("#live", "offline").await;
    chrome.click(".traces .row").await;
    chrome.sees("#trace", "The server does not answer").await;
    world.show().await;
    chrome.sees("#trace-title", "pay").await;
    chrome.until("document.querySelectorAll('.plot .line').length === 4").await;
    crate::assert_content_but_for(&chrome, "net::ERR_").await;
}
