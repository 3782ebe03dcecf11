//! `COPY` and `ADD`: which files go where, as whom, and what the result depends on.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Stat};

use super::beneath::{self, is_directory, join, split};
use super::cache::Key;
use super::chmod::Chmod;
use super::contexts::Listing;
use super::copy::{Copier, attributes_of, resolve, set_times};
use super::dockerfile::ast::{Add, Copy, Source as Written, Transfer};
use super::dockerfile::expand::expand_heredoc;
use super::error::{BuildError, Result};
use super::executor::Made;
use super::run::make_upper;
use super::source::{Found, Source};
use super::stage::{Located, Stage};
use super::tree::Tree;
use crate::diagnostic::{Diagnostic, Span};
use crate::runtime::image::Digest;
use crate::runtime::mount;
use crate::runtime::user::identify;
use crate::util::fs::PathError;

/// One thing to be put in place.
struct Item {
    what: What,
    /// Path in the tree, as written and completed; its links are not resolved yet.
    to: Vec<u8>,
}

enum What {
    /// What is in a directory of the source, with all below.
    Contents(Whole),
    /// A file, link or node.
    Leaf(Found),
    /// Bytes.
    Text { content: Vec<u8> },
}

/// What is in a directory of a source, with all below.
pub(super) struct Whole {
    found: Found,
    below: Vec<(Vec<u8>, Stat)>,
}

/// A transfer with everything settled.
struct Settled {
    items: Vec<Item>,
    owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    /// For the history.
    text: String,
}

/// Carries a `COPY` out; gives its text for the history and its layer.
pub(super) fn copy(stage: &Stage<'_, '_>, at: &Located<'_>, copy: &Copy) -> Result<(String, Made)> {
    let from = copy.from.as_ref();
    let tree = from.map(|word| stage.source_tree(&word.text, word.span, at)).transpose()?;
    transfer(stage, at, "COPY", &copy.transfer, tree.as_ref())
}

/// Carries an `ADD` out; gives its text for the history and its layer.
pub(super) fn add(stage: &Stage<'_, '_>, at: &Located<'_>, add: &Add) -> Result<(String, Made)> {
    transfer(stage, at, "ADD", &add.transfer, None)
}

fn transfer(
    stage: &Stage<'_, '_>,
    at: &Located<'_>,
    keyword: &str,
    transfer: &Transfer,
    from: Option<&Tree>,
) -> Result<(String, Made)> {
    let build = stage.build;
    let empty = tempfile_directory();
    let (root, listing) = match from {
        Some(tree) => (tree.merged()?, None),
        None => {
            let needs_files = transfer.sources.iter().any(|source| matches!(source, Written::Path(_)));
            if needs_files {
                let context = build.contexts.main()?;
                (context.root(), context.listing())
            } else {
                (None, None)
            }
        }
    };
    let root = match root {
        Some(root) => root,
        None => empty
            .as_ref()
            .map_err(|e| BuildError::Invalid { attribute: "context".into(), reason: e.to_string() })?,
    };
    let source = Source { root: root.as_fd(), listing };
    let settled = settle(stage, at, keyword, transfer, &source, from.is_some())?;
    let name = Stage::step_name(at.instruction);
    let title = stage.next_title(&name);
    let step = build.reporter.start(title.clone());
    let below = if transfer.link { Tree::empty() } else { stage.tree.clone() };
    let made = key(stage, transfer, &settled, &source, &below).and_then(|key| {
        build.layer(&key, &name, stage.use_cache, &below, &mut |dir| {
            let _turn = build.turn();
            build.check()?;
            apply(dir, &settled, &source, &below)
        })
    });
    let made = stage.tell(step, made, at, &title)?;
    Ok((settled.text, made))
}

/// An empty directory to look things up in, which has no name.
fn tempfile_directory() -> rustix::io::Result<OwnedFd> {
    mount::filesystem("tmpfs", rustix::mount::MountAttrFlags::empty(), &[("size", Some("0"))])
        .map_err(|_| rustix::io::Errno::NOMEM)
}

fn settle(
    stage: &Stage<'_, '_>,
    at: &Located<'_>,
    keyword: &str,
    transfer: &Transfer,
    source: &Source<'_>,
    foreign: bool,
) -> Result<Settled> {
    let mistake = |d: Diagnostic| BuildError::mistake(&d, at.sources);
    for (flag, given) in [("--parents", transfer.parents), ("--exclude", !transfer.exclude.is_empty())] {
        if given {
            let diagnostic = Diagnostic::error("build-copy", format!("`{flag}` is not supported yet"));
            return Err(mistake(diagnostic.at(at.instruction.span, "")));
        }
    }
    let mut text = keyword.to_owned();
    let mut owner = if foreign { None } else { Some((0, 0)) };
    if let Some(word) = &transfer.chown {
        let chown = stage.expanded(at, word)?;
        owner = Some(
            identity(stage, &chown)
                .map_err(|reason| mistake(Diagnostic::error("build-chown", reason).at(word.span, "")))?,
        );
        text.push_str(&format!(" --chown={chown}"));
    }
    let mut mode = None;
    if let Some(word) = &transfer.chmod {
        let chmod = stage.expanded(at, word)?;
        mode = Some(Chmod::parse(&chmod).ok_or_else(|| {
            let text = format!("`{chmod}` is no mode");
            mistake(
                Diagnostic::error("build-chmod", text).at(word.span, "").help("write `755` or `u=rwX,go=rX`"),
            )
        })?);
        text.push_str(&format!(" --chmod={chmod}"));
    }
    let written = stage.expanded(at, &transfer.destination)?;
    if written.is_empty() {
        return Err(mistake(
            Diagnostic::error("build-copy", "the destination is empty").at(transfer.destination.span, ""),
        ));
    }
    let into = written.ends_with('/') || written.ends_with("/.") || written == "." || written == "..";
    let destination = stage.absolute(&written).trim_start_matches('/').as_bytes().to_vec();
    let mut items = Vec::new();
    let many = transfer.sources.len() > 1;
    for from in &transfer.sources {
        match from {
            Written::Heredoc(heredoc) => {
                let content = expand_heredoc(heredoc, &stage.scope).map_err(mistake)?.into_bytes();
                text.push_str(&format!(" <<{}", heredoc.name));
                let to = if many || into || is_there(stage, transfer, &destination)? {
                    join(&destination, heredoc.name.as_bytes())
                } else {
                    destination.clone()
                };
                items.push(Item { what: What::Text { content }, to });
            }
            Written::Path(word) => {
                let path = stage.expanded(at, word)?;
                text.push_str(&format!(" {path}"));
                let found = source.matching(path.as_bytes()).map_err(|e| look_up_error(&path, e))?;
                if found.is_empty() {
                    return Err(mistake(not_found(&path, word.span, source.listing)));
                }
                let many = many || found.len() > 1;
                for found in found {
                    items.push(item(stage, transfer, source, found, &path, &destination, many || into)?);
                }
            }
        }
    }
    text.push_str(&format!(" {written} # buildkit"));
    Ok(Settled { items, owner, mode, text })
}

/// One source: where it goes.
fn item(
    stage: &Stage<'_, '_>,
    transfer: &Transfer,
    source: &Source<'_>,
    found: Found,
    written: &str,
    destination: &[u8],
    into: bool,
) -> Result<Item> {
    if is_directory(&found.stat) {
        return Ok(Item { what: What::Contents(Whole::of(source, found)?), to: destination.to_vec() });
    }
    let to = if into || is_there(stage, transfer, destination)? {
        // A link is named as it was written, not as what it leads to.
        let (_, name) = split(written.trim_end_matches('/').as_bytes());
        let name = if super::source::has_wildcard(name) { split(&found.path).1 } else { name };
        join(destination, name)
    } else {
        destination.to_vec()
    };
    Ok(Item { what: What::Leaf(found), to })
}

fn look_up_error(path: &str, error: rustix::io::Errno) -> BuildError {
    PathError::at("look up", std::path::Path::new(path))(error).into()
}

fn not_found(path: &str, span: Span, listing: Option<&std::sync::Arc<Listing>>) -> Diagnostic {
    let diagnostic = Diagnostic::error("build-source", format!("`{path}` was not found")).at(span, "");
    match listing {
        Some(listing) if listing.ignores(path) => {
            diagnostic.help("it is left out by the ignore file of the context")
        }
        Some(_) => diagnostic.help("paths are relative to the build context"),
        None => diagnostic,
    }
}

/// Whether the destination is a directory of the tree already.
fn is_there(stage: &Stage<'_, '_>, transfer: &Transfer, destination: &[u8]) -> Result<bool> {
    if destination.is_empty() {
        return Ok(true);
    }
    if transfer.link {
        return Ok(false);
    }
    let Some(merged) = stage.tree.merged()? else { return Ok(false) };
    let stat = beneath::follow(merged, destination).and_then(rustix::fs::fstat);
    Ok(stat.is_ok_and(|stat| is_directory(&stat)))
}

/// `user[:group]` in the words of the tree. Without a group it has the user's number.
fn identity(stage: &Stage<'_, '_>, words: &str) -> std::result::Result<(u32, u32), String> {
    let files = stage.tree.files();
    let read = |name| files.etc(name).map_err(|e| e.to_string());
    let (passwd, group) = (read("passwd")?, read("group")?);
    let identity = identify(words, &[], &passwd, &group).map_err(|e| e.to_string())?;
    let grouped = words.split_once(':').is_some_and(|(_, group)| !group.is_empty());
    Ok((identity.uid, if grouped { identity.gid } else { identity.uid }))
}

/// What the result depends on: names, kinds, owners, modes, attributes, links and content; no times.
fn key(
    stage: &Stage<'_, '_>,
    transfer: &Transfer,
    settled: &Settled,
    source: &Source<'_>,
    below: &Tree,
) -> Result<String> {
    let mut key = Key::new(if transfer.link { "link" } else { "copy" });
    key.text(&below.identity());
    key.text(&format!("{:?} {:?}", settled.owner, settled.mode));
    key.optional(stage.build.spec.source_date_epoch.map(|t| t.to_string()).as_deref());
    for item in &settled.items {
        key.bytes(&item.to);
        match &item.what {
            What::Text { content } => {
                key.text("text");
                key.bytes(content);
            }
            What::Leaf(found) => {
                key.text("leaf");
                describe(&mut key, source, &found.path, &found.stat)?;
            }
            What::Contents(whole) => {
                stage.build.check()?;
                whole.describe(&mut key, source)?;
            }
        }
    }
    Ok(key.finish())
}

fn describe(key: &mut Key, source: &Source<'_>, path: &[u8], stat: &Stat) -> Result<()> {
    let failed = |e: rustix::io::Errno| look_up_error(&String::from_utf8_lossy(path), e);
    key.text(&format!("{:o} {} {} {}", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev));
    let (above, name) = split(path);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let digest = match source.listing.and_then(|listing| listing.known(path, stat)) {
                Some(digest) => digest,
                None => {
                    let parent = beneath::directory(source.root, above).map_err(failed)?;
                    let file = beneath::file(parent.as_fd(), name).map_err(failed)?;
                    let (digest, attributes) = content(file, path)?;
                    let digest = format!("{digest} {attributes}");
                    if let Some(listing) = source.listing {
                        listing.learn(path, stat, &digest);
                    }
                    digest
                }
            };
            key.text(&digest);
        }
        FileType::Symlink => {
            let parent = beneath::directory(source.root, above).map_err(failed)?;
            key.bytes(rustix::fs::readlinkat(&parent, name, Vec::new()).map_err(failed)?.as_bytes());
        }
        _ => {}
    }
    Ok(())
}

/// Digest of a file's content, and of its extended attributes.
fn content(file: OwnedFd, path: &[u8]) -> Result<(Digest, String)> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| {
        BuildError::from(PathError::at("read", std::path::Path::new(&*String::from_utf8_lossy(path)))(e))
    };
    let attributes = attributes_of(&file).map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(file);
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    let mut named = String::new();
    for (name, value) in attributes {
        named.push_str(&format!("{}={} ", String::from_utf8_lossy(&name), crate::util::ids::hex(&value)));
    }
    Ok((Digest::from_ring(&context.finish()), named))
}

impl Whole {
    pub(super) fn of(source: &Source<'_>, found: Found) -> Result<Self> {
        let below =
            source.below(&found).map_err(|e| look_up_error(&String::from_utf8_lossy(&found.path), e))?;
        Ok(Self { found, below })
    }

    /// Puts all of it, without times, into a key.
    pub(super) fn describe(&self, key: &mut Key, source: &Source<'_>) -> Result<()> {
        key.text("contents");
        for (path, stat) in &self.below {
            key.bytes(path);
            describe(key, source, &join(&self.found.path, path), stat)?;
        }
        Ok(())
    }

    /// Puts it into the directory at the real path `to`.
    pub(super) fn put(
        &self,
        copier: &mut Copier,
        to: &[u8],
        source: &Source<'_>,
        target: &OwnedFd,
    ) -> Result<()> {
        copier.make_directories(target, to)?;
        let mut directories = vec![(to.to_vec(), self.found.stat)];
        for (path, stat) in &self.below {
            let whole = join(&self.found.path, path);
            let (above, name) = split(&whole);
            let parent = open(source, above)?;
            let parent = parent.as_fd();
            let to = join(to, path);
            if is_directory(stat) {
                copier.directory(parent, name, target, &to, path)?;
                directories.push((to, *stat));
            } else {
                copier.leaf(parent, name, stat, target, &to)?;
            }
        }
        // Their content is in place: now they keep their time. The root of a source has none.
        for (to, stat) in directories.iter().skip(usize::from(self.found.path.is_empty())) {
            let failed = |e| look_up_error(&String::from_utf8_lossy(to), e);
            let directory = beneath::directory(target, to).map_err(failed)?;
            set_times(&directory, stat).map_err(failed)?;
        }
        Ok(())
    }
}

fn open(source: &Source<'_>, path: &[u8]) -> Result<OwnedFd> {
    beneath::directory(source.root, path).map_err(|e| look_up_error(&String::from_utf8_lossy(path), e))
}

/// Puts everything in place, in the upper directory of an overlay over the tree.
fn apply(dir: &std::path::Path, settled: &Settled, source: &Source<'_>, below: &Tree) -> Result<()> {
    let upper = make_upper(dir, below.root())?;
    let target = if below.paths().is_empty() {
        beneath::open_root(&upper).map_err(PathError::at("open", &upper))?
    } else {
        let parts =
            mount::Overlay { layers: below.paths(), upper: &upper, work: &dir.join("work"), volatile: true };
        mount::overlay(&parts).map_err(|e| super::tree::mount_error(&e))?
    };
    let mut copier = Copier::new(settled.owner, settled.mode.clone());
    for item in &settled.items {
        let to = resolve(&target, &item.to)?;
        put(&mut copier, item, &to, source, &target)?;
    }
    Ok(())
}

fn put(copier: &mut Copier, item: &Item, to: &[u8], source: &Source<'_>, target: &OwnedFd) -> Result<()> {
    match &item.what {
        What::Text { content } => copier.write(content, 0o644, target, to),
        What::Leaf(found) => {
            let (above, name) = split(&found.path);
            let parent = open(source, above)?;
            copier.leaf(parent.as_fd(), name, &found.stat, target, to)
        }
        What::Contents(whole) => whole.put(copier, to, source, target),
    }
}
