use tower_sd_core::Result;

use crate::client::Stat;

/// What is followed.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// The node at this path.
    Node(String),
    /// The children of the node at this path.
    Children(String),
}

/// Makes an item of a node.
pub(crate) trait Decode: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;

    fn decode(&self, path: &str, data: &[u8], stat: Stat) -> Result<Self::Item>;
}

impl Scope {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Node(path) | Self::Children(path) => path,
        }
    }
}
