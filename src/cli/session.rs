//! From settings to a running use case: project, engine, signals, output — and back to an answer.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use hoist::engine::Engine;
use hoist::engine::builtin::BuiltinEngine;
use hoist::engine::docker::{DockerEngine, Login, Logins};
use hoist::model::Project;
use hoist::ops::events::EventSender;
use hoist::ops::{self, Context, Interrupt, Origin, Prompt};
use hoist::plan::lower::Naming;
use hoist::runtime::image::{Credential, Credentials};
use hoist::runtime::root::Root;

use super::load;
use super::render::logs::Style;
use super::render::out;
use super::render::view::{Look, Progress, View};
use super::settings::{EngineChoice, Settings};
use super::signals::Signals;

/// What a verb must know of the project.
///
/// # Source
/// reference/cli.md §3, “Which commands need a compose file”.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// The files: these services (all when none is named) and what they depend on.
    Model(&'a [String]),
    /// The files, unless `-p` says which project is meant: then labels tell the rest.
    /// The services are those that the user has named.
    ProjectOrName(&'a [String]),
    /// The name; the files only to find it.
    Name,
}

/// What a use case is given by the command line.
pub(crate) struct Session<'a> {
    /// For `ops`.
    pub(crate) context: Context,
    /// Where its events go.
    pub(crate) events: EventSender,
    /// For those that connect to a process.
    pub(crate) signals: &'a Signals,
}

/// No logs are shown.
pub(crate) const NO_LOGS: Style =
    Style { color: false, prefix: true, timestamps: false, one_stream: true, json: false };

/// Runs a use case on the project and shows what happens.
///
/// # Errors
/// Those of loading the project, of reaching the engine, and of the use case.
pub(crate) fn run<T>(
    settings: &Settings,
    need: Need<'_>,
    logs: Style,
    work: impl AsyncFnOnce(Session<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let given_name = settings.project_name.as_deref();
    let variable = settings.variable("COMPOSE_PROJECT_NAME");
    let loaded = match need {
        Need::Model(services) => Some(load::model(settings, services)?),
        Need::ProjectOrName(_) if given_name.is_some() && settings.files.is_empty() => None,
        Need::Name if given_name.or(variable).is_some() => None,
        Need::ProjectOrName(services) => match load::existing(settings, services) {
            Ok(project) => Some(project),
            Err(_) if variable.is_some() => None,
            Err(e) => return Err(e),
        },
        Need::Name => Some(load::existing(settings, &[])?),
    };
    operate(settings, logs, async |engine, events, signals| {
        let (project, origin) = if let Some(project) = loaded {
            (project, Origin::Files)
        } else {
            let name = given_name.or(variable).context("no project name")?;
            load::check_name(name)?;
            (ops::project_from_labels(&engine, name).await?, Origin::Labels)
        };
        let context = context(settings, engine, project, origin, signals.interrupt.clone());
        work(Session { context, events, signals }).await
    })
}

/// Runs something that needs an engine but no project.
///
/// # Errors
/// Those of reaching the engine, and of the work.
pub(crate) fn operate<T>(
    settings: &Settings,
    logs: Style,
    work: impl AsyncFnOnce(Arc<dyn Engine>, EventSender, &Signals) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let live = settings.progress == Progress::Tty;
    let signals = Signals::start(live).context("cannot listen for signals")?;
    let look =
        Look { progress: settings.progress, color: settings.color_stderr, logs, dry_run: settings.dry_run };
    let view = View::start(look, signals.interrupt.clone()).context("cannot start the output thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let events = view.sender();
    let result = runtime.block_on(async {
        let engine = engine(settings).await?;
        work(engine, events, &signals).await
    });
    // Whatever still runs in the background must not keep the output open.
    runtime.shutdown_background();
    match (view.finish(), result) {
        // Nobody reads our output any more: what followed from that is not worth telling.
        (Err(e), _) => Err(e).context("cannot write the output"),
        (Ok(()), result) => result,
    }
}

fn context(
    settings: &Settings,
    engine: Arc<dyn Engine>,
    project: Project,
    origin: Origin,
    interrupt: Interrupt,
) -> Context {
    Context {
        engine,
        project: Arc::new(project),
        origin,
        parallel: settings.parallel,
        prompt: Arc::new(Question { interrupt: interrupt.clone() }),
        interrupt,
        dry_run: settings.dry_run,
        naming: Naming { underscores: settings.compatibility },
    }
}

/// Asks on the terminal.
struct Question {
    interrupt: Interrupt,
}

impl Prompt for Question {
    fn confirm(&self, question: &str, default: bool) -> bool {
        let choices = if default { "Y/n" } else { "y/N" };
        let terminal = io::stdin().is_terminal();
        if terminal {
            out::talk(&format!("{question} ({choices}) "));
        } else {
            out::talk(&format!("{question} ({choices})\n"));
        }
        let Some(answer) = self.read_line() else {
            let _gone = io::stderr().write_all(b"\n");
            return false;
        };
        match answer.trim().to_ascii_lowercase().as_str() {
            // Somebody at a terminal has seen the default.
            "" => terminal && default,
            "y" | "yes" | "1" | "t" | "true" => true,
            _ => false,
        }
    }
}

impl Question {
    /// One line of standard input; none at its end or when interrupted.
    fn read_line(&self) -> Option<String> {
        let stdin = rustix::stdio::stdin();
        let mut line = Vec::new();
        loop {
            let mut ready = [rustix::event::PollFd::from_borrowed_fd(stdin, rustix::event::PollFlags::IN)];
            let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let some = rustix::event::poll(&mut ready, Some(&tick)).unwrap_or(0) > 0;
            if self.interrupt.first.is_cancelled() {
                return None;
            }
            if !some {
                continue;
            }
            let mut byte = [0];
            match rustix::io::read(stdin, &mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) => line.push(byte[0]),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if !line.is_empty() => break,
                Ok(_) | Err(_) => return None,
            }
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

/// The logins in Docker's `config.json`, read when one is needed.
#[derive(Debug)]
struct StoredLogins;

impl Logins for StoredLogins {
    fn login(&self, registry: &str) -> Result<Option<Login>, String> {
        let found = Credentials::from_environment().and_then(|known| known.get(registry));
        let login =
            |known: Credential| Login { user: known.user, secret: known.secret, is_token: known.is_token };
        found.map(|known| known.map(login)).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }
}

/// What runs the containers.
async fn engine(settings: &Settings) -> anyhow::Result<Arc<dyn Engine>> {
    match settings.engine {
        EngineChoice::Builtin => Ok(Arc::new(BuiltinEngine::open(&Root::new(settings.root.as_deref()))?)),
        EngineChoice::Docker => {
            let root = Root::new(settings.root.as_deref());
            let engine = DockerEngine::connect(&settings.docker, root.run().join("locks")).await?;
            Ok(Arc::new(engine.with_logins(Arc::new(StoredLogins))))
        }
    }
}
