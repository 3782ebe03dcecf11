//! `COPY` and `ADD`: which files go where, as whom, and what the result depends on.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Stat};

use super::archive;
use super::beneath::{self, is_directory, join, split};
use super::cache::Key;
use super::chmod::Chmod;
use super::contexts::Listing;
use super::copy::{Copier, attributes_of, resolve, set_times};
use super::dockerfile::ast::{Add, Copy, Heredoc, Source as Written, Transfer, Word};
use super::dockerfile::expand::expand_heredoc;
use super::error::{BuildError, Result};
use super::executor::Made;
use super::fetch::{self, Origin};
use super::ignore::Ignore;
use super::run::make_upper;
use super::source::{Found, Source};
use super::stage::{Located, Stage};
use super::tree::Tree;
use crate::diagnostic::{Diagnostic, Span};
use crate::runtime::image::{Digest, Limits};
use crate::runtime::mount;
use crate::runtime::user::identify;
use crate::util::fs::PathError;
use crate::util::ids::random_hex;

/// One thing to be put in place.
struct Item {
    what: What,
    /// Path in the tree, as written and completed; its links are not resolved yet.
    to: Vec<u8>,
    /// Which of the fetched places it is from; none: the transfer's own source.
    place: Option<usize>,
}

enum What {
    /// What is in a directory of the source, with all below.
    Contents(Whole),
    /// A directory itself, without what is in it.
    Directory(Found),
    /// A file, link or node.
    Leaf(Found),
    /// What is in an archive.
    Archive(Found),
    /// Bytes.
    Text { content: Vec<u8> },
}

/// What is in a directory of a source, with all below.
pub(super) struct Whole {
    found: Found,
    /// Relative path, what it is, and whether it keeps its time: not so a directory that is
    /// there only for what is in it.
    below: Vec<(Vec<u8>, Stat, bool)>,
}

/// A transfer with everything settled.
struct Settled {
    items: Vec<Item>,
    /// Directories with what was fetched.
    places: Vec<OwnedFd>,
    /// Of everything; none keeps the source's.
    owner: Option<(u32, u32)>,
    /// Of what is in archives; none keeps the archive's.
    archive_owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    /// For the history.
    text: String,
}

impl Settled {
    /// Where an item is from.
    fn source<'s>(&'s self, item: &Item, own: &Source<'s>) -> Source<'s> {
        match item.place.and_then(|place| self.places.get(place)) {
            Some(place) => Source { root: place.as_fd(), listing: None },
            None => *own,
        }
    }
}

/// Carries a `COPY` out; gives its text for the history and its layer.
pub(super) fn copy(stage: &Stage<'_, '_>, at: &Located<'_>, copy: &Copy) -> Result<(String, Made)> {
    let from = copy.from.as_ref();
    let tree = from.map(|word| stage.source_tree(&word.text, word.span, at)).transpose()?;
    transfer(stage, at, None, &copy.transfer, tree.as_ref())
}

/// Carries an `ADD` out; gives its text for the history and its layer.
pub(super) fn add(stage: &Stage<'_, '_>, at: &Located<'_>, add: &Add) -> Result<(String, Made)> {
    transfer(stage, at, Some(add), &add.transfer, None)
}

fn transfer(
    stage: &Stage<'_, '_>,
    at: &Located<'_>,
    add: Option<&Add>,
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
    let settled = settle(stage, at, add, transfer, &source, from.is_some())?;
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
    add: Option<&Add>,
    transfer: &Transfer,
    source: &Source<'_>,
    foreign: bool,
) -> Result<Settled> {
    let mistake = |d: Diagnostic| BuildError::mistake(&d, at.sources);
    let mut text = if add.is_some() { "ADD" } else { "COPY" }.to_owned();
    let mut owner = if foreign { None } else { Some((0, 0)) };
    let mut archive_owner = None;
    if let Some(word) = &transfer.chown {
        let chown = stage.expanded(at, word)?;
        let given = identity(stage, &chown)
            .map_err(|reason| mistake(Diagnostic::error("build-chown", reason).at(word.span, "")))?;
        (owner, archive_owner) = (Some(given), Some(given));
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
    let excluded =
        transfer.exclude.iter().map(|word| stage.expanded(at, word)).collect::<Result<Vec<_>>>()?;
    let exclude = Ignore::of(excluded.iter().map(String::as_str)).map_err(|reason| {
        let span = transfer.exclude.first().map_or(at.instruction.span, |word| word.span);
        mistake(Diagnostic::error("build-exclude", reason).at(span, ""))
    })?;
    let destination = stage.absolute(&written).trim_start_matches('/').as_bytes().to_vec();
    let into = written.ends_with('/') || written.ends_with("/.") || written == "." || written == "..";
    let mut plan = Plan {
        stage,
        at,
        add,
        transfer,
        source,
        exclude,
        directory: into || is_there(stage, transfer, &destination)?,
        destination,
        items: Vec::new(),
        places: Vec::new(),
    };
    // The bodies come last, as BuildKit has it.
    let (mut paths, mut bodies) = (String::new(), String::new());
    for from in &transfer.sources {
        match from {
            Written::Heredoc(heredoc) => {
                bodies.push_str(&format!(" <<{}", heredoc.name));
                plan.body(heredoc)?;
            }
            Written::Path(word) => {
                let path = stage.expanded(at, word)?;
                paths.push_str(&format!(" {path}"));
                match add.map_or(Origin::Context, |_| fetch::origin(&path)) {
                    Origin::Context => plan.path(&path, word)?,
                    elsewhere => plan.fetched(&elsewhere, word)?,
                }
            }
        }
    }
    text.push_str(&format!("{paths}{bodies} {written} # buildkit"));
    let Plan { items, places, .. } = plan;
    Ok(Settled { items, places, owner, archive_owner, mode, text })
}

/// Finds out for one source after the other what goes where.
struct Plan<'p, 's, 'a> {
    stage: &'p Stage<'s, 'a>,
    at: &'p Located<'p>,
    add: Option<&'p Add>,
    transfer: &'p Transfer,
    source: &'p Source<'p>,
    exclude: Ignore,
    destination: Vec<u8>,
    /// The destination is a directory: written so, there already, or made by a source before.
    directory: bool,
    items: Vec<Item>,
    places: Vec<OwnedFd>,
}

impl Plan<'_, '_, '_> {
    fn mistake(&self, code: &'static str, message: impl Into<String>, word: &Word) -> BuildError {
        BuildError::mistake(&Diagnostic::error(code, message).at(word.span, ""), self.at.sources)
    }

    /// The destination of something that is called `name`.
    fn named(&self, name: &[u8]) -> Vec<u8> {
        if self.directory { join(&self.destination, name) } else { self.destination.clone() }
    }

    fn body(&mut self, heredoc: &Heredoc) -> Result<()> {
        let content = expand_heredoc(heredoc, &self.stage.scope);
        let content = content.map_err(|d| BuildError::mistake(&d, self.at.sources))?.into_bytes();
        let to = self.named(heredoc.name.as_bytes());
        self.items.push(Item { what: What::Text { content }, to, place: None });
        Ok(())
    }

    /// A path of the transfer's own source.
    fn path(&mut self, path: &str, word: &Word) -> Result<()> {
        if let Some(word) = self.add.and_then(|add| add.checksum.as_ref()) {
            let message = "`--checksum` is for files of the web and git repositories only";
            return Err(self.mistake("build-checksum", message, word));
        }
        let found = self.source.matching(path.as_bytes()).map_err(|e| look_up_error(path, e))?;
        if found.is_empty() && !super::source::has_wildcard(path.as_bytes()) {
            let diagnostic = not_found(path, word.span, self.source.listing);
            return Err(BuildError::mistake(&diagnostic, self.at.sources));
        }
        for found in found {
            if self.transfer.parents {
                self.with_parents(path, found)?;
                continue;
            }
            // A link is named as it was written, not as what it leads to.
            let (_, name) = split(path.trim_end_matches('/').as_bytes());
            let name = if super::source::has_wildcard(name) { split(&found.path).1 } else { name };
            let to = self.named(name);
            self.one(found, to, None, self.add.is_some_and(|add| add.unpack != Some(false)))?;
        }
        Ok(())
    }

    /// One thing that was found; directories and archives leave their names behind.
    fn one(&mut self, found: Found, to: Vec<u8>, place: Option<usize>, unpack: bool) -> Result<()> {
        let fetched = place.and_then(|place| self.places.get(place));
        let source = fetched.map_or(*self.source, |place| Source { root: place.as_fd(), listing: None });
        let item = if is_directory(&found.stat) {
            let whole = Whole::of(&source, found)?.without(&self.exclude);
            Item { what: What::Contents(whole), to: self.destination.clone(), place }
        } else if unpack && begins_archive(&source, &found)? {
            Item { what: What::Archive(found), to: self.destination.clone(), place }
        } else {
            Item { what: What::Leaf(found), to, place }
        };
        self.directory |= matches!(item.what, What::Contents(_) | What::Archive(_));
        self.items.push(item);
        Ok(())
    }

    /// `--parents`: the directories above come along, but for those before a `/./`.
    fn with_parents(&mut self, written: &str, found: Found) -> Result<()> {
        let kept = written.rsplit_once("/./").map_or(written, |(_, kept)| kept);
        let clean = super::ignore::clean(kept);
        let count = clean.split('/').filter(|part| !matches!(*part, "" | "." | "..")).count();
        let parts: Vec<&[u8]> = found.path.split(|c| *c == b'/').filter(|part| !part.is_empty()).collect();
        let before = parts.len() - count.min(parts.len());
        let directory = is_directory(&found.stat);
        let last = if directory { parts.len() } else { parts.len().saturating_sub(1) };
        for end in before + 1..=last {
            let path = parts[..end].join(&b'/');
            let shown = String::from_utf8_lossy(&path).into_owned();
            if let Some(above) = self.source.look_up(&path).map_err(|e| look_up_error(&shown, e))? {
                let to = join(&self.destination, &parts[before..end].join(&b'/'));
                self.items.push(Item { what: What::Directory(above), to, place: None });
            }
        }
        let to = join(&self.destination, &parts[before..].join(&b'/'));
        let what = if directory {
            What::Contents(Whole::of(self.source, found)?.without(&self.exclude))
        } else {
            What::Leaf(found)
        };
        self.items.push(Item { what, to, place: None });
        Ok(())
    }

    /// A source of `ADD` that is elsewhere.
    fn fetched(&mut self, origin: &Origin, word: &Word) -> Result<()> {
        let Some(add) = self.add else { return Ok(()) };
        let checksum = add.checksum.as_ref().map(|word| self.stage.expanded(self.at, word)).transpose()?;
        if let (Some(word), true) = (&add.checksum, self.transfer.sources.len() > 1) {
            let message = "`--checksum` cannot be given for several sources";
            return Err(self.mistake("build-checksum", message, word));
        }
        let into = self.stage.build.staging().subdirectory(&random_hex(6))?;
        let fetched = origin
            .fetch(&into, checksum.as_deref(), add.keep_git_dir)
            .map_err(|error| self.mistake("build-fetch", crate::runtime::error::chain(&error), word))?;
        let Some(fetched) = fetched else { return Ok(()) };
        let root = beneath::open_root(&fetched.root).map_err(PathError::at("open", &fetched.root))?;
        let source = Source { root: root.as_fd(), listing: None };
        let name = fetched.file.unwrap_or_default();
        let found = source.look_up(name.as_bytes()).map_err(|e| look_up_error(&name, e))?;
        let found = found.ok_or_else(|| look_up_error(&name, rustix::io::Errno::NOENT))?;
        let to = self.named(name.as_bytes());
        self.places.push(root);
        self.one(found, to, Some(self.places.len() - 1), add.unpack == Some(true))
    }
}

/// Whether a file is an archive that can be unpacked.
fn begins_archive(source: &Source<'_>, found: &Found) -> Result<bool> {
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = open_file(source, found)?;
    let shown = String::from_utf8_lossy(&found.path).into_owned();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, archive::MAGIC as u64), &mut start)
        .map_err(PathError::at("read", std::path::Path::new(&shown)))?;
    Ok(archive::is_archive(&start))
}

fn open_file(source: &Source<'_>, found: &Found) -> Result<std::fs::File> {
    let (above, name) = split(&found.path);
    let parent = open(source, above)?;
    let file = beneath::file(parent.as_fd(), name);
    Ok(file.map_err(|e| look_up_error(&String::from_utf8_lossy(&found.path), e))?.into())
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

/// `user[:group]` in the words of the tree. Without a group, a name has the primary group of
/// its user and a number the group of the same number, as in BuildKit.
pub(super) fn identity(stage: &Stage<'_, '_>, words: &str) -> std::result::Result<(u32, u32), String> {
    let files = stage.tree.files();
    let read = |name| files.etc(name).map_err(|e| e.to_string());
    let (passwd, group) = (read("passwd")?, read("group")?);
    let identity = identify(words, &[], &passwd, &group).map_err(|e| e.to_string())?;
    let (user, group) = words.split_once(':').unwrap_or((words, ""));
    let bare_number = group.is_empty() && user.bytes().all(|c| c.is_ascii_digit());
    Ok((identity.uid, if bare_number { identity.uid } else { identity.gid }))
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
    key.text(&format!("{:?} {:?} {:?}", settled.owner, settled.archive_owner, settled.mode));
    key.optional(stage.build.spec.source_date_epoch.map(|t| t.to_string()).as_deref());
    for item in &settled.items {
        key.bytes(&item.to);
        let source = &settled.source(item, source);
        match &item.what {
            What::Text { content } => {
                key.text("text");
                key.bytes(content);
            }
            What::Leaf(found) | What::Directory(found) | What::Archive(found) => {
                key.text(match item.what {
                    What::Leaf(_) => "leaf",
                    What::Archive(_) => "archive",
                    _ => "directory",
                });
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
        Ok(Self { found, below: below.into_iter().map(|(path, stat)| (path, stat, true)).collect() })
    }

    /// Leaves out what `--exclude` says.
    fn without(self, exclude: &Ignore) -> Self {
        if exclude.is_empty() {
            return self;
        }
        let below = self.below.into_iter().map(|(path, stat, _)| (path, stat)).collect();
        Self { found: self.found, below: exclude.retain(below, is_directory) }
    }

    /// Puts all of it, without times, into a key.
    pub(super) fn describe(&self, key: &mut Key, source: &Source<'_>) -> Result<()> {
        key.text("contents");
        for (path, stat, _) in &self.below {
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
        for (path, stat, timed) in &self.below {
            let whole = join(&self.found.path, path);
            let (above, name) = split(&whole);
            let parent = open(source, above)?;
            let parent = parent.as_fd();
            let to = join(to, path);
            if is_directory(stat) {
                copier.directory(parent, name, target, &to, path)?;
                if *timed {
                    directories.push((to, *stat));
                }
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
        let source = settled.source(item, source);
        put(&mut copier, item, &to, &source, &target, settled.archive_owner)?;
    }
    Ok(())
}

fn put(
    copier: &mut Copier,
    item: &Item,
    to: &[u8],
    source: &Source<'_>,
    target: &OwnedFd,
    archive_owner: Option<(u32, u32)>,
) -> Result<()> {
    match &item.what {
        What::Text { content } => copier.write(content, 0o644, target, to),
        What::Leaf(found) => {
            let (above, name) = split(&found.path);
            let parent = open(source, above)?;
            copier.leaf(parent.as_fd(), name, &found.stat, target, to)
        }
        What::Directory(found) => {
            let (above, name) = split(&found.path);
            let parent = open(source, above)?;
            copier.directory(parent.as_fd(), name, target, to, &found.path).map(drop)
        }
        What::Contents(whole) => whole.put(copier, to, source, target),
        What::Archive(found) => {
            // `--chmod` is not for what is unpacked, nor for the directory it is unpacked into.
            let into = Copier::new(archive_owner, None).make_directories(target, to)?;
            let file = open_file(source, found)?;
            archive::unpack(file, &into, archive_owner, Limits::default()).map_err(|source| {
                BuildError::Archive { name: String::from_utf8_lossy(&found.path).into_owned(), source }
            })
        }
    }
}
