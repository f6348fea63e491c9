//! Measuring contestants in turn.
//!
//! A disturbance of the machine affects all of them.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// Runs so many operations; returns their time, on average over its threads.
pub type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// One thing that is measured.
pub struct Contestant<'a> {
    pub name: &'static str,
    run: Run<'a>,
}

impl<'a> Contestant<'a> {
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// The median time of one operation in nanoseconds, for each contestant.
///
/// Taken over `rounds` interleaved rounds.
pub fn medians(contestants: &mut [Contestant<'_>], rounds: usize, slice: Duration) -> Vec<f64> {
    let n_operations: Vec<_> =
        contestants.iter_mut().map(|c| calibrate(&mut c.run, slice)).collect();
    let mut times = vec![Vec::with_capacity(rounds); contestants.len()];
    for _ in 0..rounds {
        for (contestant, (times, &n)) in
            contestants.iter_mut().zip(times.iter_mut().zip(&n_operations))
        {
            times.push((contestant.run)(n).as_secs_f64() * 1e9 / n as f64);
        }
    }
    times.into_iter().map(median).collect()
}

/// One thread that does `operation` again and again.
pub fn single<'a>(mut operation: impl FnMut() + 'a) -> impl FnMut(u64) -> Duration + 'a {
    move |n| {
        let started = Instant::now();
        for _ in 0..n {
            operation();
        }
        started.elapsed()
    }
}

/// Two concurrent threads, each with its own handle.
pub fn double<'a, T: Clone + Send + 'a>(
    handle: T,
    operation: impl Fn(&mut T) + Copy + Send + 'a,
) -> impl FnMut(u64) -> Duration + 'a {
    move |n| {
        let start = Barrier::new(2);
        thread::scope(|scope| {
            let start = &start;
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let mut handle = handle.clone();
                    scope.spawn(move || {
                        start.wait();
                        let started = Instant::now();
                        for _ in 0..n {
                            operation(black_box(&mut handle));
                        }
                        started.elapsed()
                    })
                })
                .collect();
            let times = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            times.sum::<Duration>() / 2
        })
    }
}

pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// How many operations fill a slice.
fn calibrate(run: &mut Run<'_>, slice: Duration) -> u64 {
    // The first operation may build what all others use.
    run(1);
    let mut n = 1;
    loop {
        let took = run(n);
        if took * 4 >= slice {
            return ((n as f64 * slice.as_secs_f64() / took.as_secs_f64()) as u64).max(1);
        }
        n *= 4;
    }
}
