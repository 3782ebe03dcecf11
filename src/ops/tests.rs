//! Use cases against the engine in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::events::{EventSender, ProjectEvent};
use super::*;
use crate::engine::fake::{FakeEngine, Gate, Script};
use crate::engine::{Engine, EngineError, ImageState, Phase, StdStream};
use crate::model::{Dependency, Healthcheck, Mount, Network, Port, Project, Service, Volume};

/// A project, an engine that has the image `img`, and what was reported.
struct World {
    engine: FakeEngine,
    project: Project,
    events: Option<mpsc::Receiver<ProjectEvent>>,
    sender: EventSender,
}

impl World {
    fn new(services: Vec<Service>) -> Self {
        let engine = FakeEngine::new();
        engine.add_image("img");
        let (sender, events) = mpsc::channel(100_000);
        let networks =
            [("default".to_owned(), Network { name: Some("p_default".into()), ..Network::default() })];
        let services = services.into_iter().map(|s| (s.name.clone(), s)).collect();
        let project = Project { name: "p".into(), services, networks: networks.into(), ..Project::default() };
        Self { engine, project, events: Some(events), sender }
    }

    fn ctx(&self) -> Context {
        Context {
            engine: Arc::new(self.engine.clone()),
            project: Arc::new(self.project.clone()),
            origin: Origin::Files,
            parallel: None,
            interrupt: Interrupt::default(),
            prompt: Arc::new(Always(true)),
            dry_run: false,
            naming: crate::plan::lower::Naming::default(),
        }
    }

    async fn up(&self) -> Result<UpOutcome> {
        up(&self.ctx(), &UpOptions::default(), &self.sender).await
    }

    async fn states(&self) -> BTreeMap<String, ContainerState> {
        let all = self.engine.list(&[]).await.expect("listed");
        all.into_iter().map(|c| (c.name.clone(), c)).collect()
    }

    async fn running(&self) -> Vec<String> {
        let states = self.states().await;
        states.into_values().filter(|s| s.phase == Phase::Running).map(|s| s.name).collect()
    }

    /// Everything reported so far.
    fn told(&mut self) -> Vec<ProjectEvent> {
        let mut all = Vec::new();
        if let Some(events) = &mut self.events {
            while let Ok(event) = events.try_recv() {
                all.push(event);
            }
        }
        all
    }

    /// Lines of output so far, as `source|line`.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for event in self.told() {
            match event {
                ProjectEvent::Log { source, frames } => {
                    lines.extend(
                        frames.iter().map(|f| format!("{source}|{}", String::from_utf8_lossy(&f.data))),
                    );
                }
                ProjectEvent::Exited { source, code, restarting } => {
                    lines.push(format!("{source} exited {code}{}", if restarting { " again" } else { "" }));
                }
                ProjectEvent::Recreated { source } => lines.push(format!("{source} recreated")),
                ProjectEvent::Attaching(names) => lines.push(format!("attaching {}", names.join(","))),
                ProjectEvent::Stopping { reason } => lines.push(reason.to_owned()),
                _ => {}
            }
        }
        lines
    }
}

use crate::engine::ContainerState;

fn service(name: &str) -> Service {
    Service {
        name: name.into(),
        image: Some("img".into()),
        networks: [("default".to_owned(), None)].into(),
        ..Service::default()
    }
}

fn needs(mut service: Service, on: &str, condition: &str) -> Service {
    let dependency = Dependency { condition: condition.into(), ..Dependency::default() };
    service.depends_on.insert(on.into(), dependency);
    service
}

fn probed(mut service: Service) -> Service {
    service.healthcheck =
        Some(Healthcheck { test: vec!["CMD".into(), "true".into()], ..Healthcheck::default() });
    service
}

fn attached() -> UpOptions {
    UpOptions { mode: UpMode::Attached(AttachOptions::default()), ..UpOptions::default() }
}

#[tokio::test]
async fn up_makes_what_is_missing_and_down_leaves_nothing() {
    let mut db = service("db");
    db.volumes.push(Mount {
        kind: Some("volume".into()),
        source: Some("data".into()),
        target: Some("/data".into()),
        ..Mount::default()
    });
    let mut world = World::new(vec![needs(service("web"), "db", "service_started"), db]);
    world.project.volumes.insert("data".into(), Volume { name: Some("p_data".into()), ..Volume::default() });
    world.up().await.expect("up");
    let calls = world.engine.take_calls();
    assert_eq!(world.running().await, ["p-db-1", "p-web-1"]);
    let at =
        |call: &str| calls.iter().position(|c| c == call).unwrap_or_else(|| panic!("no {call} in {calls:?}"));
    assert!(at("create_network p_default") < at("create p-web-1"));
    assert!(at("create_volume p_data") < at("create p-db-1"));
    assert!(at("create p-web-1") < at("start p-db-1"));
    assert!(at("start p-db-1") < at("start p-web-1"));

    let ended =
        down(&world.ctx(), &DownOptions { volumes: true, ..DownOptions::default() }, &world.sender).await;
    assert!(!ended.expect("down").nothing_found);
    let calls = world.engine.take_calls();
    let at =
        |call: &str| calls.iter().position(|c| c == call).unwrap_or_else(|| panic!("no {call} in {calls:?}"));
    assert!(at("stop p-web-1") < at("stop p-db-1"));
    assert!(world.states().await.is_empty());
    assert!(world.engine.networks(&[]).await.expect("listed").is_empty());
    assert!(world.engine.volumes(&[]).await.expect("listed").is_empty());
    let again = down(&world.ctx(), &DownOptions::default(), &world.sender).await;
    assert!(again.expect("down").nothing_found);
}

#[tokio::test]
async fn an_unchanged_up_only_looks() {
    let world = World::new(vec![service("a"), service("b")]);
    world.up().await.expect("up");
    let before = world.states().await;
    world.engine.take_calls();
    world.up().await.expect("up");
    assert_eq!(world.engine.take_calls(), ["image img", "list ", "networks ", "volumes "]);
    assert_eq!(world.states().await, before);
}

#[tokio::test]
async fn only_the_changed_service_is_recreated_and_keeps_its_anonymous_volumes() {
    let mut web = service("web");
    web.volumes.push(Mount {
        kind: Some("volume".into()),
        target: Some("/cache".into()),
        ..Mount::default()
    });
    let mut world = World::new(vec![web, service("db")]);
    world.up().await.expect("up");
    let before = world.states().await;
    let changed = world.project.services.get_mut("web").expect("there");
    changed.environment.insert("DEBUG".into(), Some("1".into()));
    world.engine.take_calls();
    world.up().await.expect("up");
    let mut calls = world.engine.take_calls();
    let after = world.states().await;
    assert_eq!(before["p-db-1"], after["p-db-1"]);
    assert_ne!(before["p-web-1"].id, after["p-web-1"].id);
    assert_eq!(before["p-web-1"].mounts[0].name, after["p-web-1"].mounts[0].name);
    assert_eq!(world.running().await, ["p-db-1", "p-web-1"]);
    let old = &before["p-web-1"].id[..12];
    calls.drain(..5);
    let temporary = format!("create {old}_p-web-1");
    let renamed = format!("rename {old}_p-web-1 p-web-1");
    assert_eq!(calls, [&temporary, "stop p-web-1", "remove p-web-1", &renamed, "start p-web-1"]);
    assert_eq!(after["p-web-1"].labels["com.docker.compose.replace"], "web-1");
}

#[tokio::test]
async fn a_health_gate_holds_the_dependent_back() {
    let world = World::new(vec![needs(service("web"), "db", "service_healthy"), probed(service("db"))]);
    let gate = Gate::new();
    world.engine.script("db", Script::new().until(&gate).healthy());
    let ctx = world.ctx();
    let sender = world.sender.clone();
    let options = UpOptions::default();
    let bringing = up(&ctx, &options, &sender);
    let opening = async {
        while !world.running().await.contains(&"p-db-1".to_owned()) {
            tokio::task::yield_now().await;
        }
        // The wait has let the lock go, so others may change the project.
        drop(world.engine.lock_project("p", &|_| panic!("the lock is held during a wait")).await);
        assert_eq!(world.running().await, ["p-db-1"]);
        gate.open();
    };
    let (brought, ()) = tokio::join!(bringing, opening);
    brought.expect("up");
    assert_eq!(world.running().await, ["p-db-1", "p-web-1"]);
}

#[tokio::test]
async fn an_unhealthy_dependency_is_reported_with_its_evidence() {
    let web = needs(service("web"), "api", "service_started");
    let api = needs(service("api"), "db", "service_healthy");
    let world = World::new(vec![web, api, probed(service("db"))]);
    world.engine.script("db", Script::new().print("cannot open /data").unhealthy("connection refused"));
    let error = world.up().await.expect_err("unhealthy");
    let OpsError::NotReady(report) = error else { panic!("{error}") };
    assert_eq!(
        report.to_string(),
        "dependency failed to start: container p-db-1 (service `db`) is unhealthy"
    );
    assert_eq!(report.blocked, ["api", "web"]);
    assert_eq!(report.output, ["cannot open /data"]);
    assert_eq!(report.probes[0].output, "connection refused");
    assert_eq!(world.running().await, ["p-db-1"]);
}

#[tokio::test]
async fn impossible_waits_are_found_before_anything_starts() {
    let world = World::new(vec![needs(service("web"), "db", "service_healthy"), service("db")]);
    let error = world.up().await.expect_err("no probe");
    assert!(error.to_string().contains("has no healthcheck configured"), "{error}");
    assert!(world.states().await.is_empty());
    let mut job = service("job");
    job.restart = Some("always".into());
    let world = World::new(vec![needs(service("web"), "job", "service_completed_successfully"), job]);
    let error = world.up().await.expect_err("never completes");
    assert!(error.to_string().contains("never completes"), "{error}");
}

#[tokio::test]
async fn a_job_has_to_complete_with_zero() {
    let world =
        World::new(vec![needs(service("web"), "job", "service_completed_successfully"), service("job")]);
    world.engine.script("job", Script::new().exit(0));
    world.up().await.expect("up");
    assert_eq!(world.running().await, ["p-web-1"]);
    // It runs again, and what counts is the new run.
    down(&world.ctx(), &DownOptions::default(), &world.sender).await.expect("down");
    world.engine.script("job", Script::new().print("boom").exit(3));
    let error = world.up().await.expect_err("failed job");
    assert!(error.to_string().contains("exited (3)"), "{error}");
}

#[tokio::test]
async fn an_optional_dependency_that_fails_is_a_warning() {
    let mut web = needs(service("web"), "job", "service_completed_successfully");
    web.depends_on.get_mut("job").expect("there").required = false;
    let mut world = World::new(vec![web, service("job")]);
    world.engine.script("job", Script::new().exit(1));
    world.up().await.expect("up");
    assert_eq!(world.running().await, ["p-web-1"]);
    let warned =
        world.told().into_iter().any(|e| matches!(e, ProjectEvent::Warning(w) if w.contains("optional")));
    assert!(warned);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_knows_done_jobs_and_time_limits() {
    let wait = |secs| {
        let timeout = Some(Duration::from_secs(secs));
        UpOptions { mode: UpMode::Wait(WaitLimit { timeout }), ..UpOptions::default() }
    };
    let world = World::new(vec![service("job"), probed(service("db")), service("web")]);
    world.engine.script("job", Script::new().exit(0));
    world.engine.script("db", Script::new().sleep(Duration::from_secs(3)).healthy());
    up(&world.ctx(), &wait(10), &world.sender).await.expect("ready");

    let world = World::new(vec![probed(service("db"))]);
    world.engine.script("db", Script::new().print("still starting"));
    let error = up(&world.ctx(), &wait(10), &world.sender).await.expect_err("too slow");
    assert_eq!(
        error.to_string(),
        "application not healthy after 10s: service `db` is not running or healthy"
    );
    let OpsError::NotReady(report) = error else { panic!() };
    assert_eq!(report.output, ["still starting"]);
}

#[tokio::test]
async fn what_is_half_made_is_undone_when_a_start_fails() {
    let mut web = needs(service("web"), "db", "service_started");
    web.ports.push(Port { target: 80, published: Some("80".into()), ..Port::default() });
    let world = World::new(vec![web, service("db")]);
    let taken =
        || EngineError::PortTaken { port: "0.0.0.0:80/tcp".into(), reason: "held by nginx (pid 7)".into() };
    world.engine.fail("start p-web-1", taken);
    let error = world.up().await.expect_err("port taken");
    assert_eq!(error.to_string(), "cannot start container `p-web-1`");
    let source = std::error::Error::source(&error).expect("a source").to_string();
    assert_eq!(source, "cannot publish port 0.0.0.0:80/tcp: held by nginx (pid 7)");
    assert_eq!(world.states().await.keys().collect::<Vec<_>>(), ["p-db-1"]);
    world.up().await.expect("the second try");
    assert_eq!(world.running().await, ["p-db-1", "p-web-1"]);
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let world = World::new(vec![service("a"), service("b")]);
    world.engine.fail("create p-b-1", || EngineError::Invalid("bad address".into()));
    world.up().await.expect_err("failed");
    assert!(world.states().await.is_empty());
    assert!(world.engine.networks(&[]).await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_missing_image_is_pulled_and_an_unknown_one_names_service_and_remedy() {
    let mut a = service("a");
    a.image = Some("far".into());
    let mut world = World::new(vec![a]);
    world.engine.publish_image("far");
    world.up().await.expect("up");
    let told = world.told();
    let layer = |e: &ProjectEvent| matches!(e, ProjectEvent::Progress { bytes: Some((100, 100)), .. });
    assert!(told.iter().any(layer));
    world.project.services.get_mut("a").expect("there").image = Some("nowhere".into());
    let error = world.up().await.expect_err("no image").to_string();
    assert!(
        error.contains("service `a`") && error.contains("nowhere") && error.contains("image load"),
        "{error}"
    );
}

#[tokio::test]
async fn two_ups_at_once_make_one_set_of_containers() {
    let world = World::new(vec![service("a"), service("b"), service("c")]);
    let (one, two) = tokio::join!(world.up(), world.up());
    one.expect("first");
    two.expect("second");
    assert_eq!(world.running().await, ["p-a-1", "p-b-1", "p-c-1"]);
}

#[tokio::test]
async fn scaling_up_and_down_keeps_the_lowest_numbers() {
    let world = World::new(vec![service("a")]);
    world.up().await.expect("up");
    let to = |n| ScaleOptions { replicas: [("a".to_owned(), n)].into(), no_deps: false };
    scale(&world.ctx(), &to(3), &world.sender).await.expect("scaled");
    assert_eq!(world.running().await, ["p-a-1", "p-a-2", "p-a-3"]);
    scale(&world.ctx(), &to(1), &world.sender).await.expect("scaled");
    assert_eq!(world.running().await, ["p-a-1"]);
}

#[tokio::test]
async fn an_interrupted_replacement_is_finished_by_the_next_up() {
    let mut world = World::new(vec![service("a")]);
    world.up().await.expect("up");
    let changed = world.project.services.get_mut("a").expect("there");
    changed.environment.insert("V".into(), Some("2".into()));
    for broken in ["stop p-a-1", "remove p-a-1", "rename "] {
        let value = format!("for {broken}");
        let changed = world.project.services.get_mut("a").expect("there");
        changed.environment.insert("V".into(), Some(value));
        world.engine.fail(broken, || EngineError::Invalid("the machine lost power".into()));
        world.up().await.expect_err("broken off");
        world.up().await.expect("finished");
        assert_eq!(world.running().await, ["p-a-1"], "after {broken}");
        assert_eq!(world.states().await.len(), 1);
    }
}

#[tokio::test]
async fn orphans_are_told_and_removed_when_asked() {
    let mut world = World::new(vec![service("a"), service("old")]);
    world.up().await.expect("up");
    world.project.services.remove("old");
    world.up().await.expect("up");
    let told = world.told();
    assert!(told.iter().any(|e| matches!(e, ProjectEvent::Warning(w) if w.contains("[p-old-1]"))));
    let converge = ConvergeOptions { remove_orphans: true, ..ConvergeOptions::default() };
    let options = UpOptions { converge, ..UpOptions::default() };
    up(&world.ctx(), &options, &world.sender).await.expect("up");
    assert_eq!(world.running().await, ["p-a-1"]);
}

#[tokio::test]
async fn sharing_a_namespace_follows_recreation() {
    let mut side = service("side");
    side.networks.clear();
    side.network_mode = Some("service:main".into());
    let side = needs(side, "main", "service_started");
    let mut world = World::new(vec![side, service("main")]);
    world.up().await.expect("up");
    let before = world.states().await;
    let of_main = |states: &BTreeMap<String, ContainerState>| format!("container:{}", states["p-main-1"].id);
    assert_eq!(before["p-side-1"].network_mode, of_main(&before));
    world.engine.take_calls();
    world.up().await.expect("up");
    assert!(world.engine.take_calls().iter().all(|c| !c.starts_with("create")), "nothing changes");
    world.project.services.get_mut("main").expect("there").user = Some("1".into());
    world.up().await.expect("up");
    let after = world.states().await;
    assert_ne!(before["p-side-1"].id, after["p-side-1"].id);
    assert_eq!(after["p-side-1"].network_mode, of_main(&after));
    assert_eq!(world.running().await, ["p-main-1", "p-side-1"]);
}

#[tokio::test]
async fn an_attached_up_shows_all_output_and_ends_with_its_containers() {
    let mut world = World::new(vec![service("a"), service("b")]);
    world.engine.script("a", Script::new().print("one").eprint("two").exit(0));
    world.engine.script("b", Script::new().print("x").exit(4));
    let outcome = up(&world.ctx(), &attached(), &world.sender).await.expect("up");
    assert_eq!(outcome, UpOutcome { exit_code: 0, interrupted: false });
    let lines = world.lines();
    assert_eq!(lines[0], "attaching a-1,b-1");
    let of = |name: &str| lines.iter().filter(|l| l.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!(of("a-1"), ["a-1|one", "a-1|two", "a-1 exited 0"]);
    assert_eq!(of("b-1"), ["b-1|x", "b-1 exited 4"]);
}

#[tokio::test]
async fn exit_code_from_stops_the_others_and_gives_the_code() {
    let mut world = World::new(vec![needs(service("tests"), "db", "service_started"), service("db")]);
    world.engine.script("tests", Script::new().print("3 failed").exit(7));
    let attach = AttachOptions { exit_code_from: Some("tests".into()), ..AttachOptions::default() };
    let options = UpOptions { mode: UpMode::Attached(attach), ..UpOptions::default() };
    let outcome = up(&world.ctx(), &options, &world.sender).await.expect("up");
    assert_eq!(outcome.exit_code, 7);
    assert!(world.running().await.is_empty());
    let lines = world.lines();
    assert!(lines.contains(&"db-1 exited 143".to_owned()), "{lines:?}");
    assert!(lines.contains(&"Aborting on container exit...".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_first_interrupt_stops_and_the_second_kills() {
    let mut world = World::new(vec![needs(service("web"), "db", "service_started"), service("db")]);
    let ctx = world.ctx();
    let (options, sender) = (attached(), world.sender.clone());
    let running = async {
        while world.running().await.len() < 2 {
            tokio::task::yield_now().await;
        }
        ctx.interrupt.first.cancel();
    };
    let (outcome, ()) = tokio::join!(up(&ctx, &options, &sender), running);
    assert!(outcome.expect("up").interrupted);
    let calls = world.engine.take_calls();
    let at =
        |call: &str| calls.iter().position(|c| c == call).unwrap_or_else(|| panic!("no {call} in {calls:?}"));
    assert!(at("stop p-web-1") < at("stop p-db-1"));
    let lines = world.lines();
    assert_eq!(lines.iter().filter(|l| l.ends_with("exited 143")).count(), 2, "{lines:?}");

    let mut world = World::new(vec![service("deaf")]);
    world.engine.script("deaf", Script::new().ignore_stop());
    let ctx = world.ctx();
    let sender = world.sender.clone();
    let stubborn = async {
        while world.running().await.is_empty() {
            tokio::task::yield_now().await;
        }
        ctx.interrupt.first.cancel();
        while !world.engine.take_calls().iter().any(|c| c.starts_with("stop")) {
            tokio::task::yield_now().await;
        }
        ctx.interrupt.second.cancel();
    };
    let (outcome, ()) = tokio::join!(up(&ctx, &options, &sender), stubborn);
    assert!(outcome.expect("up").interrupted);
    assert!(world.running().await.is_empty());
    assert!(world.lines().contains(&"deaf-1 exited 137".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn following_sees_restarts_recreation_and_scaling_and_repeats_nothing() {
    let mut counted = service("a");
    counted.restart = Some("always".into());
    let mut world = World::new(vec![counted, service("b")]);
    world.up().await.expect("up");
    world.lines();
    let ctx = world.ctx();
    let sender = world.sender.clone();
    let options = LogsOptions { follow: true, ..LogsOptions::default() };
    let changes = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut n = 0;
        for _ in 0..5 {
            for _ in 0..3 {
                n += 1;
                world.engine.print("p-a-1", StdStream::Stdout, &format!("line {n}"));
            }
            world.engine.exit("p-a-1", 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        restart(&ctx, &RestartOptions { services: vec!["a".into()], ..RestartOptions::default() }, &sender)
            .await
            .expect("restarted");
        world.engine.print("p-a-1", StdStream::Stdout, "after restart");
        let force = ConvergeOptions { recreate: Recreate::Force, ..ConvergeOptions::default() };
        let again = UpOptions { services: vec!["a".into()], converge: force, ..UpOptions::default() };
        up(&ctx, &again, &sender).await.expect("recreated");
        world.engine.print("p-a-1", StdStream::Stdout, "after recreation");
        let two = ScaleOptions { replicas: [("b".to_owned(), 2)].into(), no_deps: true };
        scale(&ctx, &two, &sender).await.expect("scaled");
        world.engine.print("p-b-2", StdStream::Stderr, "second");
        down(&ctx, &DownOptions::default(), &sender).await.expect("down");
    };
    let (followed, ()) = tokio::join!(logs(&ctx, &options, &sender), changes);
    followed.expect("followed");
    let lines = world.lines();
    let of_a: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("a-1|")).collect();
    let mut expected: Vec<String> = (1..=15).map(|n| format!("line {n}")).collect();
    expected.extend(["after restart".into(), "after recreation".into()]);
    assert_eq!(of_a, expected);
    assert!(lines.contains(&"a-1 recreated".to_owned()), "{lines:?}");
    assert!(lines.contains(&"b-2|second".to_owned()), "{lines:?}");
    assert_eq!(lines.iter().filter(|l| *l == "a-1 exited 1 again").count(), 5);
    // An exit is told after the run's output and before the next run's.
    let at = |line: &str| lines.iter().position(|l| l == line).expect(line);
    assert!(at("a-1|line 3") < at("a-1 exited 1 again") && at("a-1 exited 1 again") < at("a-1|line 4"));
}

#[tokio::test]
async fn past_output_is_merged_by_time() {
    let mut world = World::new(vec![service("a"), service("b")]);
    world.up().await.expect("up");
    for n in 0..6 {
        let name = if n % 2 == 0 { "p-a-1" } else { "p-b-1" };
        world.engine.print(name, StdStream::Stdout, &n.to_string());
    }
    world.lines();
    logs(&world.ctx(), &LogsOptions::default(), &world.sender).await.expect("logs");
    assert_eq!(world.lines()[1..], ["a-1|0", "b-1|1", "a-1|2", "b-1|3", "a-1|4", "b-1|5"]);
    let last = LogsOptions { tail: Some(1), ..LogsOptions::default() };
    logs(&world.ctx(), &last, &world.sender).await.expect("logs");
    assert_eq!(world.lines()[1..], ["a-1|4", "b-1|5"]);
}

#[tokio::test]
async fn a_changed_image_recreates_and_says_so() {
    let world = World::new(vec![service("a")]);
    world.up().await.expect("up");
    let image = ImageState { id: format!("sha256:{}", "f".repeat(64)), ..ImageState::default() };
    world.engine.set_image("img", image);
    let decided = plan(&world.ctx(), &UpOptions::default(), &world.sender).await.expect("plan");
    let text = decided.to_string();
    assert!(text.contains("recreate container p-a-1: image ") && text.contains("→ ffffffffffff"), "{text}");
    world.engine.take_calls();
    plan(&world.ctx(), &UpOptions::default(), &world.sender).await.expect("plan");
    assert_eq!(world.engine.take_calls(), ["image img", "list ", "networks ", "volumes "]);
}

#[tokio::test]
async fn queries_tell_what_there_is() {
    let mut web = service("web");
    web.ports.push(Port { target: 80, published: Some("8080".into()), ..Port::default() });
    let world = World::new(vec![web, service("job")]);
    world.engine.script("job", Script::new().exit(0));
    world.up().await.expect("up");
    while world.running().await.len() > 1 {
        tokio::task::yield_now().await;
    }
    let ctx = world.ctx();
    let names = |found: Vec<ProjectContainer>| found.into_iter().map(|c| c.state.name).collect::<Vec<_>>();
    assert_eq!(names(ps(&ctx, &PsOptions::default()).await.expect("ps")), ["p-web-1"]);
    let all = PsOptions { all: true, ..PsOptions::default() };
    assert_eq!(names(ps(&ctx, &all).await.expect("ps")), ["p-job-1", "p-web-1"]);
    let of = |target| PortOptions { service: "web".into(), target, protocol: "tcp".into(), index: None };
    assert_eq!(port(&ctx, &of(80)).await.expect("port").1, 8080);
    let error = port(&ctx, &of(81)).await.expect_err("unpublished").to_string();
    assert_eq!(error, "no port 81/tcp for container p-web-1: 0.0.0.0:8080->80/tcp");
    let projects = ls(&ctx.engine, false).await.expect("ls");
    assert_eq!(projects[0].name, "p");
    assert_eq!(projects[0].phases, BTreeMap::from([("running", 1)]));
    let unknown = PsOptions { services: vec!["wbe".into()], ..PsOptions::default() };
    assert_eq!(ps(&ctx, &unknown).await.expect_err("unknown").to_string(), "no such service: wbe");
}

#[tokio::test]
async fn run_waits_for_dependencies_and_names_its_container() {
    let mut web = needs(service("web"), "db", "service_healthy");
    web.restart = Some("always".into());
    web.ports.push(Port { target: 80, published: Some("80".into()), ..Port::default() });
    let world = World::new(vec![web, probed(service("db"))]);
    world.engine.script("db", Script::new().healthy());
    world.engine.script("web", Script::new().print("hello").exit(5));
    let ctx = world.ctx();
    let options = RunOptions { service: "web".into(), remove: true, ..RunOptions::default() };
    let Started::Attached(session) = run(&ctx, &options, &world.sender).await.expect("run") else {
        panic!("attached");
    };
    assert!(session.name.starts_with("p-web-run-"), "{}", session.name);
    let mut text = String::new();
    let mut stdout = session.attached.stdout;
    tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut text).await.expect("read");
    assert_eq!(text, "hello\n");
    assert_eq!(session.attached.control.wait().await.expect("code"), 5);
    assert_eq!(world.states().await.into_keys().collect::<Vec<_>>(), ["p-db-1"]);

    world
        .engine
        .fail("start p-web-run", || EngineError::NotExecutable { message: "no such file".into(), code: 127 });
    run(&ctx, &options, &world.sender).await.map(drop).expect_err("not executable");
    assert_eq!(world.states().await.into_keys().collect::<Vec<_>>(), ["p-db-1"]);
}

#[tokio::test]
async fn a_stopped_project_is_started_in_order_also_without_files() {
    let mut world = World::new(vec![needs(service("web"), "db", "service_started"), service("db")]);
    world.up().await.expect("up");
    stop(&world.ctx(), &StopOptions::default(), &world.sender).await.expect("stopped");
    assert!(world.running().await.is_empty());
    let engine: Arc<dyn Engine> = Arc::new(world.engine.clone());
    world.project = project_from_labels(&engine, "p").await.expect("rebuilt");
    let ctx = Context { origin: Origin::Labels, ..world.ctx() };
    world.engine.take_calls();
    start(&ctx, &StartOptions::default(), &world.sender).await.expect("started");
    let calls: Vec<String> =
        world.engine.take_calls().into_iter().filter(|c| c.starts_with("start")).collect();
    assert_eq!(calls, ["start p-db-1", "start p-web-1"]);
    down(&ctx, &DownOptions::default(), &world.sender).await.expect("down");
    assert!(world.states().await.is_empty());
    assert!(world.engine.networks(&[]).await.expect("listed").is_empty());
}
