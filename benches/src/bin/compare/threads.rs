//! The same on one thread and on two: how much more gets done in all.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use benches::{
    inner::{AtOnce, call},
    scenario::{LIMIT, breaker, stack, trace},
};
use portcullis::{breaker::Window, clock};
use tokio::runtime::Handle;
use tower::{Layer, Service};

use crate::{
    measure::{Contest, Cost, Effort, Side},
    peers,
    rows::limits::{ours, ours_keyed, tenants},
};

pub(crate) const GROUP: &str = "two threads";

/// Ours, and the peers that do the same, each on one thread and on two.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    make: fn() -> Vec<Shared>,
}

/// Something several threads use at once.
struct Shared {
    name: &'static str,
    worker: Arc<dyn Fn() -> Worker>,
    at_most: u64,
}

/// Makes so many calls, in its own thread.
type Worker = Box<dyn FnMut(u64) + Send>;

/// What two threads get done.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Per call on two threads, both counted: half of what a call takes if neither hinders the other.
    pub(crate) cost: Cost,
    /// The calls of two threads in the time of those of one.
    pub(crate) speedup: f64,
}

/// Longer than any lock is held.
const STUCK: Duration = Duration::from_secs(30);
/// Calls of the peer whose every call looks at all those in its window.
const SCANNED: u64 = 10_000;

// ===== impl Plan =====

impl Plan {
    /// Ours first.
    pub(crate) fn measure(&self, effort: Effort) -> Vec<Outcome> {
        let shared = (self.make)();
        // Two are as many as the machine these numbers are about has. All are measured in turns.
        let sides = shared.iter().flat_map(|shared| [shared.on(2), shared.on(1)]);
        let mut sides = sides.collect::<Vec<Side>>().into_iter();
        let first = sides.next().expect("ours is there");
        let (first, others) = Contest::new(first, sides).measure(effort);
        let costs: Vec<Cost> = std::iter::once(first).chain(others).collect();
        let pairs = shared.iter().zip(costs.chunks_exact(2));
        pairs
            .map(|(shared, costs)| Outcome {
                name: shared.name,
                // What is allocated is counted where one thread does it all.
                cost: Cost { ns: costs[0].ns, ..costs[1] },
                speedup: costs[1].ns / costs[0].ns,
            })
            .collect()
    }
}

pub(crate) fn plans() -> Vec<Plan> {
    vec![
        Plan {
            name: "breaker, time window, on two threads",
            make: || {
                let window = Window::Time(LIMIT);
                let (ours, peer) =
                    (breaker(window).layer(AtOnce), peers::resilience_broken(window, AtOnce));
                let mut filled = peer.clone();
                for _ in 0..SCANNED {
                    _ = call(&mut filled, ());
                }
                let peer = Shared {
                    at_most: 200,
                    ..Shared::service("tower-resilience, 10 000 calls in its window", peer)
                };
                vec![Shared::service("ours", ours), peer]
            },
        },
        Plan {
            name: "breaker, count window, on two threads",
            make: || {
                let window = Window::Count(100);
                let recloser = Arc::new(peers::recloser(100));
                vec![
                    Shared::service("ours", breaker(window).layer(AtOnce)),
                    Shared::service("tower-resilience", peers::resilience_broken(window, AtOnce)),
                    Shared::new("recloser", move || {
                        let breaker = recloser.clone();
                        move || _ = black_box(breaker.call(|| call(&mut AtOnce, ())))
                    }),
                ]
            },
        },
        Plan {
            name: "one limit, on two threads",
            make: || {
                let ours = ours().build().expect("valid");
                let peer = Arc::new(peers::governor());
                vec![
                    Shared::new("ours", move || {
                        let limiter = ours.clone();
                        move || _ = black_box(limiter.try_acquire().is_ok())
                    }),
                    Shared::new("governor", move || {
                        let limiter = peer.clone();
                        move || _ = black_box(limiter.check().is_ok())
                    }),
                ]
            },
        },
        Plan { name: "limits of distinct keys, on two threads", make: keyed },
        Plan {
            name: "stack with traces, on two threads",
            make: || {
                let peer = peers::resilience_stack(AtOnce);
                vec![
                    Shared::service("ours", trace(0.0).layer(stack(AtOnce))),
                    Shared::service("tower-resilience, four layers", peer),
                ]
            },
        },
    ]
}

/// Each thread has 500 keys of its own.
fn keyed() -> Vec<Shared> {
    const EACH: usize = 500;
    let keys = tenants(2 * EACH);
    let limiter = ours_keyed(keys.len());
    let governor = Arc::new(peers::governor_keyed());
    let halves: Arc<[Vec<String>; 2]> = [keys[..EACH].to_vec(), keys[EACH..].to_vec()].into();
    // A worker takes the half that the one before it did not.
    let turn = Arc::new(AtomicUsize::new(0));
    let half = move || (halves.clone(), turn.fetch_add(1, Ordering::Relaxed) % 2);
    let peers_half = half.clone();
    vec![
        Shared::new("ours", move || {
            let (limiter, (halves, half), mut at) = (limiter.clone(), half(), 0);
            move || {
                at = (at + 1) % EACH;
                _ = black_box(limiter.try_acquire(&halves[half][at]).is_ok());
            }
        }),
        Shared::new("governor", move || {
            let (limiter, (halves, half), mut at) = (governor.clone(), peers_half(), 0);
            move || {
                at = (at + 1) % EACH;
                _ = black_box(limiter.check_key(&halves[half][at]).is_ok());
            }
        }),
    ]
}

// ===== impl Shared =====

impl Shared {
    /// Of work that is one call each time; each thread has a worker of its own.
    fn new<W: FnMut() + Send + 'static>(
        name: &'static str,
        worker: impl Fn() -> W + 'static,
    ) -> Self {
        let worker = move || -> Worker {
            let mut work = worker();
            Box::new(move |calls| (0..calls).for_each(|_| work()))
        };
        Self { name, worker: Arc::new(worker), at_most: u64::MAX }
    }

    /// Of a service, of which each thread has a clone.
    fn service<S: Service<()> + Clone + Send + 'static>(name: &'static str, service: S) -> Self {
        Self::new(name, move || {
            let mut service = service.clone();
            move || parked(&mut service)
        })
    }

    /// The calls made by so many threads.
    fn on(&self, threads: u64) -> Side {
        let worker = self.worker.clone();
        let side = Side::timed(self.name, move |calls| {
            let workers: Vec<Worker> = (0..threads).map(|_| worker()).collect();
            if threads == 1 {
                // Here, where allocations are counted.
                let calls_of_one = calls;
                return workers.into_iter().map(|mut work| timed(|| work(calls_of_one))).sum();
            }
            together(workers, calls / threads)
        });
        side.at_most(self.at_most)
    }
}

/// One call. A thread that has to wait for the other's lock sleeps until it is woken, as a task would;
/// to ask again and again would keep the other from the processor.
#[inline]
fn parked<S: Service<()>>(service: &mut S) {
    let noop = Waker::noop();
    assert!(service.poll_ready(&mut Context::from_waker(noop)).is_ready());
    let mut future = pin!(service.call(()));
    if black_box(future.as_mut().poll(&mut Context::from_waker(noop))).is_pending() {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        let since = clock::now();
        while future.as_mut().poll(&mut cx).is_pending() {
            thread::park_timeout(STUCK);
            assert!(since.elapsed() < STUCK, "it waits for a timer, and no runtime runs here");
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = clock::now();
    work();
    start.elapsed()
}

/// From when the first worker begins to when the last one has made so many calls.
fn together(workers: Vec<Worker>, calls: u64) -> Duration {
    let barrier = Barrier::new(workers.len());
    let handle = Handle::current();
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut work| {
                let (barrier, handle) = (&barrier, &handle);
                scope.spawn(move || {
                    let _entered = handle.enter();
                    let mut span = (clock::now(), clock::now());
                    allocation_counter::opt_out(|| {
                        barrier.wait();
                        span.0 = clock::now();
                        work(calls);
                        span.1 = clock::now();
                    });
                    span
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no call panics")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("there is one");
    let end = spans.iter().map(|span| span.1).max().expect("there is one");
    end - start
}
