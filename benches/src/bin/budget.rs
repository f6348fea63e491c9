//! What a retry budget costs: a deposit per success, and a withdrawal per retry.

use std::{error::Error, hint::black_box, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower_sd_balance::RetryBudget;
use tower_sd_benches::{
    measure::{Contestant, double, medians, single},
    results::Results,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut results = Results::new("budget")?;
    let now = Instant::now();
    let ours = RetryBudget::new();
    let tower = Arc::new(TpsBudget::default());
    let (mine, its) = (&ours, &tower);
    let mut alone = [
        Contestant::new("deposit", single(move || black_box(mine).deposit(black_box(now)))),
        Contestant::new("tower_deposit", single(move || black_box(its).deposit())),
    ];
    report(&mut results, &mut alone, 1)?;
    // Pays for itself, so that it is never refused.
    let mut alone = [
        Contestant::new("withdraw", single(move || withdraw(mine, now))),
        Contestant::new("tower_withdraw", single(move || tower_withdraw(its))),
    ];
    report(&mut results, &mut alone, 1)?;
    let mut together = [
        Contestant::new("deposit", double(ours.clone(), move |budget| budget.deposit(now))),
        Contestant::new("tower_deposit", double(Arc::clone(&tower), |budget| budget.deposit())),
    ];
    report(&mut results, &mut together, 2)?;
    Ok(())
}

fn withdraw(budget: &RetryBudget, now: Instant) {
    budget.deposit(now);
    if let Some(one) = black_box(budget).withdraw(black_box(now)) {
        drop(one);
    }
}

fn tower_withdraw(budget: &TpsBudget) {
    budget.deposit();
    black_box(black_box(budget).withdraw());
}

fn report(
    results: &mut Results,
    contestants: &mut [Contestant<'_>],
    threads: usize,
) -> Result<(), Box<dyn Error>> {
    let times = medians(contestants, 41, SLICE);
    let peers = [(contestants[1].name, times[1])];
    results.add(contestants[0].name, (1, threads), times[0], &peers)?;
    Ok(())
}

const SLICE: Duration = Duration::from_millis(1);
