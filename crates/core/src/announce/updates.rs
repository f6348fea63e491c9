use std::mem::take;

use tokio::sync::{mpsc, oneshot};

use crate::{Instance, InstanceId, Result, handle::Update, panics::contained_now};

/// The updates of a registration, and the callers that wait for the registry's answer.
pub(super) struct Updates {
    pub(super) queue: mpsc::Receiver<Update>,
    pub(super) waiting: Vec<oneshot::Sender<Result<()>>>,
}

impl Updates {
    /// Changes `instance`, or returns the caller and the reason of the refusal.
    pub(super) fn apply(
        &mut self,
        Update { change, accepted }: Update,
        instance: &Instance,
    ) -> Result<Instance, (oneshot::Sender<Result<()>>, &'static str)> {
        match contained_now(|| change(instance.clone())) {
            Some(changed) if key(&changed) == key(instance) => {
                self.waiting.push(accepted);
                Ok(changed)
            }
            Some(_) => Err((accepted, OTHER_INSTANCE)),
            None => Err((accepted, "the change panicked")),
        }
    }

    /// Answers the updates that were announced.
    pub(super) fn answer(&mut self, result: &Result<()>) {
        for waiting in take(&mut self.waiting) {
            // A caller that stopped waiting needs no answer.
            let _gone = waiting.send(result.clone());
        }
    }
}

/// The parts of an instance that no update may change.
fn key(instance: &Instance) -> (&InstanceId, &str, u16) {
    (instance.id(), instance.host(), instance.port())
}

const OTHER_INSTANCE: &str =
    "id, host and port cannot change; register the other instance and deregister this one";
