//! Names and texts that come from others, and mean harm.

use browser::{Chrome, World};
use portcullis::trace::output;

use crate::assert_content;

const SCRIPT: &str = "<script>alert(1);window.harmed=1</script>\"'><img src=x onerror=\"alert(2);window.harmed=1\">${alert(3)}";
const TURNED: &str = "\u{202e}gnp.exe\u{202c} مرحبا بالعالم 🚀👩‍👩‍👧‍👦\nnew line\u{0}\u{7}";

#[tokio::test(start_paused = true)]
async fn is_harmless() {
    let long = "x".repeat(10_000);
    let mut world = World::new(&format!("{SCRIPT}{TURNED}"));
    for (n, name) in [SCRIPT, TURNED, long.as_str()].into_iter().enumerate() {
        let host = format!("{}.example", "long-label.".repeat(20));
        let status = [500, 503, 200][n];
        let call = world.calling(name, &format!("http://{host}/?{status}:10"));
        let scope = world.scope(name).attribute(name, name).attribute("turned", TURNED);
        scope
            .run(async {
                let _ = call.await;
                output(format!("{name}\n{TURNED}").repeat(50));
                portcullis::trace::fail(&portcullis_core::Error::inner(name.to_owned()));
            })
            .await;
    }
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    for (width, height) in [(390, 844), (1280, 900)] {
        chrome.resize(width, height, "light").await;
        chrome.open(&format!("{url}?status=all")).await;
        chrome.until("document.querySelectorAll('.traces .row').length === 3").await;
        chrome.until("document.querySelectorAll('.tile').length === 3").await;
        assert_eq!(chrome.overhang().await, 0, "the overview at {width}");
        for row in 1..=3 {
            chrome.open(&format!("{url}?status=all")).await;
            chrome.click(&format!(".traces li:nth-child({row}) .row")).await;
            chrome.until("document.querySelectorAll('.plot .line').length > 1").await;
            chrome.until("document.querySelectorAll('#trace .block').length > 1").await;
            assert_eq!(chrome.overhang().await, 0, "trace {row} at {width}");
            chrome.click(".plot .line:last-child").await;
            assert_eq!(chrome.overhang().await, 0, "a call of trace {row} at {width}");
        }
    }
    assert!(!chrome.is_alerted().await);
    assert_eq!(chrome.run("return window.harmed ?? null").await, serde_json::Value::Null);
    assert_eq!(
        chrome.run("return document.querySelectorAll('main script, main img').length").await,
        0
    );
    assert_content(&chrome).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_reaches_the_breaker_of_any_name() {
    let name = "a/b?c#d%2F&e=1 ü+\u{202e}";
    let mut world = World::new("shop");
    world.call(name, "http://pay.example/?200:5").await.unwrap();
    let url = world.show().await;
    let Some(chrome) = Chrome::start().await else { return };
    chrome.resize(1280, 900, "light").await;
    chrome.open(&url).await;
    chrome.sees(".tile .state", "closed").await;
    chrome.click(".tile .dots").await;
    chrome.click(".menu button:nth-child(2)").await;
    chrome.press(&format!("{}{}", world.token(), Chrome::ENTER)).await;
    chrome.sees(".tile .state", "forced open").await;
    assert_content(&chrome).await;
}
