use tower_sd_core::Result;

/// Makes an item of a key and its value.
pub(crate) trait Decode: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;

    fn decode(&self, key: &[u8], value: &[u8], revision: i64) -> Result<Self::Item>;
}
