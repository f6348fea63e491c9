use super::{Held, Place, Tier, latency::Started, probation::Probation};

/// What a pick leaves with its request.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Its latency is measured.
    pub(crate) started: Option<Started>,
    /// It decides about the end of an ejection.
    pub(crate) probation: Option<Probation>,
    /// Its number is limited.
    pub(crate) held: Option<Box<Held>>,
}

impl Trace {
    /// It has a place at its endpoint.
    pub(crate) fn take(&mut self, place: Place) {
        self.held.get_or_insert_default().place = Some(place);
    }

    /// Its wait is over.
    pub(crate) fn hold(&mut self, held: Option<Box<Held>>) {
        let place = self.held.take().and_then(|held| held.place);
        self.held = held.map(|held| Box::new(Held { waits: None, place, ..*held }));
    }

    /// The tier of a request that has not waited.
    pub(crate) fn tier(&self) -> Tier {
        if self.probation.is_some() { Tier::Ejected } else { Tier::Ready }
    }
}
