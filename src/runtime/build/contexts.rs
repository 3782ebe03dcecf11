//! The build context and named contexts: opened when something is taken from them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::archive;
use super::beneath;
use super::cache::Key;
use super::copy::Copier;
use super::download;
use super::error::{BuildError, Result};
use super::executor::Build;
use super::git::GitAddress;
use super::ignore::Ignore;
use super::run::make_upper;
use super::source::Source;
use super::tree::Tree;
use crate::diagnostic::SourceMap;
use crate::runtime::image::{Digest, Limits, RootAttributes, Staging};
use crate::runtime::root::Root;
use crate::spec::{BuildContext, BuildSpec};
use crate::util::files;
use crate::util::fs::{self, PathError};
use crate::util::ids::random_hex;

/// Most bytes of an archive that is fetched.
const LARGEST_CONTEXT: u64 = 16 << 30;

/// A file changed this shortly before it was looked at may change again without its times telling.
const RACY_NANOS: i128 = 2_000_000_000;
/// Version of the file of known digests.
const FORMAT: u32 = 1;

/// All contexts of a build.
pub(super) struct Contexts<'a> {
    spec: &'a BuildSpec,
    /// A Dockerfile may have an ignore file of its own.
    dockerfile: Option<PathBuf>,
    main: OnceLock<Context>,
    trees: Mutex<HashMap<String, Tree>>,
    opened: Mutex<Vec<Arc<Listing>>>,
}

/// A directory that is taken from.
#[derive(Debug)]
pub(super) struct Context {
    path: Option<PathBuf>,
    root: Option<OwnedFd>,
    listing: Option<Arc<Listing>>,
}

impl Context {
    /// Its path on this machine; none for an empty context.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The directory; none for an empty context.
    pub(super) fn root(&self) -> Option<&OwnedFd> {
        self.root.as_ref()
    }

    pub(super) fn listing(&self) -> Option<&Arc<Listing>> {
        self.listing.as_ref()
    }
}

impl<'a> Contexts<'a> {
    pub(super) fn new(spec: &'a BuildSpec, dockerfile: Option<PathBuf>) -> Self {
        Self { spec, dockerfile, main: OnceLock::new(), trees: Mutex::default(), opened: Mutex::default() }
    }

    /// Opens the build context, fetching it if it is elsewhere; `staging` is where to.
    pub(super) fn prepare(&self, root: &Root, staging: &Staging) -> Result<()> {
        let opened = self.open(&self.spec.context, root, staging, true)?;
        let _first = self.main.set(opened);
        Ok(())
    }

    /// The build context.
    pub(super) fn main(&self) -> Result<&Context> {
        self.main.get().ok_or(BuildError::Cancelled)
    }

    /// Whether a path of the build context is left out.
    pub(super) fn ignores(&self, path: &str) -> bool {
        let listing = self.main.get().and_then(|context| context.listing.as_ref());
        listing.is_some_and(|listing| listing.ignores(path))
    }

    fn open(&self, context: &BuildContext, root: &Root, staging: &Staging, main: bool) -> Result<Context> {
        match context {
            BuildContext::Directory(path) => self.directory(path, path, root, main),
            BuildContext::Empty => Ok(Context { path: None, root: None, listing: None }),
            BuildContext::Remote(address) => {
                let path = fetch(address, staging)?;
                self.directory(&path, Path::new(address), root, main)
            }
            BuildContext::Archive(path) => {
                let file = std::fs::File::open(path).map_err(PathError::at("open", path))?;
                let into = staging.subdirectory(&random_hex(6))?;
                unpack_into(file, &into, &path.display().to_string())?;
                self.directory(&into, path, root, main)
            }
            BuildContext::Image(name) => Err(BuildError::Context {
                context: name.clone(),
                reason: "an image cannot be the main context; name it in `additional_contexts`".into(),
            }),
        }
    }

    fn directory(&self, path: &Path, shown: &Path, root: &Root, main: bool) -> Result<Context> {
        let failed = |reason: String| BuildError::Context { context: shown.display().to_string(), reason };
        let fd = beneath::open_root(path).map_err(|e| {
            failed(match e {
                rustix::io::Errno::NOENT => "there is no such directory".to_owned(),
                rustix::io::Errno::NOTDIR => "it is not a directory".to_owned(),
                other => std::io::Error::from(other).to_string(),
            })
        })?;
        let ignore = self.ignore(path, main)?;
        let listing = Arc::new(Listing::open(root, path, ignore));
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&listing));
        Ok(Context { path: Some(path.to_owned()), root: Some(fd), listing: Some(listing) })
    }

    /// What is left out: `<Dockerfile>.dockerignore` before `.dockerignore`.
    fn ignore(&self, context: &Path, main: bool) -> Result<Ignore> {
        let own = self.dockerfile.as_ref().filter(|_| main).map(|path| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".dockerignore");
            path.with_file_name(name)
        });
        for path in own.into_iter().chain([context.join(".dockerignore")]) {
            let Some(bytes) = files::read_opt(&path)? else { continue };
            let mut sources = SourceMap::default();
            let shown = path.display().to_string();
            let file = sources.add(&path, shown, String::from_utf8_lossy(&bytes).into_owned());
            return Ignore::parse(file, &sources).map_err(|all| BuildError::mistakes(&all, &sources));
        }
        Ok(Ignore::default())
    }

    /// The tree of a named context that is no image; the name is in lower case.
    pub(super) fn named(&self, build: &Build<'_>, name: &str) -> Result<Tree> {
        let context = self.spec.contexts.get(name).unwrap_or(&BuildContext::Empty);
        let opened = self.open(context, build.runtime.root(), build.staging(), false)?;
        self.tree(build, name, &opened)
    }

    /// The whole build context as a tree.
    pub(super) fn snapshot(&self, build: &Build<'_>) -> Result<Tree> {
        let context = self.main()?;
        self.tree(build, "", context)
    }

    /// Copies a context into a layer, unless that is there already.
    fn tree(&self, build: &Build<'_>, name: &str, context: &Context) -> Result<Tree> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(name) {
            return Ok(tree.clone());
        }
        let Some(root) = context.root() else { return Ok(Tree::empty()) };
        let source = Source { root: std::os::fd::AsFd::as_fd(root), listing: context.listing() };
        let title = if name.is_empty() {
            "internal] load build context".to_owned()
        } else {
            format!("context {name}] load from client")
        };
        let tree = build.reporter.step(build.title(&title), |_| -> Result<Tree> {
            let found = source.look_up(b"").map_err(PathError::at("look at", Path::new("/")))?;
            let Some(found) = found else { return Ok(Tree::empty()) };
            let whole = super::transfer::Whole::of(&source, found)?;
            let mut key = Key::new("context");
            whole.describe(&mut key, &source)?;
            let made =
                build.layer(&key.finish(), &format!("context {name}"), true, &Tree::empty(), &mut |dir| {
                    let upper = make_upper(dir, RootAttributes::default())?;
                    let target = beneath::open_root(&upper).map_err(PathError::at("open", &upper))?;
                    let mut copier = Copier::new(Some((0, 0)), None);
                    whole.put(&mut copier, b"", &source, &target)
                })?;
            Ok(Tree::empty().with(build.runtime.images(), made.record.layer))
        })?;
        trees.insert(name.to_owned(), tree.clone());
        Ok(tree)
    }

    /// Remembers what was learned about files of contexts, for the next build.
    pub(super) fn remember(&self) -> Result<()> {
        for listing in self.opened.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listing.save()?;
        }
        Ok(())
    }
}

/// Fetches a remote context and gives its directory.
fn fetch(address: &str, staging: &Staging) -> Result<PathBuf> {
    let failed = |e: &(dyn std::error::Error + 'static)| BuildError::Context {
        context: address.to_owned(),
        reason: crate::runtime::error::chain(e),
    };
    let into = staging.subdirectory(&random_hex(6))?;
    if let Some(git) = GitAddress::parse(address) {
        return git.fetch(&into, false).map(|checkout| checkout.root).map_err(|e| failed(&e));
    }
    if !download::is_address(address) {
        return Err(BuildError::Context {
            context: address.to_owned(),
            reason: "it is neither a directory, a git repository nor an HTTP address".into(),
        });
    }
    let archive = into.join("archive");
    download::download(address, &archive, LARGEST_CONTEXT).map_err(|e| failed(&e))?;
    let file = std::fs::File::open(&archive).map_err(PathError::at("open", &archive))?;
    let tree = into.join("tree");
    fs::create_dir_all(&tree)?;
    unpack_into(file, &tree, address)?;
    Ok(tree)
}

fn unpack_into(archive: std::fs::File, into: &Path, shown: &str) -> Result<()> {
    let target = rustix::fs::open(
        into,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(PathError::at("open", into))?;
    archive::unpack(archive, &target, None, Limits::default()).map_err(|e| BuildError::Context {
        context: shown.to_owned(),
        reason: crate::runtime::error::chain(&e),
    })
}

/// What of a context counts, and what is known of its files.
#[derive(Debug)]
pub(super) struct Listing {
    /// What is left out.
    ignore: Ignore,
    /// Where known digests are kept.
    store: PathBuf,
    known: HashMap<String, Known>,
    /// What was looked at this time.
    fresh: Mutex<BTreeMap<String, Known>>,
    now: i128,
}

/// A file that was read once: as long as all but the digest is the same, so is the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    device: u64,
    inode: u64,
    size: i64,
    modified: i128,
    changed: i128,
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    files: HashMap<String, Known>,
}

impl Known {
    fn of(stat: &Stat, digest: &str) -> Self {
        let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: nanos(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec),
            digest: digest.to_owned(),
        }
    }
}

impl Listing {
    fn open(root: &Root, path: &Path, ignore: Ignore) -> Self {
        let name = Digest::of(path.as_os_str().as_encoded_bytes()).hex().to_owned();
        let store = root.data().join("build").join("contexts").join(name);
        // A damaged file only costs reading the context once more.
        let saved = fs::read_json::<Saved>(&store).ok().flatten().filter(|saved| saved.version == FORMAT);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        Self {
            ignore,
            store,
            known: saved.map(|saved| saved.files).unwrap_or_default(),
            fresh: Mutex::default(),
            now: i128::try_from(now).unwrap_or(i128::MAX),
        }
    }

    /// Whether a path counts; a directory also for what below it counts.
    pub(super) fn has(&self, path: &[u8], directory: bool) -> bool {
        !self.ignore.ignores(path) || (directory && self.ignore.may_keep_below(path))
    }

    /// Whether a path that was asked for does not count.
    pub(super) fn ignores(&self, path: &str) -> bool {
        self.ignore.ignores(path.trim_matches('/').as_bytes())
    }

    /// The digest of a file that has not changed since it was read.
    pub(super) fn known(&self, path: &[u8], stat: &Stat) -> Option<String> {
        let path = std::str::from_utf8(path).ok()?;
        let known = self.known.get(path)?;
        if *known != Known::of(stat, &known.digest) {
            return None;
        }
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known.clone());
        Some(known.digest.clone())
    }

    /// Takes note of a digest, unless the file is so new that it may change unnoticed.
    pub(super) fn learn(&self, path: &[u8], stat: &Stat, digest: &str) {
        let known = Known::of(stat, digest);
        let racy = known.modified.max(known.changed) > self.now - RACY_NANOS;
        if let (Ok(path), false) = (std::str::from_utf8(path), racy) {
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known);
        }
    }

    fn save(&self) -> Result<()> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.iter().all(|(path, known)| self.known.get(path) == Some(known)) {
            return Ok(());
        }
        // What another Dockerfile of this context takes stays known, too.
        let mut files = self.known.clone();
        files.extend(fresh.iter().map(|(path, known)| (path.clone(), known.clone())));
        if let Some(parent) = self.store.parent() {
            fs::create_dir_all(parent)?;
        }
        let text = serde_json::to_vec(&Saved { version: FORMAT, files })
            .map_err(PathError::at("encode", &self.store))?;
        Ok(fs::write_atomic(&self.store, &text, false)?)
    }
}
