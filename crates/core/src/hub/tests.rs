use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::{runtime::Builder, sync::mpsc, time::timeout};

use super::*;

/// A hub whose task echoes into the channel that each command brings; counts its starts.
type Echo = mpsc::Sender<Option<mpsc::Sender<usize>>>;

fn echo(starts: &Arc<AtomicUsize>) -> (Hub<Echo>, TaskGroup) {
    let (tasks, starts) = (TaskGroup::new(), Arc::clone(starts));
    let hub = Hub::new("test", tasks.clone(), move || {
        let n = starts.fetch_add(1, SeqCst) + 1;
        let (sender, mut commands) = mpsc::channel::<Option<mpsc::Sender<usize>>>(8);
        (sender, async move {
            while let Some(command) = commands.recv().await {
                command.expect("a panic that a test wanted").send(n).await.expect("the test waits");
            }
        })
    });
    (hub, tasks)
}

/// The number of the run that answers, or the error that ended it.
async fn ask(attached: &Attached<Echo>) -> Result<usize, Error> {
    let (answer, mut answers) = mpsc::channel(1);
    let asked = async {
        drop(attached.handle().send(Some(answer)).await);
        match answers.recv().await {
            Some(n) => n,
            None => pending().await,
        }
    };
    select! {
        biased;
        n = asked => Ok(n),
        error = attached.ended() => Err(error),
    }
}

#[tokio::test(start_paused = true)]
async fn task_starts_with_the_first_user_and_ends_with_the_last() {
    let starts = Arc::default();
    let (hub, tasks) = echo(&starts);
    assert_eq!(starts.load(SeqCst), 0);
    let (one, two) = (hub.attach(), hub.attach());
    assert_eq!((ask(&one).await.expect("an answer"), ask(&two).await.expect("an answer")), (1, 1));
    drop(one);
    assert_eq!(ask(&two).await.expect("an answer"), 1);
    drop(two);
    assert_eq!(ask(&hub.attach()).await.expect("an answer"), 2);
    timeout(Duration::from_secs(1), tasks.close()).await.expect("nothing is left");
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_task_fails_all_users_and_the_next_restarts_it() {
    let starts = Arc::default();
    let (hub, _tasks) = echo(&starts);
    let (one, two) = (hub.attach(), hub.attach());
    drop(one.handle().send(None).await);
    for attached in [&one, &two] {
        let error = timeout(Duration::from_secs(1), attached.ended()).await.expect("it ends");
        assert!(error.is_transient(), "{error:?}");
        ask(attached).await.expect_err("it has ended");
    }
    assert_eq!(ask(&hub.attach()).await.expect("an answer"), 2);
}

#[tokio::test(start_paused = true)]
async fn closed_tasks_end_it_for_good() {
    let starts = Arc::default();
    let (hub, tasks) = echo(&starts);
    let attached = hub.attach();
    tasks.close().await;
    assert_eq!(attached.ended().await.kind(), ErrorKind::Closed);
    assert_eq!(hub.attach().ended().await.kind(), ErrorKind::Closed);
}

/// A client in a static, in several tests; an actor system with a runtime per worker.
#[test]
fn hub_survives_its_first_runtime() {
    let starts = Arc::default();
    let (hub, _tasks) = echo(&starts);
    let runtime = || Builder::new_current_thread().enable_all().build().expect("a runtime");
    let first = runtime();
    let attached = first.block_on(async {
        let attached = hub.attach();
        assert_eq!(ask(&attached).await.expect("an answer"), 1);
        attached
    });
    drop(first);
    assert!(attached.has_ended());
    runtime().block_on(async {
        let error = timeout(Duration::from_secs(1), ask(&attached)).await.expect("it has ended");
        assert!(error.expect_err("it has ended").is_transient());
        assert_eq!(ask(&hub.attach()).await.expect("an answer"), 2);
    });
}
