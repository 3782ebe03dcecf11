//! What a Dockerfile says, before anything is expanded or executed.
//!
//! Every text that BuildKit expands is a [`Word`]: as written, quotes and
//! escapes included, for [`expand`](super::expand::expand) to resolve with the
//! variables in scope at that instruction. Texts that are never expanded (the
//! commands of `RUN`, `CMD`, `ENTRYPOINT`, `HEALTHCHECK`, `SHELL`) are plain
//! strings. All spans point into the Dockerfile; a text that was continued over
//! several lines has a span from its first to its last byte.

use std::time::Duration;

use crate::diagnostic::Span;

/// A text as written, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text; continuation lines are joined, comments in between are gone.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A whole Dockerfile. It has at least one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The directives at its top.
    pub directives: Directives,
    /// The `ARG`s before the first `FROM`, in order; only `FROM` sees them, and an `ARG` that names one again.
    pub global_args: Vec<Instruction>,
    /// The stages in order; a stage's position is its number.
    pub stages: Vec<Stage>,
    /// Blank lines inside of continued instructions (warned about).
    pub empty_continuations: Vec<Span>,
}

/// `# name=value` lines at the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=…`: always one that is understood natively; others are refused.
    pub syntax: Option<Word>,
    /// `# escape=…`: a backslash or a backtick. [`expand`](super::expand::expand) needs it.
    pub escape: char,
    /// `# check=skip=…;error=…`.
    pub check: Check,
}

/// Which warnings are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// BuildKit names of rules that are not to be told, as written.
    pub skip: Vec<String>,
    /// `skip=all`.
    pub skip_all: bool,
    /// Warnings fail the build.
    pub error: bool,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` instruction.
    pub from: From,
    /// What follows, in order; never empty of meaning: comments are gone.
    pub instructions: Vec<Instruction>,
}

/// `FROM [--platform=P] BASE [AS NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The whole instruction.
    pub span: Span,
    /// The joined line as written, for progress and messages.
    pub original: String,
    /// The keyword as written (`FROM`, `from`).
    pub keyword: Word,
    /// `--platform`; expanded with the global `ARG`s and the predefined ones.
    pub platform: Option<Word>,
    /// An image, `scratch`, or the name of an earlier stage; expanded like `platform`.
    pub base: Word,
    /// The name after `AS`, as written; names are compared without case.
    pub name: Option<Word>,
    /// The `AS` keyword as written.
    pub as_keyword: Option<Word>,
}

/// One instruction of a stage, an `ARG` before the first, or an `ONBUILD` trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// From the keyword to the end of the last line, heredocs included.
    pub span: Span,
    /// The joined line without heredoc bodies, trimmed: what progress and messages show.
    pub original: String,
    /// The keyword as written (`RUN`, `run`).
    pub keyword: Word,
    /// What it does.
    pub kind: Kind,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`.
    Add(Add),
    /// `ARG`, one or several; each sees those before it.
    Arg(Vec<Arg>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`: all values see the variables as they were before the instruction.
    Env(Pairs),
    /// `EXPOSE`; each word is expanded with [`expand_words`](super::expand::expand_words),
    /// then parsed with [`exposed_ports`](super::ports::exposed_ports).
    Expose(Vec<Word>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`.
    Label(Pairs),
    /// `MAINTAINER`; the text is not expanded.
    Maintainer(Word),
    /// `ONBUILD`.
    Onbuild(Onbuild),
    /// `RUN`.
    Run(Run),
    /// `SHELL`, at least one word.
    Shell(Vec<String>),
    /// `STOPSIGNAL`; expanded.
    StopSignal(Word),
    /// `USER`; expanded.
    User(Word),
    /// `VOLUME`, at least one path; each expanded.
    Volume(Vec<Word>),
    /// `WORKDIR`; expanded, relative to the one before.
    Workdir(Word),
}

/// Keys and values of `ENV` and `LABEL`; both sides are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// At least one, in order; a key may repeat, the last counts.
    pub pairs: Vec<(Word, Word)>,
    /// Written as `ENV key value`.
    pub legacy: bool,
}

/// `ARG NAME[=DEFAULT]`; both are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The name.
    pub name: Word,
    /// The default; `None` without a `=`.
    pub default: Option<Word>,
}

/// A command in one of its two forms; never expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`: executed as is. May be empty (`CMD []`).
    Exec(Vec<String>),
    /// A line for the shell that `SHELL` set.
    Shell(String),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is executed.
    pub script: Script,
    /// `--mount`s in order. Options are expanded: see [`Mount::resolve`](super::mount).
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<RunNetwork>,
    /// `--security=insecure`: needs the entitlement `security.insecure`.
    pub insecure: bool,
    /// The values of `--network` and `--security` as written, for messages about entitlements.
    pub flags: Vec<Word>,
}

/// What a `RUN` executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// `["a", "b"]`: executed as is.
    Exec(Vec<String>),
    /// A text for the shell that `SHELL` set. A lone heredoc is here as its content;
    /// several, or one among other words, as the line with the bodies after it.
    Shell(String),
    /// A lone heredoc with a `#!` line: it is mounted read-only at `/dev/pipes/NAME`, mode 0755,
    /// and that path is the text for the shell that `SHELL` set.
    Executable {
        /// The heredoc's name.
        name: String,
        /// The file's content.
        content: String,
    },
}

/// `--network` of `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The build's own.
    Default,
    /// Loopback only.
    None,
    /// The host's: needs the entitlement `network.host`.
    Host,
}

/// One `--mount=key=value,…`, not yet expanded; keys are known and unique types checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The whole flag.
    pub span: Span,
    /// `type=`; `bind` when absent.
    pub kind: MountKind,
    /// `from=`, never expanded; checked to be free of `$`.
    pub from: Option<Word>,
    /// All other options in order: canonical key and value; `None` without `=` (a switch).
    pub options: Vec<(MountKey, Option<Word>)>,
}

/// `type=` of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret's content as file or variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// An option of a mount, aliases resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKey {
    /// `target`, `dst`, `destination`.
    Target,
    /// `source`, `src`.
    Source,
    /// `ro`, `readonly`.
    ReadOnly,
    /// `rw`, `readwrite`.
    ReadWrite,
    /// `id`.
    Id,
    /// `sharing`.
    Sharing,
    /// `mode`.
    Mode,
    /// `uid`.
    Uid,
    /// `gid`.
    Gid,
    /// `size`.
    Size,
    /// `required`.
    Required,
    /// `env`.
    Env,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: a stage's name or number, a named context or an image; not expanded.
    pub from: Option<Word>,
    /// What it shares with `ADD`.
    pub transfer: Transfer,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// What it shares with `COPY`.
    pub transfer: Transfer,
    /// `--checksum`, of a URL's content or a git commit; expanded.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`; `None`: local archives are unpacked, remote ones are not.
    pub unpack: Option<bool>,
}

/// Sources and destination of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<Source>,
    /// Expanded; a trailing slash matters.
    pub destination: Word,
    /// `--chown`; expanded, then `user[:group]`, names or numbers.
    pub chown: Option<Word>,
    /// `--chmod`; expanded, then octal (or symbolic, as BuildKit 0.20 has it).
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`s; expanded.
    pub exclude: Vec<Word>,
}

/// A source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or a pattern below the source's root; for `ADD` also a URL or a git reference. Expanded.
    Path(Word),
    /// A file that stands in the Dockerfile.
    Heredoc(Heredoc),
}

/// `<<NAME` and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes: the name of the file that is made.
    pub name: String,
    /// Whether variables are expanded in the body (the delimiter was not quoted):
    /// with [`expand_heredoc`](super::expand::expand_heredoc).
    pub expand: bool,
    /// The body, with leading tabs removed for `<<-`; the span covers it as written.
    pub content: Word,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: the base image's is switched off.
    None,
    /// `CMD …`; what is not given keeps the engine's default.
    Test {
        /// What is executed.
        command: Command,
        /// `--interval`; zero is the default.
        interval: Duration,
        /// `--timeout`; zero is the default.
        timeout: Duration,
        /// `--start-period`; zero is the default.
        start_period: Duration,
        /// `--start-interval`; zero is the default.
        start_interval: Duration,
        /// `--retries`; zero is the default.
        retries: u32,
    },
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as it is written into the image's config.
    pub trigger: Word,
    /// The trigger parsed, for its mistakes; when it fires, what counts is the image's
    /// text through [`parse_trigger`](super::parse_trigger).
    pub instruction: Box<Instruction>,
}

impl Dockerfile {
    /// The number of the stage that a name or number means, among those before `before`.
    ///
    /// A later stage of the same name hides an earlier one; names are compared without case.
    pub fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let known = self.stages.get(..before.min(self.stages.len())).unwrap_or_default();
        let named = known.iter().rposition(|stage| {
            stage.from.name.as_ref().is_some_and(|own| own.text.eq_ignore_ascii_case(name))
        });
        named.or_else(|| name.parse().ok().filter(|number| *number < known.len()))
    }
}
