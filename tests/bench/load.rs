//! How long each stage of a load takes: `cargo bench --bench load [SERVICES...]`.
//!
//! Projects of 3, 200, 1 000 and 5 000 services (or as many as are asked for) are loaded from
//! memory, rendered and hashed several times; the table shows the fastest time of each stage in
//! milliseconds, so that a busy machine does not count, and microseconds per service, which show
//! whether it is linear. The stages are the spans that the loader traces: `HOIST_LOG=hoist=trace`
//! shows the same of one real load.
#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hoist::compose::{self, Files, LoadOptions, yaml};
use hoist::model::record::Style;
use hoist::model::{hash, json};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A service with a bit of everything, like those of `shared/bench/compare`.
fn project(services: usize) -> String {
    let mut text = String::from("services:\n");
    for n in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  s{n}:\n    image: busybox:latest\n    environment: {{A: '${{HOME}}', B: '${{X:-y}}', C: '{n}'}}\n    \
             ports: ['{}:80', '127.0.0.1::81/udp']\n    volumes: ['v{}:/data', './x:/x:ro']\n    \
             healthcheck: {{test: [CMD, 'true'], interval: 5s}}\n    labels: [a=b, c=d]\n",
            10_000 + n,
            n % 20
        );
        if n > 0 {
            let _ = writeln!(text, "    depends_on: {{s{}: {{condition: service_healthy}}}}", n - 1);
        }
    }
    text.push_str("volumes:\n");
    for n in 0..20 {
        let _ = writeln!(text, "  v{n}: {{}}");
    }
    text
}

/// One file in memory.
struct Memory(Vec<u8>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.is_file(path) { Ok(self.0.clone()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn is_file(&self, path: &Path) -> bool {
        path == Path::new("/p/compose.yaml")
    }

    fn is_dir(&self, path: &Path) -> bool {
        path == Path::new("/p")
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    fn stdin(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// Adds up how long each span is open, by name.
#[derive(Default)]
struct Stages {
    open: Mutex<Vec<(u64, &'static str, Instant)>>,
    spent: Arc<Mutex<BTreeMap<&'static str, Duration>>>,
}

impl Subscriber for Stages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut open = self.open.lock().expect("one thread");
        let id = open.iter().map(|(id, ..)| *id).max().unwrap_or(0) + 1;
        open.push((id, span.metadata().name(), Instant::now()));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn try_close(&self, id: Id) -> bool {
        let mut open = self.open.lock().expect("one thread");
        if let Some(at) = open.iter().position(|(open, ..)| *open == id.into_u64()) {
            let (_, name, since) = open.swap_remove(at);
            *self.spent.lock().expect("one thread").entry(name).or_default() += since.elapsed();
        }
        true
    }
}

/// One load and what `config` makes of it; how long each stage took.
fn run(text: &str) -> BTreeMap<&'static str, Duration> {
    let options = LoadOptions {
        current_dir: "/p".into(),
        environment: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
        ..LoadOptions::default()
    };
    let files = Memory(text.as_bytes().to_vec());
    let stages = Stages::default();
    let spent = Arc::clone(&stages.spent);
    tracing::subscriber::with_default(stages, || {
        let timed = |name: &'static str, since: Instant| {
            spent.lock().expect("one thread").insert(name, since.elapsed());
        };
        let start = Instant::now();
        let loaded = compose::load(&options, &files).expect("the project is right");
        timed("= load", start);
        let start = Instant::now();
        std::hint::black_box(yaml::print(&loaded.project.render(Style::Yaml), true));
        timed("render yaml", start);
        let start = Instant::now();
        std::hint::black_box(json::pretty(&loaded.project.render(Style::Json)));
        timed("render json", start);
        let start = Instant::now();
        for service in loaded.project.services.values() {
            std::hint::black_box(hash::service(service));
        }
        timed("hash", start);
    });
    std::mem::take(&mut *spent.lock().expect("one thread"))
}

fn main() {
    let mut sizes: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![3, 200, 1_000, 5_000];
    }
    let mut table: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    for (column, services) in sizes.iter().enumerate() {
        let text = project(*services);
        for _ in 0..(20_000 / services).clamp(3, 50) {
            for (stage, took) in run(&text) {
                let row = table.entry(stage).or_insert_with(|| vec![Duration::MAX; sizes.len()]);
                row[column] = row[column].min(took);
            }
        }
    }
    print!("{:<14}", "services");
    for services in &sizes {
        print!("{services:>12}         ");
    }
    println!();
    for (stage, row) in &table {
        print!("{stage:<14}");
        for (took, services) in row.iter().zip(&sizes) {
            let micros = took.as_secs_f64() * 1e6;
            #[expect(clippy::cast_precision_loss, reason = "a number of services")]
            let each = micros / *services as f64;
            print!("{:>9.3} ms {each:>6.1} µs", micros / 1e3);
        }
        println!();
    }
}
