use crate::{
    client::{Access, ClientError, CreateMode, Created, Refusal, SessionHandle},
    path,
};

/// The place of one instance's node.
pub(super) struct Place {
    path: String,
    access: Access,
}

impl Place {
    pub(super) fn new(path: String, access: Access) -> Self {
        Self { path, access }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Creates the node, and its parents where they are missing: a container can be removed by the
    /// server whenever it has no child.
    pub(super) async fn create(
        &self,
        session: &SessionHandle,
        data: &[u8],
    ) -> Result<Created, ClientError> {
        let create = || session.create(&self.path, data, CreateMode::Ephemeral, self.access);
        let mut denied = None;
        for _ in 0..ATTEMPTS {
            match create().await {
                Err(cause) if cause.refusal() == Some(Refusal::NoNode) => {
                    denied = self.create_parents(session).await?;
                }
                created => return created,
            }
        }
        match create().await {
            Err(cause) if cause.refusal() == Some(Refusal::NoNode) => Err(denied.unwrap_or(cause)),
            created => created,
        }
    }

    /// Returns the refusal for which one of them may be missing still.
    async fn create_parents(
        &self,
        session: &SessionHandle,
    ) -> Result<Option<ClientError>, ClientError> {
        // The node of the dynamic configuration came with containers, in ZooKeeper 3.5. An older
        // server drops a request for one without an answer.
        let mode = match session.exists(CONFIG).await {
            Ok(Some(_)) => CreateMode::Container,
            _ => CreateMode::Persistent,
        };
        let mut denied = None;
        let mut parents = path::ancestors(&self.path).peekable();
        while let Some(parent) = parents.next() {
            // What is above the service belongs to all users.
            let access = if parents.peek().is_some() { Access::Open } else { self.access };
            match session.create(parent, &[], mode, access).await {
                Err(cause) => match cause.refusal() {
                    // Without access to an ancestor, the service's parent may be there still.
                    Some(Refusal::NoAuth) => denied = Some(cause),
                    Some(Refusal::NodeExists) => denied = None,
                    Some(Refusal::NoNode) => {}
                    _ => return Err(cause),
                },
                Ok(_created) => denied = None,
            }
        }
        Ok(denied)
    }
}

const CONFIG: &str = "/zookeeper/config";
const ATTEMPTS: usize = 3;
