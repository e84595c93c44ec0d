//! What the story comes to.

use crate::story;

#[tokio::test]
async fn both_ways_come_through_what_can_be_come_through_and_are_refused_the_rest() {
    let lines = story(|_| ()).await.unwrap();
    let ends = lines.iter().map(|line| line.split_once(':').unwrap().1.trim()).collect::<Vec<_>>();
    assert_eq!(ends[0], "200 OK, \"an answer to 10 bytes\"");
    assert_eq!(ends[1], ends[0], "the server asked for a second, and had it");
    assert!(ends[2].starts_with("200 OK, but "), "{}", ends[2]);
    assert_eq!(ends[3], ends[0]);
    assert!(ends[4].starts_with("500 "), "the third in a row: {}", ends[4]);
    assert!(ends[5].contains("open"), "{}", ends[5]);
    assert!(ends[6].starts_with("refused (open), come back in "), "{}", ends[6]);
}
