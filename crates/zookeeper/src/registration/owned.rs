use crate::client::Stat;

/// The node of this registration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Owned {
    pub(super) session: i64,
    pub(super) czxid: i64,
    pub(super) version: i32,
}

impl Owned {
    /// Whether it is the node with this state.
    pub(super) fn is(self, stat: &Stat) -> bool {
        (stat.owner, stat.czxid) == (self.session, self.czxid)
    }
}
