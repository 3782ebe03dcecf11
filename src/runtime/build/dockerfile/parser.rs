//! Logical lines → the syntax tree.
//!
//! Every mistake is noted and the line skipped, so that all of a file's mistakes
//! come at once. Only an unterminated heredoc ends the reading.

use super::ast::{
    Arg, Command, Dockerfile, From, Healthcheck, Instruction, Kind, Onbuild, Pairs, Stage, Word,
};
use super::lines::{Line, Lines};
use super::statement::{Statement, Takes};
use super::{codes, duration, transfer};
use crate::diagnostic::{Diagnostic, FileId, SourceMap, Span, suggest, tidy};

/// All instructions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile.
///
/// # Errors
/// All mistakes, in order of their places.
pub fn parse(file: FileId, sources: &SourceMap) -> Result<Dockerfile, Vec<Diagnostic>> {
    let text = sources.shared_text(file);
    let mut problems = Vec::new();
    let (lines, directives) = Lines::new(file, &text, &mut problems);
    let mut parser = Parser { lines, problems };
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut outside: Option<Span> = None;
    let mut any = false;
    while let Some(line) = parser.lines.next() {
        any = true;
        match (parser.statement(&line, 0), stages.last_mut()) {
            (Some(Item::From(from)), _) => stages.push(Stage { from, instructions: Vec::new() }),
            (Some(Item::Instruction(instruction)), Some(stage)) => stage.instructions.push(instruction),
            (Some(Item::Instruction(instruction)), None) => match instruction.kind {
                Kind::Arg(_) => global_args.push(instruction),
                _ => outside = outside.or(Some(instruction.keyword.span)),
            },
            (None, _) => {}
        }
    }
    let Parser { lines, mut problems } = parser;
    let empty_continuations = lines.empty_continuations;
    let start = Span::new(file, 0, 0);
    if let Some(span) = outside {
        problems.push(
            Diagnostic::error(codes::NO_STAGE, "only `ARG` can stand before the first `FROM`")
                .at(span, "")
                .help("begin with `FROM IMAGE`, or `FROM scratch` for an empty one"),
        );
    } else if !any {
        problems.push(
            Diagnostic::error(codes::EMPTY_DOCKERFILE, "the Dockerfile has no instructions")
                .at(start, "")
                .help("begin with `FROM IMAGE`"),
        );
    } else if stages.is_empty() && problems.is_empty() {
        problems.push(
            Diagnostic::error(codes::NO_STAGE, "the Dockerfile has no `FROM`")
                .at(start, "")
                .help("begin with `FROM IMAGE`, or `FROM scratch` for an empty one"),
        );
    }
    if problems.is_empty() {
        return Ok(Dockerfile { directives, global_args, stages, empty_continuations });
    }
    tidy(&mut problems);
    Err(problems)
}

/// Parses the text of an image's `ONBUILD` trigger.
///
/// # Errors
/// Its mistakes.
pub fn parse_trigger(file: FileId, sources: &SourceMap) -> Result<Instruction, Vec<Diagnostic>> {
    let text = sources.shared_text(file);
    let mut parser = Parser { lines: Lines::trigger(file, &text), problems: Vec::new() };
    let line = parser.lines.next();
    let item = line.as_ref().and_then(|line| parser.statement(line, 0));
    let wrong =
        |message| Diagnostic::error(codes::INVALID_TRIGGER, message).at(Span::new(file, 0, text.len()), "");
    let mut problems = std::mem::take(&mut parser.problems);
    if parser.lines.next().is_some() {
        problems.push(wrong("the trigger is more than one instruction"));
    }
    match item {
        Some(Item::Instruction(instruction)) if problems.is_empty() => {
            let forbidden = matches!(instruction.kind, Kind::Onbuild(_) | Kind::Maintainer(_));
            if forbidden {
                Err(vec![wrong("the trigger is an instruction that cannot be one")])
            } else {
                Ok(instruction)
            }
        }
        Some(Item::From(_)) => Err(vec![wrong("`FROM` cannot be a trigger")]),
        _ if problems.is_empty() => Err(vec![wrong("the trigger is empty")]),
        _ => Err(problems),
    }
}

/// A statement's outcome.
pub(super) enum Item {
    From(From),
    Instruction(Instruction),
}

pub(super) struct Parser<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) problems: Vec<Diagnostic>,
}

impl Parser<'_> {
    /// Notes a mistake.
    pub(super) fn wrong<T>(&mut self, problem: Diagnostic) -> Option<T> {
        self.problems.push(problem);
        None
    }

    /// The value, or its mistake is noted.
    pub(super) fn accept<T>(&mut self, value: Result<T, Diagnostic>) -> Option<T> {
        value.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// The statement that begins at `from`; `None` when it is wrong.
    fn statement(&mut self, line: &Line, from: usize) -> Option<Item> {
        let mut s = Statement::new(line, from);
        let before = self.problems.len();
        let read = self.lines.position();
        let kind = match s.name().as_str() {
            "FROM" => return self.from(s).map(Item::From),
            "ADD" => Kind::Add(transfer::add(self, &mut s)?),
            "COPY" => Kind::Copy(transfer::copy(self, &mut s)?),
            "RUN" => Kind::Run(super::run::run(self, &mut s)?),
            "ARG" => Kind::Arg(self.arg(&mut s)?),
            "CMD" => Kind::Cmd(self.command(&mut s)?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command(&mut s)?),
            "ENV" => Kind::Env(self.pairs(&mut s)?),
            "LABEL" => Kind::Label(self.pairs(&mut s)?),
            "EXPOSE" => Kind::Expose(self.expose(&mut s)?),
            "HEALTHCHECK" => Kind::Healthcheck(self.healthcheck(&mut s)?),
            "MAINTAINER" => Kind::Maintainer(self.one(&mut s)?),
            "ONBUILD" => Kind::Onbuild(self.onbuild(&mut s)?),
            "SHELL" => Kind::Shell(self.shell(&mut s)?),
            "STOPSIGNAL" => Kind::StopSignal(self.one(&mut s)?),
            "USER" => Kind::User(self.one(&mut s)?),
            "VOLUME" => Kind::Volume(self.volume(&mut s)?),
            "WORKDIR" => Kind::Workdir(self.one(&mut s)?),
            name => return self.unknown(&s, name),
        };
        if self.problems.len() > before {
            return None;
        }
        let body = if self.lines.position() > read { self.lines.end_of_read() } else { line.span };
        let span = s.keyword.span.to(line.span).to(body);
        let original = line.text[from..].trim().to_owned();
        Some(Item::Instruction(Instruction { span, original, keyword: s.keyword, kind }))
    }

    fn unknown(&mut self, s: &Statement<'_>, name: &str) -> Option<Item> {
        let mut problem =
            Diagnostic::error(codes::UNKNOWN_INSTRUCTION, format!("`{}` is no instruction", s.keyword.text))
                .at(s.keyword.span, "");
        if let Some(near) = suggest::nearest(name, KEYWORDS) {
            problem = problem.help(format!("did you mean `{near}`?"));
        } else if self.problems.is_empty() {
            problem = problem
                .help("a command that goes on over several lines needs a backslash at the end of each");
        }
        self.wrong(problem)
    }

    fn from(&mut self, mut s: Statement<'_>) -> Option<From> {
        s.flags.check("FROM", &[("platform", Takes::Text)], &mut self.problems);
        let mut words = s.words().into_iter();
        let (base, as_keyword, name) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(base), None, None, None) => (base, None, None),
            (Some(base), Some(keyword), Some(name), None) if keyword.text.eq_ignore_ascii_case("as") => {
                (base, Some(keyword), Some(name))
            }
            (None, ..) => {
                let help = "write `FROM IMAGE`, or `FROM scratch` for an empty one";
                return self.wrong(s.arguments("needs an image").help(help));
            }
            _ => {
                let problem = s.arguments("takes an image, or an image, `AS` and a name");
                return self.wrong(problem.help("write `FROM IMAGE AS NAME`"));
            }
        };
        if let Some(name) = &name {
            let lower = name.text.to_ascii_lowercase();
            let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !valid {
                let message = format!("`{}` cannot be the name of a stage", name.text);
                let problem = Diagnostic::error(codes::INVALID_STAGE_NAME, message).at(name.span, "");
                return self
                    .wrong(problem.help("names begin with a letter; digits, `-`, `_` and `.` may follow"));
            }
        }
        Some(From {
            span: s.keyword.span.to(s.line.span),
            original: s.line.text.trim().to_owned(),
            platform: s.flags.text("platform"),
            keyword: s.keyword,
            base,
            name,
            as_keyword,
        })
    }

    fn arg(&mut self, s: &mut Statement<'_>) -> Option<Vec<Arg>> {
        s.flags.check("ARG", &[], &mut self.problems);
        let words = s.quoted_words(self.lines.escape);
        if words.is_empty() {
            return self.wrong(s.arguments("needs a name"));
        }
        let args = words.into_iter().map(|word| match cut(&word) {
            Some((name, default)) => Arg { name, default: Some(default) },
            None => Arg { name: word, default: None },
        });
        let args: Vec<Arg> = args.collect();
        match args.iter().find(|arg| arg.name.text.is_empty()) {
            Some(arg) => {
                let span = arg.name.span.to(arg.default.as_ref().map_or(arg.name.span, |value| value.span));
                self.wrong(
                    Diagnostic::error(codes::INVALID_PAIR, "the name before `=` is missing").at(span, ""),
                )
            }
            None => Some(args),
        }
    }

    /// `ENV` and `LABEL`.
    fn pairs(&mut self, s: &mut Statement<'_>) -> Option<Pairs> {
        let name = s.name();
        s.flags.check(&name, &[], &mut self.problems);
        let words = s.quoted_words(self.lines.escape);
        let Some(first) = words.first() else {
            return self.wrong(s.arguments("needs a name and a value"));
        };
        if !first.text.contains('=') {
            let split = s.words().into_iter().next().map_or(0, |key| key.text.len());
            let key = s.line.word(s.from, s.from + split);
            let after = s.rest()[split..].len() - s.rest()[split..].trim_start().len();
            if split == s.rest().len() {
                let problem = Diagnostic::error(
                    codes::INVALID_PAIR,
                    format!("`{}` of `{name}` has no value", key.text),
                )
                .at(key.span, "")
                .help(format!("write `{name} {}=VALUE`", key.text));
                return self.wrong(problem);
            }
            let value = s.line.word(s.from + split + after, s.to);
            return Some(Pairs { pairs: vec![(key, value)], legacy: true });
        }
        let mut pairs = Vec::new();
        for word in words {
            let problem = match cut(&word) {
                Some((key, _)) if key.text.is_empty() => {
                    Diagnostic::error(codes::INVALID_PAIR, "the name before `=` is missing").at(word.span, "")
                }
                Some(pair) => {
                    pairs.push(pair);
                    continue;
                }
                None => {
                    Diagnostic::error(codes::INVALID_PAIR, format!("`{}` of `{name}` has no `=`", word.text))
                        .at(word.span, "")
                        .help("a value with blanks is put between double quotes: `NAME=\"a b\"`")
                }
            };
            self.problems.push(problem);
        }
        Some(Pairs { pairs, legacy: false })
    }

    /// `CMD` and `ENTRYPOINT`.
    fn command(&mut self, s: &mut Statement<'_>) -> Option<Command> {
        s.flags.check(&s.name(), &[], &mut self.problems);
        self.accept(s.command())
    }

    /// Instructions with one text.
    fn one(&mut self, s: &mut Statement<'_>) -> Option<Word> {
        s.flags.check(&s.name(), &[], &mut self.problems);
        if s.from == s.to {
            return self.wrong(s.arguments("needs a value"));
        }
        Some(s.whole())
    }

    fn expose(&mut self, s: &mut Statement<'_>) -> Option<Vec<Word>> {
        s.flags.check("EXPOSE", &[], &mut self.problems);
        let words = s.words();
        if words.is_empty() {
            return self.wrong(s.arguments("needs a port"));
        }
        Some(words)
    }

    fn volume(&mut self, s: &mut Statement<'_>) -> Option<Vec<Word>> {
        s.flags.check("VOLUME", &[], &mut self.problems);
        let (words, _) = self.accept(s.list())?;
        if words.is_empty() || words.iter().any(|word| word.text.trim().is_empty()) {
            return self.wrong(s.arguments("needs a path"));
        }
        Some(words)
    }

    fn shell(&mut self, s: &mut Statement<'_>) -> Option<Vec<String>> {
        s.flags.check("SHELL", &[], &mut self.problems);
        match self.accept(s.json())? {
            Some(words) if !words.is_empty() => Some(words),
            Some(_) => self.wrong(s.arguments("needs a program")),
            None => {
                let problem = Diagnostic::error(codes::INVALID_JSON_FORM, "`SHELL` needs a JSON array")
                    .at(s.place(), "");
                self.wrong(problem.help("write `SHELL [\"/bin/sh\", \"-c\"]`"))
            }
        }
    }

    fn onbuild(&mut self, s: &mut Statement<'_>) -> Option<Onbuild> {
        s.flags.check("ONBUILD", &[], &mut self.problems);
        if s.from == s.to {
            return self.wrong(s.arguments("needs an instruction"));
        }
        let inner = Statement::new(s.line, s.from).keyword;
        let name = inner.text.to_ascii_uppercase();
        if ["ONBUILD", "FROM", "MAINTAINER"].contains(&name.as_str()) {
            let message = format!("`{name}` cannot follow `ONBUILD`");
            return self.wrong(Diagnostic::error(codes::INVALID_TRIGGER, message).at(inner.span, ""));
        }
        let body_start = self.lines.position();
        let Some(Item::Instruction(instruction)) = self.statement(s.line, s.from) else { return None };
        let mut trigger = s.whole();
        let body = self.lines.since(body_start).trim_end_matches(['\n', '\r']);
        if !body.is_empty() {
            trigger.text = format!("{}\n{body}", trigger.text);
            trigger.span = trigger.span.to(instruction.span);
        }
        Some(Onbuild { trigger, instruction: Box::new(instruction) })
    }

    fn healthcheck(&mut self, s: &mut Statement<'_>) -> Option<Healthcheck> {
        const TIMES: [&str; 4] = ["interval", "timeout", "start-period", "start-interval"];
        let mut known: Vec<(&str, Takes)> = TIMES.iter().map(|name| (*name, Takes::Text)).collect();
        known.push(("retries", Takes::Text));
        s.flags.check("HEALTHCHECK", &known, &mut self.problems);
        let [interval, timeout, start_period, start_interval] = TIMES.map(|name| {
            let value = s.flags.text(name).filter(|value| !value.text.is_empty())?;
            match duration::parse(&value.text) {
                Some(time) if time.is_zero() || time.as_millis() > 0 => Some(time),
                Some(_) => self.wrong(
                    Diagnostic::error(
                        codes::INVALID_DURATION,
                        format!("`--{name}` is less than a millisecond"),
                    )
                    .at(value.span, ""),
                ),
                None => self.wrong(
                    Diagnostic::error(
                        codes::INVALID_DURATION,
                        format!("`--{name}` is `{}`, which is no time", value.text),
                    )
                    .at(value.span, "")
                    .help("write it like `30s`, `1m30s` or `500ms`"),
                ),
            }
        });
        let retries = s.flags.text("retries").filter(|value| !value.text.is_empty()).map(|value| match value
            .text
            .parse::<u32>()
        {
            Ok(count) if i32::try_from(count).is_ok() => Some(count),
            _ => self.wrong(
                Diagnostic::error(
                    codes::INVALID_FLAG,
                    format!("`--retries` is `{}`, which is no count", value.text),
                )
                .at(value.span, ""),
            ),
        });
        let Some(kind) = s.words().into_iter().next() else {
            let problem = s.arguments("needs `CMD` and a command, or `NONE`");
            return self.wrong(problem);
        };
        s.from += kind.text.len();
        s.from += s.rest().len() - s.rest().trim_start().len();
        match kind.text.to_ascii_uppercase().as_str() {
            "NONE" if s.from == s.to => Some(Healthcheck::None),
            "NONE" => self.wrong(s.arguments("takes nothing after `NONE`")),
            "CMD" => {
                let command = self.accept(s.command())?;
                if matches!(&command, Command::Exec(words) if words.is_empty()) || s.from == s.to {
                    return self.wrong(s.arguments("needs a command after `CMD`"));
                }
                Some(Healthcheck::Test {
                    command,
                    interval: interval.unwrap_or_default(),
                    timeout: timeout.unwrap_or_default(),
                    start_period: start_period.unwrap_or_default(),
                    start_interval: start_interval.unwrap_or_default(),
                    retries: retries.flatten().unwrap_or_default(),
                })
            }
            _ => {
                let message = format!("`HEALTHCHECK` is followed by `CMD` or `NONE`, not by `{}`", kind.text);
                let problem = Diagnostic::error(codes::WRONG_ARGUMENTS, message).at(kind.span, "");
                self.wrong(problem.help("write `HEALTHCHECK [FLAGS] CMD COMMAND`"))
            }
        }
    }
}

/// A word at its first `=`.
fn cut(word: &Word) -> Option<(Word, Word)> {
    let (key, value) = word.text.split_once('=')?;
    // A word that was continued has no offsets of its own.
    let whole = (word.span.end - word.span.start) as usize == word.text.len();
    let part = |from: usize, to: usize| if whole { word.span.part(from, to) } else { word.span };
    let at = key.len();
    Some((
        Word { text: key.to_owned(), span: part(0, at) },
        Word { text: value.to_owned(), span: part(at + 1, word.text.len()) },
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::ast::{Script, Source};
    use super::super::lint::{Surroundings, check};
    use super::super::scope::{Inputs, Platform};
    use super::*;
    use crate::diagnostic::render;

    fn read(text: &str) -> (SourceMap, Result<Dockerfile, Vec<Diagnostic>>) {
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new("Dockerfile"), "Dockerfile", text);
        let parsed = parse(file, &sources);
        (sources, parsed)
    }

    fn first(text: &str) -> Kind {
        let (_, parsed) = read(&format!("FROM x\n{text}"));
        parsed.expect("parses").stages.remove(0).instructions.remove(0).kind
    }

    #[test]
    fn heredocs_are_scripts_in_three_ways() {
        let script = |text| match first(text) {
            Kind::Run(run) => run.script,
            other => panic!("{other:?}"),
        };
        assert_eq!(script("RUN <<E\na\n\tb\nE\n"), Script::Shell("a\n\tb\n".into()));
        assert_eq!(script("RUN <<-E\n\ta\n\tE\n"), Script::Shell("a\n".into()));
        let python = Script::Executable { name: "E".into(), content: "#!/bin/py\nx\n".into() };
        assert_eq!(script("RUN <<E\n#!/bin/py\nx\nE\n"), python);
        assert_eq!(
            script("RUN cat <<A <<-B\n1\nA\n\t2\n\tB\n"),
            Script::Shell("cat <<A <<-B\n1\nA\n\t2\nB".into())
        );
        assert_eq!(script("RUN a \\\n # c\n b"), Script::Shell("a  b".into()));
        assert_eq!(script("RUN [\"a\",\"b\"]"), Script::Exec(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn heredocs_are_files() {
        let Kind::Copy(copy) = first("COPY --chown=1 <<A x <<-\"B\" /d/\n1$x\nA\n\t2\nB\n") else { panic!() };
        let sources: Vec<_> = copy
            .transfer
            .sources
            .iter()
            .map(|source| match source {
                Source::Path(word) => word.text.clone(),
                Source::Heredoc(h) => format!("{} {} {:?}", h.name, h.expand, h.content.text),
            })
            .collect();
        assert_eq!(sources, ["A true \"1$x\\n\"", "x", "B false \"2\\n\""]);
        assert_eq!(copy.transfer.destination.text, "/d/");
    }

    #[test]
    fn an_instruction_ends_with_its_last_line() {
        let text = "FROM x\nCOPY <<A \\\n  /d\n1\nA\n# c\n\nUSER u  \n";
        let (sources, parsed) = read(text);
        let parsed = parsed.expect("parses");
        let spans: Vec<_> = parsed.stages[0].instructions.iter().map(|i| sources.snippet(i.span)).collect();
        assert_eq!(spans, ["COPY <<A \\\n  /d\n1\nA", "USER u"]);
        assert_eq!(parsed.stages[0].instructions[0].original, "COPY <<A   /d");
    }

    #[test]
    fn triggers_are_kept_as_text_and_read_again() {
        let Kind::Onbuild(onbuild) = first("ONBUILD COPY <<A /d\n1\nA\n") else { panic!() };
        assert_eq!(onbuild.trigger.text, "COPY <<A /d\n1\nA");
        let mut sources = SourceMap::default();
        let mut again = |text: &str| {
            let file = sources.add(Path::new("onbuild"), "onbuild", text);
            parse_trigger(file, &sources)
        };
        assert!(matches!(again(&onbuild.trigger.text).expect("parses").kind, Kind::Copy(_)));
        for wrong in ["", "FROM x", "ONBUILD RUN x", "RUN a\nRUN b", "FOO"] {
            assert!(again(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Parses, warns and shows; none may panic, whatever the text is.
    fn survives(text: &str) {
        let (sources, parsed) = read(text);
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        let all = match parsed {
            Err(all) => all,
            Ok(file) => {
                let inputs = Inputs {
                    build_args: [("A".to_owned(), "$A".to_owned())].into(),
                    build_platform: platform.clone(),
                    target_platform: platform,
                    target_stage: None,
                };
                let surroundings =
                    Surroundings { inputs: &inputs, image_env: &|_| Some(Vec::new()), ignored: &|_| true };
                check(&file, &surroundings)
            }
        };
        for diagnostic in all {
            assert!(!render(&diagnostic, &sources, false).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            survives(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_dockerfile_panics(parts in proptest::collection::vec(prop_oneof![
            Just("FROM x AS y\n"), Just("RUN "), Just("COPY "), Just("ENV "), Just("ARG A="), Just("ONBUILD "),
            Just("HEALTHCHECK "), Just("--mount=type=cache,target="), Just("--from="), Just("<<E "), Just("\nE\n"),
            Just("\\\n"), Just("`\n"), Just("# escape=`\n"), Just("# c\n"), Just("\n"), Just("\r\n"), Just("[\"a\","),
            Just("\"]"), Just("'"), Just("\""), Just("${A:-"), Just("}"), Just("$A"), Just("é"), Just("\u{a0}"),
            Just(" "), Just("\t"), Just("a=b"), Just("--"), Just("\u{feff}"), Just("CMD "), Just("EXPOSE 1-2:3/TCP "),
        ], 0..24)) {
            survives(&format!("FROM x\n{}", parts.concat()));
            survives(&parts.concat());
        }
    }
}
