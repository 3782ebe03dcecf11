//! From a base image and changes to its files to a new image.

use std::io::Read;

use jiff::Timestamp;

use super::config::{History, RunConfig};
use super::import::apply_change;
use super::ingest::{LayerSource, Staging};
use super::reference::{Digest, Reference};
use super::store::Store;
use super::{ImageError, Result, unpack};

/// Bytes of a tar without entries: its end marker, padded as some writers do.
const EMPTY_TAR: u64 = 10 << 10;

/// What a new image is to be.
pub(crate) struct NewImage {
    /// Id of the image it begins with.
    pub(crate) base: Digest,
    /// What its containers run, before [`NewImage::changes`].
    pub(crate) config: RunConfig,
    /// Dockerfile instructions.
    pub(crate) changes: Vec<String>,
    /// What made it, for the history.
    pub(crate) created_by: String,
    /// Who made it.
    pub(crate) author: String,
    /// Remark.
    pub(crate) message: String,
    /// Its name.
    pub(crate) reference: Option<Reference>,
}

impl Store {
    /// Makes an image of a base and a layer, which `layer` gives as a plain tar. A layer without
    /// entries is left out.
    pub(crate) fn commit(&self, mut new: NewImage, layer: impl Read + Send) -> Result<Digest> {
        let mut config = self.config(&new.base)?;
        change(&mut new.config, &new.changes)?;
        let staging = Staging::new(self)?;
        let dir = staging.dir.join("commit");
        crate::util::fs::create_dir_all(&dir)?;
        let unpacked = unpack::unpack(layer, &dir, self.limits(), &mut |_| {})
            .map_err(|source| ImageError::Unpack { layer: Digest::of(b""), source: Box::new(source) })?;
        let empty = unpacked.tar_size <= EMPTY_TAR && unpacked.applied.entries == 0;
        if !empty {
            let _hold = self.hold()?;
            staging.lease(&[unpacked.diff_id.hex().to_owned()])?;
            if !self.adopt_layer(&dir, &unpacked)? {
                // Every directory of a changed tree has its entry, so this does not happen; and if
                // it did, the attributes are those of the tree itself.
                self.place(&dir, unpacked.diff_id.hex())?;
            }
            config.rootfs.diff_ids.push(unpacked.diff_id.clone());
        }
        let now = Timestamp::now();
        config.created = Some(now);
        config.author.clone_from(&new.author);
        config.comment.clone_from(&new.message);
        config.config = new.config;
        config.history.push(History {
            created: Some(now),
            created_by: new.created_by,
            author: new.author,
            comment: new.message,
            empty_layer: empty,
        });
        let bytes = serde_json::to_vec(&config).map_err(|source| ImageError::Document {
            what: "config",
            digest: "of the new image".to_owned(),
            source,
        })?;
        // All layers are here already: nobody asks for their bytes.
        let here = |_: &Digest| LayerSource {
            blob: None,
            size: None,
            open: Box::new(|| Ok(Box::new(std::io::empty()) as Box<dyn Read + Send>)),
        };
        let sources: Vec<LayerSource<'_>> = config.rootfs.diff_ids.iter().map(here).collect();
        let id = self.ingest(&staging, &bytes, &sources, &[], &|_| {})?;
        if let Some(reference) = &new.reference {
            let _hold = self.hold()?;
            self.point(reference, &id)?;
        }
        Ok(id)
    }
}

/// Applies instructions. A new entrypoint drops a command that was meant for the old one.
fn change(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    let has = |word: &str| {
        let first = |change: &String| change.split_whitespace().next().map(str::to_ascii_uppercase);
        changes.iter().any(|change| first(change).as_deref() == Some(word))
    };
    if has("ENTRYPOINT") && !has("CMD") {
        config.cmd.clear();
    }
    changes.iter().try_for_each(|text| apply_change(config, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_entrypoint_drops_the_old_command() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let with = |changes: &[&str]| {
            let mut config =
                RunConfig { cmd: words(&["c"]), entrypoint: words(&["e"]), ..RunConfig::default() };
            change(&mut config, &words(changes)).expect("applies");
            (config.entrypoint, config.cmd)
        };
        assert_eq!(with(&[]), (words(&["e"]), words(&["c"])));
        assert_eq!(with(&["CMD [\"x\"]"]), (words(&["e"]), words(&["x"])));
        assert_eq!(with(&["ENTRYPOINT [\"y\"]"]), (words(&["y"]), words(&[])));
        assert_eq!(with(&["CMD [\"x\"]", "entrypoint [\"y\"]"]), (words(&["y"]), words(&["x"])));
    }
}
