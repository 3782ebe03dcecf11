//! Images on their way to a registry.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::context::{Context, under_heading};
use super::error::sum_up;
use super::events::{EventSender, ResourceKind, Status};
use super::options::PushOptions;
use super::progress::{Progress, send};
use super::pull::layer_event;
use super::{OpsError, Result};
use crate::engine::PullEvent;

/// Sends the images of services that are built, under all their names.
///
/// Services that have no `build`, or no `image` to be known by, are skipped.
///
/// # Errors
/// Unknown services; all images that could not be pushed, after the others were.
pub async fn push(ctx: &Context, options: &PushOptions, events: &EventSender) -> Result<()> {
    ctx.check_services(&options.services)?;
    let selected = ctx.select(&options.services, !options.include_deps);
    // Image to the first service that has it.
    let mut images: BTreeMap<&str, &str> = BTreeMap::new();
    let mut skipped = Vec::new();
    for service in selected.iter().filter_map(|name| ctx.project.services.get(name)) {
        let (Some(image), Some(build)) = (&service.image, &service.build) else {
            skipped.push(service.name.as_str());
            continue;
        };
        for name in std::iter::once(image).chain(&build.tags) {
            images.entry(name).or_insert(&service.name);
        }
    }
    let work = async {
        for service in skipped {
            let line = Progress::new(ResourceKind::Image, service, "Pushing", "Skipped");
            line.done(events).await;
        }
        let pushes = join_all(
            images.iter().map(|(image, service)| push_one(ctx, image, service, options.quiet, events)),
        );
        let results = ctx.unless_interrupted(async { Ok(pushes.await) }).await?;
        sum_up(results, options.ignore_failures, events).await
    };
    under_heading(events, "push", work).await
}

async fn push_one(
    ctx: &Context,
    image: &str,
    service: &str,
    quiet: bool,
    events: &EventSender,
) -> Result<()> {
    let line = Progress::new(ResourceKind::Image, image, "Pushing", "Pushed");
    line.working(events).await;
    let (steps, mut stepped) = mpsc::unbounded_channel();
    // The forwarder goes away only when the push does.
    let progress = move |step: PullEvent| drop(steps.send(step));
    let forward = async {
        while let Some(step) = stepped.recv().await {
            if !quiet && let Some(event) = layer_event(image, step) {
                send(events, event).await;
            }
        }
    };
    let push = async {
        // Moved in, so that the forwarder ends with the push.
        let progress = progress;
        ctx.engine.push(image, &progress).await
    };
    let (pushed, ()) = tokio::join!(push, forward);
    match pushed {
        Ok(()) => {
            line.done(events).await;
            Ok(())
        }
        Err(source) => {
            line.ended(events, Status::Error, "Error", source.to_string()).await;
            Err(OpsError::Push {
                service: service.to_owned(),
                image: image.to_owned(),
                source: Box::new(source),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::events::ProjectEvent;
    use super::*;
    use crate::engine::EngineError;
    use crate::engine::fake::FakeEngine;
    use crate::model::{Build, Project, Service};
    use crate::ops::{Always, Interrupt, Origin};

    fn service(name: &str, image: Option<&str>, tags: Option<&[&str]>) -> (String, Service) {
        let build = tags.map(|tags| {
            Box::new(Build { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Build::default() })
        });
        let image = image.map(str::to_owned);
        (name.to_owned(), Service { name: name.to_owned(), image, build, ..Service::default() })
    }

    fn context(engine: &FakeEngine) -> Context {
        let services = [
            service("both", Some("r.example/both:1"), Some(&["r.example/both:2"])),
            service("only-image", Some("busybox"), None),
            service("only-build", None, Some(&[])),
        ];
        let project = Project { name: "p".into(), services: services.into(), ..Project::default() };
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

    #[tokio::test]
    async fn what_is_built_goes_out_under_all_its_names_and_the_rest_is_skipped() {
        let engine = FakeEngine::new();
        engine.add_image("r.example/both:1");
        engine.add_image("r.example/both:2");
        let (events, mut told) = mpsc::channel(1000);
        push(&context(&engine), &PushOptions::default(), &events).await.expect("pushed");
        assert!(engine.is_published("r.example/both:1") && engine.is_published("r.example/both:2"));
        let mut skipped = Vec::new();
        while let Ok(event) = told.try_recv() {
            if let ProjectEvent::Progress { name, text: "Skipped", .. } = event {
                skipped.push(name);
            }
        }
        assert_eq!(skipped, ["only-build", "only-image"]);
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_cause_and_does_not_keep_the_others_back() {
        let engine = FakeEngine::new();
        engine.add_image("r.example/both:2");
        let (events, mut told) = mpsc::channel(1000);
        let error =
            push(&context(&engine), &PushOptions::default(), &events).await.expect_err("one is missing");
        assert!(
            matches!(&error, OpsError::Push { source, .. } if matches!(**source, EngineError::NotFound { .. }))
        );
        assert!(error.to_string().contains("r.example/both:1"), "{error}");
        assert!(engine.is_published("r.example/both:2"));
        let options = PushOptions { ignore_failures: true, ..PushOptions::default() };
        push(&context(&engine), &options, &events).await.expect("ignored");
        let mut warnings = Vec::new();
        while let Ok(event) = told.try_recv() {
            if let ProjectEvent::Warning(text) = event {
                warnings.push(text);
            }
        }
        assert!(warnings.iter().any(|text| text.contains("r.example/both:1")), "{warnings:?}");
    }
}
