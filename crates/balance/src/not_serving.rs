use std::{error, fmt};

/// An instance is reachable, and reports that it does not serve for now.
///
/// An endpoint whose `poll_ready` fails with it, or with an error that has it among its sources, is
/// down and probed again, as after a refused connection. But it is not created anew, and it stays
/// while the instance is held that the registry no longer lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a mark, which endpoints make")]
pub struct NotServing;

impl fmt::Display for NotServing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the instance reports that it does not serve")
    }
}

impl error::Error for NotServing {}
