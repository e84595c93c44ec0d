//! The page, driven by what its readers do.

mod breakers;
mod hostile;
mod looks;
mod offline;
mod traces;
mod waterfall;

use browser::Chrome;

/// Nothing was forbidden by the page's policy, and no script failed.
async fn assert_content(chrome: &Chrome) {
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}

/// The same where the server was to refuse something: of that a browser complains as well.
async fn assert_content_but_for(chrome: &Chrome, refusal: &str) {
    let mut complaints = chrome.complaints().await;
    complaints.retain(|complaint| !complaint.contains(refusal));
    assert_eq!(complaints, Vec::<String>::new());
}
