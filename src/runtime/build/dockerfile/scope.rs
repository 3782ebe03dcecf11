//! Which variables an instruction sees: the rules of `ARG` and `ENV`.
//!
//! - `FROM` sees the `ARG`s before the first `FROM` and the predefined platform variables ([`Globals`]).
//! - A stage sees what its base image sets, then its `ARG`s and `ENV`s in order; whoever comes last
//!   counts, whichever it is. (The reference says that `ENV` always wins; BuildKit does not do that.)
//! - An `ARG` takes the value given with the build, else its default, else that of the global `ARG`
//!   or platform variable of its name; without any it changes nothing.
//! - A stage built from another one goes on with that one's variables.
//!
//! # Source
//! Dockerfile reference, “Understand how ARG and FROM interact”, “Impact on build caching”; the
//! order rule by running BuildKit 0.25 (`tests/fixtures/dockerfile/scope`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::ast::{Arg, Dockerfile, Kind, Pairs, Word};
use super::expand::{Expansion, Variables, expansion};
use crate::diagnostic::Diagnostic;

/// Build arguments that every `RUN` gets without an `ARG`, and that are neither in history nor in cache keys.
pub const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A platform as images name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v7` and the like; often empty.
    pub variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// What a build is asked for, as far as variables are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// `--build-arg`s.
    pub build_args: BTreeMap<String, String>,
    /// Where it is built.
    pub build_platform: Platform,
    /// What it is built for.
    pub target_platform: Platform,
    /// The stage that is asked for by name; `TARGETSTAGE` is `default` otherwise.
    pub target_stage: Option<String>,
}

impl Inputs {
    /// The proxy variables among the build arguments, as a `RUN` gets them.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = self.build_args.iter().filter(|(name, _)| PROXY_ARGS.contains(&name.as_str()));
        known.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn predefined(&self) -> impl Iterator<Item = (String, String)> {
        let platform = |prefix: &str, platform: &Platform| {
            [
                (format!("{prefix}PLATFORM"), platform.to_string()),
                (format!("{prefix}OS"), platform.os.clone()),
                (format!("{prefix}ARCH"), platform.architecture.clone()),
                (format!("{prefix}VARIANT"), platform.variant.clone()),
            ]
        };
        let stage = self.target_stage.clone().unwrap_or_else(|| "default".to_owned());
        let all = platform("BUILD", &self.build_platform)
            .into_iter()
            .chain(platform("TARGET", &self.target_platform));
        all.chain([("TARGETSTAGE".to_owned(), stage)]).map(|(name, value)| {
            // Given with the build, they are what was given.
            let value = self.build_args.get(&name).cloned().unwrap_or(value);
            (name, value)
        })
    }
}

/// What `FROM` sees, and what an `ARG` without a value falls back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globals {
    values: IndexMap<String, String>,
    given: BTreeMap<String, String>,
    /// Names that the file declares, with or without a value.
    declared: BTreeSet<String>,
}

impl Globals {
    /// The `ARG`s before the first `FROM`, with the values given with the build.
    ///
    /// # Errors
    /// A default that does not expand.
    pub fn new(file: &Dockerfile, inputs: &Inputs) -> Result<Self, Diagnostic> {
        let mut globals = Self {
            values: inputs.predefined().collect(),
            given: inputs.build_args.clone(),
            declared: BTreeSet::new(),
        };
        for instruction in &file.global_args {
            let Kind::Arg(args) = &instruction.kind else { continue };
            for arg in args {
                let name = expansion(&arg.name, file.directives.escape, &globals)?.text;
                let default = arg.default.as_ref();
                let default =
                    default.map(|word| expansion(word, file.directives.escape, &globals)).transpose()?;
                let value = globals.given.get(&name).cloned().or(default.map(|done| done.text));
                globals.declared.insert(name.clone());
                if let Some(value) = value {
                    globals.values.insert(name, value);
                }
            }
        }
        Ok(globals)
    }

    /// Whether the file declares it before the first `FROM`, or it is predefined.
    pub fn knows(&self, name: &str) -> bool {
        self.declared.contains(name) || self.values.contains_key(name)
    }

    /// All names that there are, for hints.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().chain(self.declared.iter()).map(String::as_str)
    }
}

impl Variables for Globals {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// What the instructions of a stage see, changing from one to the next.
///
/// A stage that is built from another one starts with a clone of that one's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    variables: IndexMap<String, String>,
    env: IndexMap<String, String>,
    args: IndexMap<String, Option<String>>,
}

impl Scope {
    /// A stage on an image that sets these variables.
    pub fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let env: IndexMap<String, String> = env.into_iter().collect();
        Self { variables: env.clone(), env, args: IndexMap::new() }
    }

    /// What the image that is made sets: the base's and all `ENV`s.
    pub fn env(&self) -> &IndexMap<String, String> {
        &self.env
    }

    /// The `ARG`s declared so far with their values, in order of their first declaration.
    pub fn args(&self) -> &IndexMap<String, Option<String>> {
        &self.args
    }

    /// Everything set, which is what a `RUN` has in its environment.
    pub fn variables(&self) -> &IndexMap<String, String> {
        &self.variables
    }

    /// Carries out one `ARG` of an instruction, and tells name and value.
    ///
    /// # Errors
    /// A name or a default that does not expand.
    pub fn declare(
        &mut self,
        arg: &Arg,
        escape: char,
        globals: &Globals,
    ) -> Result<(String, Option<String>), Diagnostic> {
        let name = expansion(&arg.name, escape, self)?.text;
        let default = arg.default.as_ref().map(|word| expansion(word, escape, self)).transpose()?;
        let given = globals.given.get(&name).cloned();
        let value = given.or(default.map(|done| done.text)).or_else(|| globals.values.get(&name).cloned());
        if let Some(value) = &value {
            self.variables.insert(name.clone(), value.clone());
        }
        match (&value, self.args.get_mut(&name)) {
            // Declared again without a value, it keeps the one it has.
            (None, Some(_)) => {}
            (value, Some(known)) => known.clone_from(value),
            (value, None) => {
                self.args.insert(name.clone(), value.clone());
            }
        }
        Ok((name, value))
    }

    /// Carries out an `ENV`; all its values see the variables as they were before. Tells the pairs.
    ///
    /// # Errors
    /// A key or a value that does not expand.
    pub fn set(&mut self, pairs: &Pairs, escape: char) -> Result<Vec<(String, String)>, Diagnostic> {
        let pairs = self.pairs(pairs, escape)?;
        for (key, value) in &pairs {
            self.variables.insert(key.clone(), value.clone());
            self.env.insert(key.clone(), value.clone());
        }
        Ok(pairs)
    }

    /// The pairs of a `LABEL` or an `ENV`, expanded.
    ///
    /// # Errors
    /// A key or a value that does not expand.
    pub fn pairs(&self, pairs: &Pairs, escape: char) -> Result<Vec<(String, String)>, Diagnostic> {
        let text = |word: &Word| expansion(word, escape, self).map(|Expansion { text, .. }| text);
        pairs.pairs.iter().map(|(key, value)| Ok((text(key)?, text(value)?))).collect()
    }
}

impl Variables for Scope {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.variables.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;
    use crate::diagnostic::SourceMap;

    fn inputs(args: &[(&str, &str)]) -> Inputs {
        let amd64 = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        Inputs {
            build_args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            build_platform: amd64.clone(),
            target_platform: Platform { variant: "v8".into(), architecture: "arm64".into(), ..amd64 },
            target_stage: None,
        }
    }

    /// Runs all stages of a file, one on the other, and tells what `LABEL`s say.
    fn labels(text: &str, args: &[(&str, &str)]) -> Vec<String> {
        let mut map = SourceMap::default();
        let id = map.add(Path::new("Dockerfile"), "Dockerfile", text);
        let file = parse(id, &map).expect("parses");
        let globals = Globals::new(&file, &inputs(args)).expect("expands");
        let mut scope = Scope::new([("PATH".to_owned(), "/bin".to_owned())]);
        let mut out = Vec::new();
        for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
            match &instruction.kind {
                Kind::Arg(args) => args.iter().for_each(|arg| {
                    scope.declare(arg, '\\', &globals).expect("expands");
                }),
                Kind::Env(pairs) => {
                    scope.set(pairs, '\\').expect("expands");
                }
                Kind::Label(pairs) => {
                    out.extend(
                        scope.pairs(pairs, '\\').expect("expands").into_iter().map(|(_, value)| value),
                    );
                }
                _ => {}
            }
        }
        out
    }

    /// As BuildKit 0.25 prints it with `RUN echo`.
    #[test]
    fn the_last_one_counts() {
        let file = "ARG G=glob\nARG H=$G-h\nFROM busybox AS base\nENV X=env1\nARG X=arg2\nLABEL a=$X\nENV X=env3\n\
            LABEL a=$X\nARG X\nLABEL a=$X\nARG Y=y\nARG Y\nLABEL a=$Y-$G\nARG G H\nENV Z=$X-$Y-$G\nLABEL a=$Z-$H\n\
            FROM base\nLABEL a=$Y-$X-$G-$TARGETARCH\nARG TARGETARCH\nARG TARGETSTAGE TARGETPLATFORM BUILDVARIANT\n\
            LABEL a=$TARGETARCH-$TARGETSTAGE-$TARGETPLATFORM-$BUILDVARIANT-\nARG TARGETARCH=foo\nLABEL a=$TARGETARCH";
        let expected = [
            "arg2",
            "env3",
            "env3",
            "y-",
            "env3-y-glob-glob-h",
            "y-env3-glob-",
            "arm64-default-linux/arm64/v8--",
            "foo",
        ];
        assert_eq!(labels(file, &[]), expected);
    }

    #[test]
    fn what_is_given_with_the_build_beats_defaults_and_later_env() {
        let file = "FROM x\nARG A=1 B=$A\nARG C=$A\nLABEL a=$A-$B-$C\nENV A=e\nARG A=r\nENV Q=$A\nLABEL a=$Q\nARG D=$D\nLABEL a=[$D]";
        assert_eq!(labels(file, &[("A", "cli")]), ["cli-cli-cli", "cli", "[]"]);
        assert_eq!(labels(file, &[]), ["1-1-1", "r", "[]"]);
        assert_eq!(labels("FROM x\nENV a=1\nENV a=2 b=$a\nLABEL l=$b", &[]), ["1"]);
    }
}
