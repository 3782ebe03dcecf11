//! What images take on the disk.

use super::store::{Image, Store};
use super::{ImageError, Result};

/// An image and its layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// The image.
    pub image: Image,
    /// Name of each layer's directory and bytes of its files, lowest first. Images share what
    /// has the same name.
    pub layers: Vec<(String, u64)>,
}

impl Store {
    /// All local images with what they take, newest first.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let _hold = self.hold()?;
        self.list()?
            .into_iter()
            .map(|image| {
                let missing = || ImageError::NotFound(image.id.to_string());
                let record = self.record(&image.id)?.ok_or_else(missing)?;
                let size = |key: String| Ok((key.clone(), self.meta(&key)?.size));
                let layers = record.layers.into_iter().map(|layer| size(layer.key)).collect::<Result<_>>()?;
                Ok(Usage { image, layers })
            })
            .collect()
    }
}
