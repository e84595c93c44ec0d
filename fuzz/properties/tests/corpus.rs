//! Every target holds for what is in its corpus, and for as much that is made of it.

use std::{fs, path::PathBuf};

use portcullis_testkit::{Seed, effort};
use properties::{TARGETS, Target};

/// The inputs in a target's corpus, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Tries inputs made of a corpus by the seed of their target, so that each run tries the same.
fn holds((name, check): Target) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 5, "{name} has a corpus");
    for input in &corpus {
        check(input);
    }
    let mut seed = Seed::new(name.bytes().map(u64::from).sum());
    for _ in 0..effort(2_000, 400_000) {
        check(&made(&mut seed, &corpus));
    }
}

/// Bytes out of nowhere, or one or two inputs with some of their bytes changed.
fn made(seed: &mut Seed, corpus: &[Vec<u8>]) -> Vec<u8> {
    if seed.chance(0.1) {
        let length = seed.within(0..200);
        return (0..length).map(|_| seed.next_u64() as u8).collect();
    }
    let mut input = seed.pick(corpus).clone();
    if seed.chance(0.3) {
        let other = seed.pick(corpus);
        input.truncate(seed.within(0..input.len() as u64 + 1) as usize);
        input.extend_from_slice(&other[seed.within(0..other.len() as u64 + 1) as usize..]);
    }
    for _ in 0..seed.within(0..5) {
        let at = seed.within(0..input.len() as u64 + 1) as usize;
        match seed.within(0..4) {
            0 => input.insert(at, *seed.pick(b"0123456789 ,;:=\"\\-+~\n\t@")),
            1 => input.insert(at, seed.next_u64() as u8),
            2 if at < input.len() => drop(input.remove(at)),
            _ if at < input.len() => input[at] = seed.next_u64() as u8,
            _ => {}
        }
    }
    input
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds((stringify!($name), properties::$name));
        })*

        #[test]
        fn every_target_is_tried_here_and_by_cargo_fuzz() {
            let tried = [$(stringify!($name)),*];
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, tried);
            let wrappers = fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
            let mut wrappers: Vec<String> = wrappers
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            wrappers.sort();
            assert_eq!(wrappers, tried);
        }
    };
}

targets! {
    buffer_body
    clone_body
    grpc_status
    grpc_timeout
    http_status
    propagate
    pushback
    rate_limit
    rejection
    request
    retry_after
    service_config
    trace_context
    watched_body
    x_rate_limit
}
