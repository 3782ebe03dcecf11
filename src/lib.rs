//! hoist: `docker compose` as one binary that needs no daemon.
//!
//! This page is the map: the parts, how data flows through them, what is kept
//! on disk, and what the code deliberately does *not* do.
//!
//! # The parts
//!
//! ```text
//!  compose.yaml ──compose::load──▶ model::Project ──graph──▶ order, levels
//!                    │ diagnostic        │
//!                    ▼                   ▼
//!      observed ──plan::reconcile──▶ plan::Plan (DAG of single operations, each with its cause)
//!          ▲                             │ ops::execute
//!          │                             ▼
//!        engine::Engine ◀── images · networks · volumes · containers · exec · logs · events
//!          ├─ builtin ──▶ runtime   shim per container, overlay, cgroup, netlink, DNS, image store
//!          ├─ docker  ──▶ bollard   a Docker Engine, or Podman's socket (feature `docker`)
//!          └─ fake    ──▶ in memory, with failure injection (tests, embedders)
//! ```
//!
//! | module | owns | and does not |
//! | --- | --- | --- |
//! | [`diagnostic`] | mistakes in a user's file, with their places | print |
//! | [`model`] | the project in canonical form, config hash, labels | read files |
//! | [`compose`] | files → project, in stages, one file each | talk to an engine |
//! | [`graph`] | dependency order, cycles as paths (petgraph) | wait |
//! | [`spec`] | what a container, network or volume is asked to be: plain data | anything |
//! | [`plan`] | desired × observed → operations with reasons | touch anything |
//! | [`engine`] | the port to what runs containers | know compose |
//! | [`ops`] | the verbs: up, down, run, logs, … | know terminal or environment |
//! | [`runtime`] | our own container runtime (Linux) | know compose |
//! | [`util`] | files with paths in errors, locks, ids | import any of the above |
//!
//! The binary's own modules (`src/cli`) parse argv, settle defaults, call one
//! function of [`ops`] per verb, and render its events. `tests/it/architecture.rs`
//! fails when a module imports one that it may not.
//!
//! [`spec`] is not in the style guide's tree: it holds the `*Spec` types so that
//! the runtime, which may not import [`engine`], needs no second copy of them.
//!
//! # `up`, from the top
//!
//! load → observe → reconcile (pure) → plan → execute → follow. The printed plan
//! is exactly what the executor runs; nothing decides outside `plan`. An
//! unchanged `up` is an empty plan. Conditions of `depends_on` are waited for on
//! the engine's event stream; nothing polls.
//!
//! # No daemon
//!
//! `hoist` is a short-lived command. What outlives it is one **shim** per
//! container: this binary re-executed through a read-only clone of itself,
//! before any thread exists. The shim is the container's parent and only
//! supervisor: it owns stdio and writes the log, reaps and records the exit,
//! applies the restart policy, probes health, answers DNS in the container's
//! network namespace, and serves a control socket. It parses nothing that a user
//! wrote: its plan arrives resolved. Shims share nothing but files, so a lost
//! shim hurts one container only, and any command repairs it.
//!
//! # Builds
//!
//! A Dockerfile is read by `runtime::build::dockerfile` (pure: text → tree, mistakes,
//! warnings) and carried out by `Runtime::build`: each step that changes files is a layer of
//! the store from its first byte on, found again by the digest of all that can change its
//! result. A `RUN` has a process like a shim around it (`hoist-step`), which ends with it.
//!
//! # On disk
//!
//! `/var/lib/hoist` survives a reboot, `/run/hoist` does not; `HOIST_ROOT=DIR`
//! moves both, to `DIR` and `DIR/run`. Everything that others read carries a
//! format version and is written whole (temporary name, then rename).
//!
//! | path below the root | holds |
//! | --- | --- |
//! | `images/` | blobs by digest, references by name, unpacked layers by diff ID, layers of build steps by key |
//! | `networks/<id>/` | config, `leases/<address>`, `names/<container>` |
//! | `volumes/<name>/` | config, `data/` |
//! | `containers/<id>/` | spec, state, log segments, upper and work directories, hosts, resolv.conf |
//! | `build/` | directories of `RUN --mount=type=cache`, digests of context files by their stat |
//! | `run/c/<id>/` | plan, lock (held = the shim lives), control socket, FIFOs |
//! | `run/steps/<id>/` | a `RUN` of a build under way: lock, what to take back after a crash |
//! | `run/locks/<project>/lock` | held by the command that changes the project |
//! | `run/events` | what happened, one JSON line each; followed with inotify |
//!
//! A resource is recorded before it is made, and its record is removed after it
//! has gone; a held flock means alive. So any process of ours may be killed at
//! any instruction, and the next command finds what to finish or to sweep.
//!
//! # Where measuring changed the plan
//!
//! - Names of a network are found with one `stat` per network and query, not with
//!   inotify: a watch in every shim would wake all of them for every container,
//!   and the kernel allows 128 instances per user.
//! - Endpoint records are written when the endpoint is connected, not when it is
//!   planned: a record promises that its ports are bound.
//! - Route netlink is our own encoder of about a dozen messages, like `nf_tables`.
//! - Linux 6.18 kills whatever is cloned into a v2 cgroup on which `cgroup.kill`
//!   was ever used, so a container's group is removed at every exit and made anew.
//! - Ten shims kept 11 MB, nearly all of it pages of the binary that they had run
//!   once. A shim that was idle for 200 ms unmaps its own text and trims its heap:
//!   3.0 MB for ten with their inits (`.ci/bench`, “memory 10 services”).
//! - A lock of a killed command can be held for a moment longer by a child that
//!   has not reached `execve` yet, so the sweep waits for the lock that says
//!   “a container is being made” instead of trying it once.
//! - The kernel frees a bridge some 50 ms after it was asked to; a child process
//!   waits for that, the prompt does not.

pub mod compose;
pub mod diagnostic;
pub mod engine;
pub mod graph;
pub mod model;
pub mod ops;
pub mod plan;
#[cfg(target_os = "linux")]
pub mod runtime;
pub mod spec;
pub mod util;
