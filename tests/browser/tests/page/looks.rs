//! What can be measured of how it looks.

use browser::{Chrome, World};

use crate::assert_content;

/// Every text that is shown, with the contrast it has to what it stands on, where that is below what is
/// asked for (WCAG 2.2, 1.4.3).
const TOO_FAINT: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const colour = rgba(getComputedStyle(at).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (!text || !node.checkVisibility({ opacityProperty: true }) || node.closest('.unseen, noscript, svg')) continue;
      const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) found.push(`${node.className} “${text.slice(0, 30)}” ${contrast.toFixed(2)}`);
    }
    return found.join(', ');";

/// Everything that takes the focus and has no name to be read out.
const NAMELESS: &str = "
    return [...document.querySelectorAll('button, a, input, select, [tabindex]')]
      .filter((it) => it.checkVisibility() && !it.ariaLabel && !it.textContent.trim() && !it.labels?.length)
      .map((it) => it.outerHTML.slice(0, 80)).join(', ');";

async fn all_kinds() -> World {
    let mut world = World::new("shop");
    world.call("search", "http://web.example/?200:30").await.unwrap();
    world.call("search", "http://news.example/?503:30,200:10").await.unwrap();
    world.call("slow", "http://slow.example/?hang").await.unwrap_err();
    world.trip("pay", "pay.example").await;
    for order in ["stock", "mail", "legacy"] {
        world.call(order, &format!("http://{order}.example/?200:1")).await.unwrap();
    }
    for (_, breaker) in world.breakers("stock").all() {
        breaker.force_open();
    }
    for (_, breaker) in world.breakers("mail").all() {
        breaker.force_closed();
    }
    for (_, breaker) in world.breakers("legacy").all() {
        breaker.disable();
    }
    world
}

#[tokio::test(start_paused = true)]
async fn texts_stand_out_everything_has_a_name_and_nothing_hangs_over() {
    let mut world = all_kinds().await;
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    for (width, height, scheme) in
        [(1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark")]
    {
        chrome.resize(width, height, scheme).await;
        chrome.open(&format!("{url}?status=all")).await;
        chrome.until("document.querySelectorAll('.tile').length === 7").await;
        chrome.until("document.querySelectorAll('.traces .row').length > 7").await;
        chrome.click(".targets .fold").await;
        chrome.sees(".unfolded", "ended").await;
        let place = format!("the overview, {scheme} at {width}");
        assert_eq!(chrome.run(TOO_FAINT).await, "", "{place}");
        assert_eq!(chrome.run(NAMELESS).await, "", "{place}");
        assert_eq!(chrome.overhang().await, 0, "{place}");

        chrome.click(".traces .is-timeout").await;
        chrome.sees("#trace-title", "slow").await;
        chrome.until("document.querySelectorAll('.story .events td').length > 3").await;
        let place = format!("a trace, {scheme} at {width}");
        assert_eq!(chrome.run(TOO_FAINT).await, "", "{place}");
        assert_eq!(chrome.run(NAMELESS).await, "", "{place}");
        assert_eq!(chrome.overhang().await, 0, "{place}");
    }
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn a_theme_that_was_chosen_stays() {
    let mut world = World::new("shop");
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    let ground = "return getComputedStyle(document.body).backgroundColor";
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    let bright = chrome.run(ground).await;
    chrome.resize(1280, 900, "dark").await;
    let dark = chrome.run(ground).await;
    assert_ne!(bright, dark);
    chrome.click("#theme").await;
    assert_eq!(chrome.run(ground).await, bright);
    chrome.reload().await;
    assert_eq!(chrome.run(ground).await, bright);
    chrome.click("#theme").await;
    assert_eq!(chrome.run(ground).await, dark);
    assert_content(&chrome).await;
}

/// A browser has six connections for one server: a page that was left may keep none.
#[tokio::test(start_paused = true)]
async fn pages_that_were_left_do_not_hold_up_the_next() {
    let mut world = World::new("shop");
    world.call("search", "http://news.example/?500:10").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    for _ in 0..14 {
        chrome.open(&url).await;
        chrome.sees("#live", "live").await;
        chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
    }
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn works_wherever_it_is_nested() {
    let mut world = World::new("shop");
    world.call("search", "http://news.example/?500:10").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    for path in ["", "?status=all", "/page.html?status=all"] {
        chrome.open(&format!("{url}{path}")).await;
        chrome.sees("#title", "shop").await;
        chrome.until("document.querySelectorAll('.traces .row').length === 1").await;
        chrome.until("document.querySelector('#home img').naturalWidth > 0").await;
    }
    assert_content(&chrome).await;
}
