//! `watch`: what changes in the working tree reaches the containers.
//!
//! File events only say *where* to look; what is done follows from what is there
//! when it is done. So the order of events does not matter, nor whether some
//! were lost, repeated or merged: a path that exists is copied, one that does not
//! is removed. What was ever changed is remembered by rule, and a container
//! that is started anew gets all of it.
//!
//! One loop takes file events, gathered until it is quiet for a moment, and the
//! engine's events; per batch it rebuilds, syncs, restarts, and executes.

mod patterns;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::rules::{Action, Batch, Rule, Then};
use super::context::Context;
use super::cp::{CopyError, Packer};
use super::events::{EventSender, ProjectEvent};
use super::lifecycle::restart;
use super::options::{
    BuildPolicy, ConvergeOptions, Recreate, RestartOptions, UpMode, UpOptions, WatchOptions,
};
use super::progress::send;
use super::{OpsError, Result, hook, up};
use crate::engine::{ContainerState, EngineError, EventAction, Phase};
use crate::model::labels;

/// A batch is complete when nothing has happened for this long…
const QUIET: Duration = Duration::from_millis(100);
/// …or when its first event is this old.
const LONGEST: Duration = Duration::from_millis(500);

/// Follows the working tree until the user interrupts it.
///
/// # Errors
/// There is no rule, or one makes no sense; the first `up` fails; files cannot be watched.
/// What fails later is a warning: the next change tries again.
pub async fn watch(ctx: &Context, options: &WatchOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let (rules, warnings) = rules::rules(&ctx.project, &options.services)?;
    for warning in warnings {
        send(events, ProjectEvent::Warning(warning)).await;
    }
    // Before anything is looked at, so that nothing falls in between.
    let (_watcher, changes) = observe(&rules)?;
    let mut happened = ctx.engine.events(&[ctx.label()], None).await?;
    if options.up {
        let services = options.services.clone();
        let converge = ConvergeOptions { quiet_build: options.quiet_build, ..ConvergeOptions::default() };
        let options = UpOptions { services, converge, mode: UpMode::Detached };
        Box::pin(up(ctx, &options, events)).await?;
    }
    let mut watch = Watch {
        ctx,
        options,
        events,
        touched: vec![BTreeSet::new(); rules.len()],
        rules,
        known: BTreeSet::new(),
    };
    for container in watch.running().await? {
        watch.fresh(&container).await;
    }
    send(events, ProjectEvent::Watch("watch enabled".into())).await;
    let mut changes = Changes { channel: changes, gathered: BTreeSet::new(), since: None, lost: false };
    loop {
        tokio::select! {
            batch = changes.batch() => {
                if std::mem::take(&mut changes.lost) {
                    watch.everything().await;
                }
                watch.changed(&batch).await;
            }
            event = happened.next() => match event {
                Some(Ok(event)) if event.action == EventAction::Start => {
                    if let Some(container) = ctx.engine.inspect(&event.id).await?
                        && container.labels.get(labels::ONE_OFF).is_none_or(|v| v != "True")
                    {
                        watch.fresh(&container).await;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(OpsError::EventsEnded),
            },
            () = ctx.interrupt.first.cancelled() => return Err(OpsError::Interrupted),
        }
    }
}

/// What the kernel's watches tell.
enum Change {
    /// Something about a path.
    Path(PathBuf),
    /// Some were lost.
    Lost,
}

/// Watches all paths of the rules. A path that is missing is waited for in its nearest parent.
fn observe(rules: &[Rule]) -> Result<(notify::RecommendedWatcher, mpsc::UnboundedReceiver<Change>)> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: notify::Error| OpsError::Watch { path, source: error }
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let tell = move |event: notify::Result<notify::Event>| {
        let lost = match &event {
            Ok(event) => event.need_rescan(),
            Err(_) => true,
        };
        // The receiver ends with the command.
        if lost {
            drop(sender.send(Change::Lost));
        }
        if let Ok(event) = event
            && !event.kind.is_access()
        {
            for path in event.paths {
                drop(sender.send(Change::Path(path)));
            }
        }
    };
    let mut watcher = notify::recommended_watcher(tell).map_err(failed(Path::new(".")))?;
    let mut places: BTreeMap<PathBuf, RecursiveMode> = BTreeMap::new();
    for rule in rules {
        if rule.path.is_dir() {
            places.insert(rule.path.clone(), RecursiveMode::Recursive);
        }
        // A file, and a directory that is replaced, is told by who holds it.
        let parent = rule.path.ancestors().skip(1).find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        let mode = if rule.path.exists() { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        if parent != Path::new("/") {
            places.entry(parent.to_owned()).or_insert(mode);
        }
    }
    for (place, mode) in places {
        watcher.watch(&place, mode).map_err(failed(&place))?;
    }
    Ok((watcher, receiver))
}

/// File events, gathered into batches.
struct Changes {
    channel: mpsc::UnboundedReceiver<Change>,
    /// Paths of the burst that is under way.
    gathered: BTreeSet<PathBuf>,
    /// When it began.
    since: Option<Instant>,
    /// Some were lost since this was last looked at.
    lost: bool,
}

impl Changes {
    /// The paths of the next burst of events. Dropped before it is ready, it loses nothing.
    async fn batch(&mut self) -> BTreeSet<PathBuf> {
        let began = match self.since {
            Some(began) => began,
            None => {
                let Some(first) = self.channel.recv().await else {
                    // The watcher lives as long as the loop.
                    return std::future::pending().await;
                };
                self.take(first);
                *self.since.insert(Instant::now())
            }
        };
        loop {
            let quiet = (Instant::now() + QUIET).min(began + LONGEST);
            match tokio::time::timeout_at(quiet, self.channel.recv()).await {
                Ok(Some(change)) => self.take(change),
                Ok(None) | Err(_) => {
                    self.since = None;
                    return std::mem::take(&mut self.gathered);
                }
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Path(path) => drop(self.gathered.insert(path)),
            Change::Lost => self.lost = true,
        }
    }
}

struct Watch<'a> {
    ctx: &'a Context,
    options: &'a WatchOptions,
    events: &'a EventSender,
    rules: Vec<Rule>,
    /// Paths that changed since the beginning, by rule.
    touched: Vec<BTreeSet<PathBuf>>,
    /// Containers that have everything.
    known: BTreeSet<String>,
}

impl Watch<'_> {
    /// Running containers of the project, without one-offs.
    async fn running(&self) -> Result<Vec<ContainerState>> {
        let containers = self.ctx.containers().await?;
        let runs = |phase| matches!(phase, Phase::Running | Phase::Paused);
        Ok(containers.into_iter().filter(|c| !c.oneoff && runs(c.state.phase)).map(|c| c.state).collect())
    }

    /// Shows a failure; the next change tries again.
    async fn warn(&self, service: &str, error: &dyn std::error::Error) {
        let mut text = format!("service `{service}`: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        send(self.events, ProjectEvent::Warning(text)).await;
    }

    async fn say(&self, text: String) {
        send(self.events, ProjectEvent::Watch(text)).await;
    }

    /// Brings a container that was just started to where the working tree is.
    async fn fresh(&mut self, container: &ContainerState) {
        if !self.known.insert(container.id.clone()) {
            return;
        }
        let Some(service) = container.labels.get(labels::SERVICE) else { return };
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.service == *service) {
            let mut paths = self.touched[index].clone();
            if rule.initial_sync {
                paths = BTreeSet::from([rule.path.clone()]);
            }
            if paths.is_empty() || !matches!(rule.action, Action::Sync { .. }) {
                continue;
            }
            if let Err(error) = sync(self.ctx, &container.id, rule, &paths).await {
                self.warn(service, &error).await;
            }
        }
    }

    /// Looks at everything again after events were lost.
    async fn everything(&mut self) {
        self.say("too many changes to follow one by one: syncing everything".into()).await;
        let paths = self.rules.iter().map(|rule| rule.path.clone()).collect();
        // What is gone was touched before, or was there at the beginning and its going was lost with its event.
        let before: BTreeSet<PathBuf> = self.touched.iter().flatten().cloned().collect();
        self.changed(&before).await;
        self.changed(&paths).await;
    }

    /// Carries out what a batch of changed paths asks for.
    async fn changed(&mut self, paths: &BTreeSet<PathBuf>) {
        let batch = Batch::new(&self.rules, paths);
        for service in &batch.rebuild {
            self.say(format!("rebuilding service `{service}`")).await;
            if let Err(error) = self.rebuild(service).await {
                self.warn(service, &error).await;
            }
        }
        let mut restarts = batch.restart;
        let mut commands: Vec<(String, ContainerState, crate::spec::ExecSpec)> = Vec::new();
        for (index, paths) in &batch.sync {
            self.touched[*index].extend(paths.iter().cloned());
            let rule = &self.rules[*index];
            let containers = match self.running().await {
                Ok(all) => all,
                Err(error) => {
                    self.warn(&rule.service, &error).await;
                    continue;
                }
            };
            let of_service = |c: &ContainerState| c.labels.get(labels::SERVICE) == Some(&rule.service);
            let containers: Vec<_> = containers.into_iter().filter(of_service).collect();
            let count = paths.len();
            let changes = if count == 1 { "change" } else { "changes" };
            self.say(format!("syncing service `{}` after {count} {changes}", rule.service)).await;
            let copies = containers.iter().map(|container| sync(self.ctx, &container.id, rule, paths));
            if let Err(error) = try_join_all(copies).await {
                self.warn(&rule.service, &error).await;
                continue;
            }
            match &rule.action {
                Action::Sync { then: Then::Restart, .. } => drop(restarts.insert(rule.service.clone())),
                Action::Sync { then: Then::Execute(spec), .. } => {
                    let each = containers.into_iter().map(|c| (rule.service.clone(), c, spec.clone()));
                    commands.extend(each);
                }
                Action::Sync { then: Then::Nothing, .. } | Action::Rebuild | Action::Restart => {}
            }
        }
        if !restarts.is_empty() {
            let services: Vec<String> = restarts.into_iter().collect();
            self.say(format!("restarting {}", services.join(", "))).await;
            let options = RestartOptions { services: services.clone(), no_deps: false, timeout: None };
            if let Err(error) = restart(self.ctx, &options, self.events).await {
                self.warn(&services.join(", "), &error).await;
            }
        }
        for (service, container, spec) in commands {
            let done = hook::run(&self.ctx.engine, &container.id, &container.name, "sync+exec", &spec).await;
            if let Err(error) = done {
                self.warn(&service, &error).await;
            }
        }
    }

    async fn rebuild(&self, service: &str) -> Result<()> {
        let converge = ConvergeOptions {
            recreate: Recreate::Force,
            no_deps: true,
            build: BuildPolicy::Always,
            quiet_build: self.options.quiet_build,
            ..ConvergeOptions::default()
        };
        let options = UpOptions { services: vec![service.to_owned()], converge, mode: UpMode::Detached };
        Box::pin(up(self.ctx, &options, self.events)).await?;
        if self.options.prune {
            self.prune().await?;
        }
        Ok(())
    }

    /// Removes images of the project that have no name any more and that nobody uses.
    async fn prune(&self) -> Result<()> {
        for image in self.ctx.engine.images().await? {
            let ours = image.labels.get(labels::PROJECT) == Some(&self.ctx.project.name);
            if ours && image.tags.is_empty() && image.digests.is_empty() {
                match self.ctx.engine.remove_image(&image.id, false).await {
                    Ok(()) | Err(EngineError::InUse { .. } | EngineError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Makes paths of a container what they are in the working tree.
async fn sync(
    ctx: &Context,
    container: &str,
    rule: &Rule,
    paths: &BTreeSet<PathBuf>,
) -> std::result::Result<(), CopyError> {
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for path in paths {
        let Some(relative) = rule.covers(path) else { continue };
        let Some(target) = rule.target(relative) else { continue };
        if std::fs::symlink_metadata(path).is_ok() {
            there.push((path.clone(), PathBuf::from(target.trim_start_matches('/'))));
        } else if target != "/" {
            gone.push(target);
        }
    }
    if !gone.is_empty() {
        ctx.engine.delete_paths(container, &gone).await?;
    }
    if there.is_empty() {
        return Ok(());
    }
    if send_paths(ctx, container, rule, there.clone()).await.is_ok() {
        return Ok(());
    }
    // A file where a directory was, or the other way round: nothing that is brought is lost by removing it.
    let old: Vec<String> = there.iter().map(|(_, target)| format!("/{}", target.display())).collect();
    ctx.engine.delete_paths(container, &old).await?;
    send_paths(ctx, container, rule, there).await
}

async fn send_paths(
    ctx: &Context,
    container: &str,
    rule: &Rule,
    paths: Vec<(PathBuf, PathBuf)>,
) -> std::result::Result<(), CopyError> {
    let (reader, writer) = std::io::pipe().map_err(CopyError::Archive)?;
    let rule = rule.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let mut packer = Packer::new(std::io::BufWriter::with_capacity(128 << 10, writer));
        for (path, target) in paths {
            let wanted = |path: &Path, is_directory: bool| {
                rule.covers(path).is_some_and(|relative| rule.includes(relative, is_directory))
            };
            match packer.add(&path, &target, false, &wanted) {
                // Removed meanwhile; its event is on the way.
                Err(CopyError::Local { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        packer.finish()
    });
    let unpacking = ctx.engine.unpack(container, "/", Box::new(reader), false);
    let (unpacked, packed) = tokio::join!(unpacking, packing);
    let packed = packed.unwrap_or_else(|stopped| Err(CopyError::Archive(std::io::Error::other(stopped))));
    match (packed, unpacked) {
        (Ok(()) | Err(CopyError::Archive(_)), Err(unpacked)) => Err(unpacked.into()),
        (packed, _) => packed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_batch_and_nothing_is_lost_when_others_are_heard_meanwhile() {
        let (sender, channel) = mpsc::unbounded_channel();
        let mut changes = Changes { channel, gathered: BTreeSet::new(), since: None, lost: false };
        let tell = |path: &str| drop(sender.send(Change::Path(path.into())));
        tell("a");
        // An event of the engine comes in between: the burst goes on.
        assert!(tokio::time::timeout(QUIET / 2, changes.batch()).await.is_err());
        tell("b");
        assert_eq!(changes.batch().await, BTreeSet::from(["a".into(), "b".into()]));
        drop(sender.send(Change::Lost));
        assert_eq!(changes.batch().await, BTreeSet::new());
        assert!(changes.lost);
    }
}
