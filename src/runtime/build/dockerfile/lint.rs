//! What a Dockerfile may do and better would not: BuildKit's rules, under hoist's codes.
//!
//! Each rule has BuildKit's name, so that `# check=skip=NAME` means the same to
//! both. All stages are looked at, also those that a build would skip.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::ast::{Command, Dockerfile, Instruction, Kind, Source, Stage, Transfer, Word};
use super::expand::{Expansion, Variables, expansion, heredoc_expansion};
use super::scope::{Globals, Inputs, Scope};
use super::{ports, rules};
use crate::diagnostic::{Diagnostic, Severity, Span, suggest, tidy};

/// What the rules need to know beyond the file.
pub struct Surroundings<'a> {
    /// Build arguments and platforms.
    pub inputs: &'a Inputs,
    /// The variables of the image that a stage (by number) is based on; `None` when the image is not
    /// there, and then nothing is said about variables of that stage.
    pub image_env: &'a dyn Fn(usize) -> Option<Vec<(String, String)>>,
    /// Whether a path of the context, relative to it, is excluded by `.dockerignore`.
    pub ignored: &'a dyn Fn(&str) -> bool,
}

/// All warnings about a file, in order of their places. With `# check=error=true` they are errors.
pub fn check(file: &Dockerfile, surroundings: &Surroundings<'_>) -> Vec<Diagnostic> {
    let mut lint = Lint { file, surroundings, found: Vec::new() };
    lint.lines();
    lint.names();
    // What does not expand is told by the build itself.
    if let Ok(globals) = Globals::new(file, surroundings.inputs) {
        lint.bases(&globals);
        lint.stages(&globals);
    }
    let mut found = lint.found;
    if file.directives.check.error {
        for diagnostic in &mut found {
            diagnostic.severity = Severity::Error;
        }
    }
    tidy(&mut found);
    found
}

/// What is known of a stage while its instructions are gone through.
#[derive(Clone, Default)]
struct State {
    scope: Scope,
    /// Whether the variables of its image are known.
    known: bool,
    workdir: bool,
    shell: bool,
}

struct Lint<'a> {
    file: &'a Dockerfile,
    surroundings: &'a Surroundings<'a>,
    found: Vec<Diagnostic>,
}

impl Lint<'_> {
    /// Notes a warning, unless the file does not want it.
    fn warn(&mut self, rule: &rules::Rule, span: Span, message: impl Into<String>, help: Option<String>) {
        let check = &self.file.directives.check;
        if check.skip_all || check.skip.iter().any(|name| name.eq_ignore_ascii_case(rule.name)) {
            return;
        }
        let mut warning = Diagnostic::warning(rule.code, message).at(span, "");
        warning.help.extend(help);
        self.found.push(warning);
    }

    /// How the lines are written.
    fn lines(&mut self) {
        for span in &self.file.empty_continuations {
            let help = "take the blank line out; other tools will refuse it";
            self.warn(
                &rules::NO_EMPTY_CONTINUATION,
                *span,
                "a blank line inside of an instruction",
                Some(help.into()),
            );
        }
        let of_stage = |stage: &Stage| {
            let own = stage.instructions.iter().map(|instruction| instruction.keyword.clone());
            std::iter::once(stage.from.keyword.clone()).chain(own).collect::<Vec<_>>()
        };
        let keywords: Vec<Word> = self.file.stages.iter().flat_map(of_stage).collect();
        let lower = |word: &Word| word.text == word.text.to_ascii_lowercase();
        let upper = |word: &Word| word.text == word.text.to_ascii_uppercase();
        let mostly_lower =
            keywords.iter().filter(|w| lower(w)).count() > keywords.iter().filter(|w| upper(w)).count();
        for word in &keywords {
            if !(if mostly_lower { lower(word) } else { upper(word) }) {
                let wanted = if mostly_lower {
                    word.text.to_ascii_lowercase()
                } else {
                    word.text.to_ascii_uppercase()
                };
                let message = format!("`{}` is written unlike most instructions here", word.text);
                self.warn(&rules::CONSISTENT_CASING, word.span, message, Some(format!("write `{wanted}`")));
            }
        }
    }

    /// Names of stages, and instructions that are out of fashion.
    fn names(&mut self) {
        let file = self.file;
        for (number, stage) in file.stages.iter().enumerate() {
            let from = &stage.from;
            if let (Some(name), Some(keyword)) = (&from.name, &from.as_keyword) {
                self.name(&file.stages[..number], name);
                let upper = |text: &str| text == text.to_ascii_uppercase();
                let lower = |text: &str| text == text.to_ascii_lowercase();
                let (f, a) = (from.keyword.text.as_str(), keyword.text.as_str());
                if !(upper(f) && upper(a) || lower(f) && lower(a)) {
                    let message = format!("`{a}` is written unlike `{f}`");
                    let wanted = if lower(f) { "as" } else { "AS" };
                    self.warn(
                        &rules::FROM_AS_CASING,
                        keyword.span,
                        message,
                        Some(format!("write `{wanted}`")),
                    );
                }
            }
            for instruction in &stage.instructions {
                match &instruction.kind {
                    Kind::Maintainer(_) => {
                        let help = "write `LABEL org.opencontainers.image.authors=\"…\"`";
                        let message = "`MAINTAINER` is deprecated in favour of a label";
                        self.warn(&rules::MAINTAINER, instruction.keyword.span, message, Some(help.into()));
                    }
                    Kind::Env(pairs) | Kind::Label(pairs) if pairs.legacy => {
                        let name = instruction.keyword.text.to_ascii_uppercase();
                        let message = format!("`{name} key value` is the old form of `{name} key=value`");
                        let key = pairs.pairs.first().map_or("", |(key, _)| key.text.as_str());
                        let help = Some(format!(
                            "write `{name} {key}=…`, with quotes around a value that has blanks"
                        ));
                        self.warn(&rules::LEGACY_KEY_VALUE, instruction.span, message, help);
                    }
                    _ => {}
                }
            }
        }
    }

    fn name(&mut self, before: &[Stage], name: &Word) {
        let lower = name.text.to_ascii_lowercase();
        if name.text != lower {
            let message = format!("stage name `{}` is not in lower case", name.text);
            self.warn(&rules::STAGE_NAME_CASING, name.span, message, Some(format!("write `{lower}`")));
        }
        let same = |stage: &&Stage| {
            stage.from.name.as_ref().is_some_and(|other| other.text.eq_ignore_ascii_case(&lower))
        };
        if before.iter().rfind(same).is_some() {
            let message =
                format!("stage name `{lower}` is used twice; the later stage hides the earlier one");
            self.warn(&rules::DUPLICATE_STAGE_NAME, name.span, message, None);
        }
        if ["scratch", "context"].contains(&lower.as_str()) {
            let message = format!("stage name `{lower}` is reserved");
            self.warn(&rules::RESERVED_STAGE_NAME, name.span, message, Some("choose another name".into()));
        }
    }

    /// What stands after `FROM`.
    fn bases(&mut self, globals: &Globals) {
        let file = self.file;
        let escape = file.directives.escape;
        // As if nothing were given with the build.
        let defaults =
            Globals::new(file, &Inputs { build_args: BTreeMap::new(), ..self.surroundings.inputs.clone() });
        for stage in &file.stages {
            let from = &stage.from;
            for word in from.platform.iter().chain([&from.base]) {
                let Ok(done) = expansion(word, escape, globals) else { continue };
                for name in done.unset.iter().filter(|name| !globals.knows(name)) {
                    let near =
                        suggest::nearest(name, globals.names()).map(|near| format!("did you mean `{near}`?"));
                    let help = near
                        .unwrap_or_else(|| format!("declare it with `ARG {name}` before the first `FROM`"));
                    let message = format!("variable `{name}` after `FROM` is not declared");
                    self.warn(&rules::UNDEFINED_ARG_IN_FROM, word.span, message, Some(help));
                }
            }
            if let Some(platform) = &from.platform {
                self.platform(stage, platform, globals);
            }
            if let Ok(Ok(done)) = defaults.as_ref().map(|defaults| expansion(&from.base, escape, defaults)) {
                let variable = !done.used.is_empty() || !done.unset.is_empty();
                if variable && !is_reference(&done.text) {
                    let message = format!(
                        "without build arguments, `{}` is the invalid image name `{}`",
                        from.base.text, done.text
                    );
                    let help = "give the `ARG` a default that makes it valid";
                    self.warn(&rules::INVALID_DEFAULT_ARG, from.base.span, message, Some(help.into()));
                }
            }
        }
    }

    fn platform(&mut self, stage: &Stage, platform: &Word, globals: &Globals) {
        let Ok(done) = expansion(platform, self.file.directives.escape, globals) else { return };
        if done.used.is_empty() && done.unset.is_empty() {
            // A stage that is named after its platform is meant to be for that only.
            let name =
                stage.from.name.as_ref().map(|name| name.text.to_ascii_lowercase()).unwrap_or_default();
            let mut parts = done.text.split('/');
            let meant = parts.by_ref().take(2).any(|part| name.contains(part)) && !name.is_empty();
            let valid = done.text.parse::<crate::runtime::image::Platform>().is_ok();
            if valid && !meant {
                let message = format!("the platform of `FROM` is always `{}`", done.text);
                let help = "leave `--platform` out, or use a variable like `$BUILDPLATFORM`";
                self.warn(&rules::PLATFORM_CONSTANT, platform.span, message, Some(help.into()));
            }
        } else if done.used.len() == 1
            && done.unset.is_empty()
            && done.used.contains("TARGETPLATFORM")
            && globals.get("TARGETPLATFORM").is_some_and(|target| target == done.text)
        {
            let message = "`$TARGETPLATFORM` is the platform that is used anyway";
            self.warn(
                &rules::REDUNDANT_PLATFORM,
                platform.span,
                message,
                Some("leave `--platform` out".into()),
            );
        }
    }

    /// The instructions with the variables they see.
    fn stages(&mut self, globals: &Globals) {
        let file = self.file;
        let mut states: Vec<State> = Vec::new();
        for (number, stage) in file.stages.iter().enumerate() {
            let base = expansion(&stage.from.base, file.directives.escape, globals)
                .map(|done| done.text)
                .unwrap_or_default();
            let mut state = match file.stage(&base, number).filter(|_| base.parse::<usize>().is_err()) {
                Some(parent) => states.get(parent).cloned().unwrap_or_default(),
                None => {
                    let env = if base == "scratch" {
                        Some(Vec::new())
                    } else {
                        (self.surroundings.image_env)(number)
                    };
                    // Every image has this one, whether it sets it or not.
                    let path = [(
                        "PATH".to_owned(),
                        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                    )];
                    State {
                        known: env.is_some(),
                        scope: Scope::new(path.into_iter().chain(env.unwrap_or_default())),
                        ..State::default()
                    }
                }
            };
            let mut once: [Option<Span>; 3] = [None; 3];
            for instruction in &stage.instructions {
                self.variables(instruction, &state);
                self.instruction(instruction, &mut state, globals, &mut once);
            }
            states.push(state);
        }
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        state: &mut State,
        globals: &Globals,
        once: &mut [Option<Span>; 3],
    ) {
        let escape = self.file.directives.escape;
        let name = instruction.keyword.text.to_ascii_uppercase();
        let span = instruction.span;
        match &instruction.kind {
            Kind::Arg(args) => {
                for arg in args {
                    self.secret(&name, &arg.name);
                    // Errors are the build's to tell.
                    drop(state.scope.declare(arg, escape, globals));
                }
            }
            Kind::Env(pairs) => {
                for (key, _) in &pairs.pairs {
                    self.secret(&name, key);
                }
                drop(state.scope.set(pairs, escape));
            }
            Kind::Cmd(command) => {
                self.once(&mut once[0], &name, span);
                self.json(command, state, &name, span);
            }
            Kind::Entrypoint(command) => {
                self.once(&mut once[1], &name, span);
                self.json(command, state, &name, span);
            }
            Kind::Healthcheck(_) => self.once(&mut once[2], &name, span),
            Kind::Shell(_) => state.shell = true,
            Kind::Workdir(path) => {
                let text = expansion(path, escape, &state.scope).map(|done| done.text).unwrap_or_default();
                if !text.starts_with('/') && !state.workdir && !text.is_empty() {
                    let message = format!("`{text}` is relative to a directory that the base image decides");
                    self.warn(
                        &rules::WORKDIR_RELATIVE,
                        path.span,
                        message,
                        Some(format!("write `WORKDIR /{text}`")),
                    );
                }
                state.workdir = true;
            }
            Kind::Expose(words) => self.expose(words, state),
            Kind::Copy(copy) if copy.from.is_none() => self.ignored(&copy.transfer, state, &name),
            Kind::Add(add) => self.ignored(&add.transfer, state, &name),
            _ => {}
        }
    }

    fn once(&mut self, seen: &mut Option<Span>, name: &str, span: Span) {
        if let Some(before) = seen.replace(span) {
            let message = format!("this `{name}` has no effect: a later one of this stage replaces it");
            self.warn(&rules::MULTIPLE_INSTRUCTIONS, before, message, Some("take it out".into()));
        }
    }

    fn json(&mut self, command: &Command, state: &State, name: &str, span: Span) {
        if let (Command::Shell(text), false) = (command, state.shell) {
            let message = format!("`{name}` in shell form: signals reach the shell, not the program");
            let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            let simple =
                !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || " ./-_:=,+@".contains(c));
            let help = simple.then(|| format!("write `{name} [{}]`", words.join(", ")));
            self.warn(&rules::JSON_ARGS, span, message, help);
        }
    }

    fn secret(&mut self, instruction: &str, name: &Word) {
        static SECRET: LazyLock<Regex> = LazyLock::new(|| {
            let words = "apikey|auth|credential|credentials|key|password|pword|passwd|secret|token";
            Regex::new(&format!("(?i)(?:_|^)(?:{words})(?:_|$)")).expect("a valid expression")
        });
        static PUBLIC: LazyLock<Regex> =
            LazyLock::new(|| Regex::new("(?i)(?:_|^)public(?:_|$)").expect("a valid expression"));
        if SECRET.is_match(&name.text) && !PUBLIC.is_match(&name.text) {
            let message =
                format!("`{instruction} {}` puts a secret into the image for all to read", name.text);
            let help = "pass it with `--secret`, and use it with `RUN --mount=type=secret`";
            self.warn(&rules::SECRETS, name.span, message, Some(help.into()));
        }
    }

    fn expose(&mut self, words: &[Word], state: &State) {
        for word in words {
            let texts = expansion(word, self.file.directives.escape, &state.scope).map(|done| done.words);
            for text in texts.unwrap_or_default() {
                let Ok(exposed) = ports::exposed_ports(&text, word) else { continue };
                if exposed.mapping {
                    let message =
                        format!("`{text}` maps a port, but `EXPOSE` only names those of the container");
                    let help = Some(format!("write `EXPOSE {}`", exposed.ports.join(" ")));
                    self.warn(&rules::EXPOSE_FORMAT, word.span, message, help);
                }
                if let Some(protocol) = exposed.casing {
                    let message = format!("protocol `{protocol}` is not in lower case");
                    let help = Some(format!("write `{}`", text.to_ascii_lowercase()));
                    self.warn(&rules::EXPOSE_CASING, word.span, message, help);
                }
            }
        }
    }

    fn ignored(&mut self, transfer: &Transfer, state: &State, name: &str) {
        for source in &transfer.sources {
            let Source::Path(word) = source else { continue };
            let Ok(done) = expansion(word, self.file.directives.escape, &state.scope) else { continue };
            let remote = done.text.contains("://") || done.text.starts_with("git@");
            let path = super::super::ignore::clean(&done.text).trim_start_matches('/').to_owned();
            if !remote && !path.is_empty() && path != "." && (self.surroundings.ignored)(&path) {
                let message = format!("`{name}` of `{}`, which `.dockerignore` excludes", done.text);
                let help = format!("add `!{path}` to `.dockerignore`");
                self.warn(&rules::COPY_IGNORED, word.span, message, Some(help));
            }
        }
    }

    /// Variables that nobody sets.
    fn variables(&mut self, instruction: &Instruction, state: &State) {
        if !state.known {
            return;
        }
        let escape = self.file.directives.escape;
        let mut all: Vec<(Span, Expansion)> = Vec::new();
        let mut words: Vec<&Word> = Vec::new();
        match &instruction.kind {
            Kind::Env(pairs) | Kind::Label(pairs) => {
                words.extend(pairs.pairs.iter().flat_map(|(key, value)| [key, value]));
            }
            Kind::Arg(args) => {
                // Each sees those before it.
                let mut known: Vec<&str> = Vec::new();
                for arg in args {
                    let parts = [Some(&arg.name), arg.default.as_ref()].into_iter().flatten();
                    for word in parts {
                        if let Ok(mut done) = expansion(word, escape, &state.scope) {
                            done.unset.retain(|name| !known.contains(&name.as_str()));
                            all.push((word.span, done));
                        }
                    }
                    known.push(&arg.name.text);
                }
            }
            Kind::Expose(list) | Kind::Volume(list) => words.extend(list),
            Kind::StopSignal(word) | Kind::User(word) | Kind::Workdir(word) => words.push(word),
            Kind::Copy(copy) => transferred(&copy.transfer, &mut words),
            Kind::Add(add) => {
                transferred(&add.transfer, &mut words);
                words.extend(&add.checksum);
            }
            Kind::Run(run) => {
                words.extend(
                    run.mounts.iter().flat_map(|mount| &mount.options).filter_map(|(_, word)| word.as_ref()),
                );
            }
            Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Shell(_) => {}
        }
        all.extend(
            words
                .into_iter()
                .filter_map(|word| Some((word.span, expansion(word, escape, &state.scope).ok()?))),
        );
        if let Kind::Copy(super::ast::Copy { transfer, .. }) | Kind::Add(super::ast::Add { transfer, .. }) =
            &instruction.kind
        {
            for source in &transfer.sources {
                if let Source::Heredoc(heredoc) = source {
                    all.extend(
                        heredoc_expansion(heredoc, &state.scope)
                            .ok()
                            .map(|done| (heredoc.content.span, done)),
                    );
                }
            }
        }
        for (span, done) in all {
            for name in done.unset.iter().filter(|name| !state.scope.args().contains_key(*name)) {
                let set = state.scope.variables().keys().chain(state.scope.args().keys());
                let help = suggest::nearest(name, set.map(String::as_str))
                    .map(|near| format!("did you mean `${near}`?"));
                let message = format!("variable `{name}` is not set here");
                self.warn(&rules::UNDEFINED_VAR, span, message, help);
            }
        }
    }
}

fn transferred<'w>(transfer: &'w Transfer, words: &mut Vec<&'w Word>) {
    words.extend(transfer.sources.iter().filter_map(|source| match source {
        Source::Path(word) => Some(word),
        Source::Heredoc(_) => None,
    }));
    words.push(&transfer.destination);
    words.extend(transfer.chown.iter().chain(&transfer.chmod).chain(&transfer.exclude));
}

/// Whether a text can be the name of an image.
fn is_reference(text: &str) -> bool {
    text.parse::<crate::runtime::image::Reference>().is_ok()
}
