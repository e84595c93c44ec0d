//! What every store must do.

use portcullis_trace::conformance;
use proptest::prelude::*;

use crate::fakes::Folder;

#[test]
fn it_does_what_every_store_must() {
    let mut folders = Vec::new();
    conformance::check(|| {
        let folder = Folder::new();
        let store = folder.store();
        folders.push(folder);
        store
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_answers_as_the_store_in_memory_does(seed in any::<u64>()) {
        let folder = Folder::new();
        let store = folder.store();
        conformance::history(&store, seed, 60);
        store.check().unwrap();
    }
}
