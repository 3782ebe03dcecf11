//! `WORKDIR` makes the directory it names, for the user of the stage.

use super::cache::Key;
use super::copy::{Copier, resolve};
use super::error::Result;
use super::executor::Made;
use super::run::make_upper;
use super::stage::{Located, Stage};
use super::transfer::identity;
use crate::runtime::mount;

/// Makes the directory and gives its layer; `/` needs none. An existing one is left as it is.
pub(super) fn make(stage: &Stage<'_, '_>, at: &Located<'_>, path: &str) -> Result<Option<Made>> {
    let build = stage.build;
    if path == "/" {
        return Ok(None);
    }
    let user = &stage.image.config.user;
    // As in BuildKit, a user whom the files so far do not know yet does not keep the directory
    // from being made.
    let owner = if user.is_empty() { None } else { identity(stage, user).ok() };
    let mut key = Key::new("workdir");
    key.text(&stage.tree.identity());
    key.text(&format!("{owner:?}"));
    key.text(path);
    key.optional(build.spec.source_date_epoch.map(|t| t.to_string()).as_deref());
    let name = Stage::step_name(at.instruction);
    let title = stage.next_title(&name);
    let step = build.reporter.start(title.clone());
    let made = build.layer(&key.finish(), &name, stage.use_cache, &stage.tree, &mut |dir| {
        let upper = make_upper(dir, stage.tree.root())?;
        let target = if stage.tree.paths().is_empty() {
            super::beneath::open_root(&upper).map_err(crate::util::fs::PathError::at("open", &upper))?
        } else {
            let work = dir.join("work");
            let parts =
                mount::Overlay { layers: stage.tree.paths(), upper: &upper, work: &work, volatile: true };
            mount::overlay(&parts).map_err(|e| super::tree::mount_error(&e))?
        };
        let to = resolve(&target, path.as_bytes())?;
        Copier::new(owner, None).make_directories(&target, &to).map(drop)
    });
    stage.tell(step, made, at, &title).map(Some)
}
