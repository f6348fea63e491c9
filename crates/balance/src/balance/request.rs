use crate::RequestScope;

/// The request of a pick, and the endpoints that it leaves out.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(super) scope: Option<&'a RequestScope>,
    /// Those that were tried for the request may be picked again.
    pub(super) allows_tried: bool,
    pub(super) excluded: &'a [u64],
    pub(super) purpose: Purpose,
    /// Which labels have no members but their own.
    pub(super) labels: Labels,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    Request,
    /// Those alone are picked whose ejection a request may end.
    Probation,
    /// No number of requests is too many.
    Lease,
    /// Those alone are picked that are down.
    Down,
}

/// The labels whose members are worth the wait: others are out of the question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Labels {
    None,
    /// Those that members of the tier have.
    Known,
    All,
}

impl Request<'_> {
    pub(crate) const ANY: Self = Self {
        scope: None,
        allows_tried: false,
        excluded: &[],
        purpose: Purpose::Request,
        labels: Labels::None,
    };

    #[inline]
    pub(super) fn excludes_nothing(&self) -> bool {
        self.excluded.is_empty() && (self.allows_tried || self.scope.is_none())
    }

    pub(super) fn is_labelled(&self) -> bool {
        self.scope.is_some_and(|scope| scope.label().is_some())
    }

    pub(super) fn excludes(&self, key: u64) -> bool {
        self.excluded.contains(&key)
            || (!self.allows_tried && self.scope.is_some_and(|scope| scope.contains(key)))
    }
}
