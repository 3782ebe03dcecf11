//! Properties of `up` over generated projects: it respects every dependency, it reaches what was asked
//! for from whatever was there before, and then there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::engine::fake::{FakeEngine, Script};
use crate::engine::{Engine, EngineError, Phase};
use crate::model::{Dependency, Healthcheck, Mount, Network, Port, Project, Service, Volume};
use crate::plan::{Operation, Target};

/// A service as numbers that proptest can shrink.
#[derive(Debug, Clone)]
struct Drawn {
    replicas: i64,
    /// Dependencies among earlier services, with a condition.
    needs: Vec<(usize, u8, bool)>,
    user: u8,
    volumes: u8,
    shares_network: bool,
    published: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let needs = proptest::collection::vec((0..6_usize, 0..3_u8, any::<bool>()), 0..3);
    (0..4_i64, needs, 0..3_u8, 0..4_u8, 0..8_u8, any::<bool>()).prop_map(
        |(replicas, needs, user, volumes, share, published)| Drawn {
            replicas,
            needs,
            user,
            volumes,
            shares_network: share == 0,
            published,
        },
    )
}

fn project(drawn: &[Drawn], network_label: bool) -> Project {
    let mut project = Project { name: "p".into(), ..Project::default() };
    let labels = if network_label { [("x".to_owned(), "y".to_owned())].into() } else { BTreeMap::new() };
    project
        .networks
        .insert("default".into(), Network { name: Some("p_default".into()), labels, ..Network::default() });
    for volume in ["v0", "v1"] {
        let declared = Volume { name: Some(format!("p_{volume}")), ..Volume::default() };
        project.volumes.insert(volume.into(), declared);
    }
    for (index, one) in drawn.iter().enumerate() {
        let mut service = Service {
            name: format!("s{index}"),
            image: Some("img".into()),
            user: Some(one.user.to_string()),
            scale: Some(one.replicas),
            networks: [("default".to_owned(), None)].into(),
            ..Service::default()
        };
        // Probed, so that everybody may wait for its health; the script says healthy at once.
        let test = vec!["CMD".into(), "true".into()];
        service.healthcheck = Some(Healthcheck { test, ..Healthcheck::default() });
        for (on, condition, restart) in &one.needs {
            if *on < index {
                let condition =
                    ["service_started", "service_healthy", "service_healthy"][usize::from(*condition)];
                let condition = condition.to_owned();
                let dependency = Dependency { condition, restart: *restart, ..Dependency::default() };
                service.depends_on.insert(format!("s{on}"), dependency);
            }
        }
        for bit in 0..2 {
            if one.volumes & (1 << bit) != 0 {
                service.volumes.push(Mount {
                    kind: Some("volume".into()),
                    source: Some(format!("v{bit}")),
                    target: Some(format!("/v{bit}")),
                    ..Mount::default()
                });
            }
        }
        let parent = format!("s{}", index.saturating_sub(1));
        if one.shares_network && index > 0 && drawn[index - 1].replicas > 0 {
            service.networks.clear();
            service.network_mode = Some(format!("service:{parent}"));
            service.depends_on.entry(parent).or_default().restart = true;
        } else if one.published {
            service.ports.push(Port { target: 80, ..Port::default() });
        }
        project.services.insert(service.name.clone(), service);
    }
    project
}

fn context(engine: &FakeEngine, project: Project) -> Context {
    Context {
        engine: Arc::new(engine.clone()),
        project: Arc::new(project),
        origin: Origin::Files,
        parallel: None,
        interrupt: Interrupt::default(),
        prompt: Arc::new(Always(true)),
        dry_run: false,
        naming: crate::plan::lower::Naming::default(),
    }
}

fn options() -> UpOptions {
    let converge = ConvergeOptions { remove_orphans: true, ..ConvergeOptions::default() };
    UpOptions { converge, ..UpOptions::default() }
}

fn engine() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.add_image("img");
    engine.script("img", Script::new().healthy());
    engine
}

fn run_async<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// Containers start after what they need, and nothing is started twice.
fn check_order(plan: &crate::plan::Plan, project: &Project) -> std::result::Result<(), TestCaseError> {
    let mut started: BTreeSet<String> = BTreeSet::new();
    let mut starts: BTreeMap<String, Vec<crate::plan::NodeId>> = BTreeMap::new();
    for (id, node) in plan.nodes() {
        prop_assert!(plan.before(id).iter().all(|before| *before < id), "numbers are an order");
        if let Operation::StartContainer { container } = &node.operation {
            prop_assert!(started.insert(format!("{container:?}")), "started twice: {container:?}");
            if let Target::Created { by, .. } = container {
                prop_assert!(reaches(plan, *by, id), "started before it is made");
            }
            let service = plan.service_of(container).unwrap_or_default().to_owned();
            starts.entry(service).or_default().push(id);
        }
    }
    for (name, nodes) in &starts {
        for need in project.services[name].depends_on.keys() {
            for earlier in starts.get(need).into_iter().flatten() {
                for later in nodes {
                    prop_assert!(reaches(plan, *earlier, *later), "{name} starts before {need}");
                }
            }
        }
    }
    Ok(())
}

fn reaches(plan: &crate::plan::Plan, from: crate::plan::NodeId, to: crate::plan::NodeId) -> bool {
    let mut queue = vec![to];
    while let Some(node) = queue.pop() {
        if node == from {
            return true;
        }
        queue.extend(plan.before(node));
    }
    false
}

async fn check_reached(engine: &FakeEngine, project: &Project) -> std::result::Result<(), TestCaseError> {
    let mut expected = BTreeMap::new();
    for service in project.services.values().filter(|s| s.replicas() > 0) {
        expected.insert(service.name.clone(), usize::try_from(service.replicas()).unwrap_or(0));
    }
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for state in engine.list(&[]).await.expect("listed") {
        prop_assert_eq!(state.phase, Phase::Running, "{}", state.name);
        let service = state.labels["com.docker.compose.service"].clone();
        prop_assert!(state.name.starts_with("p-"), "temporary name {} is left", state.name);
        *found.entry(service).or_default() += 1;
    }
    prop_assert_eq!(found, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn up_reaches_any_project_from_any_other_and_then_rests(
        first in proptest::collection::vec(drawn(), 1..6),
        second in proptest::collection::vec(drawn(), 1..6),
        labels in any::<(bool, bool)>(),
    ) {
        run_async(async {
            let engine = engine();
            let (sender, _events) = mpsc::channel(100_000);
            for project in [project(&first, labels.0), project(&second, labels.1)] {
                let ctx = context(&engine, project.clone());
                let decided = plan(&ctx, &options(), &sender).await.expect("plan");
                check_order(&decided, &project)?;
                up(&ctx, &options(), &sender).await.expect("up");
                check_reached(&engine, &project).await?;
                let rest = plan(&ctx, &options(), &sender).await.expect("plan");
                prop_assert!(rest.is_empty(), "left to do:\n{}", rest);
            }
            Ok(())
        })?;
    }

    #[test]
    fn up_finishes_what_a_broken_up_has_left(
        first in proptest::collection::vec(drawn(), 1..5),
        second in proptest::collection::vec(drawn(), 1..5),
        broken in 0..30_usize,
    ) {
        run_async(async {
            let engine = engine();
            let (sender, _events) = mpsc::channel(100_000);
            let ctx = context(&engine, project(&first, false));
            up(&ctx, &options(), &sender).await.expect("up");
            let target = project(&second, true);
            let ctx = context(&engine, target.clone());
            // Every changing call of this up, in turn, is where the power fails: nothing works from there on.
            let calls = {
                let decided = plan(&ctx, &options(), &sender).await.expect("plan");
                decided.nodes().filter(|(_, n)| n.operation.changes_something()).count()
            };
            engine.fail_all_after(broken % (calls + 1), || EngineError::Invalid("no power".into()));
            drop(up(&ctx, &options(), &sender).await);
            engine.heal();
            up(&ctx, &options(), &sender).await.expect("up");
            check_reached(&engine, &target).await?;
            let rest = plan(&ctx, &options(), &sender).await.expect("plan");
            prop_assert!(rest.is_empty(), "left to do:\n{}", rest);
            Ok(())
        })?;
    }
}
