//! `RUN --mount=key=value,…`: parsed with the file, resolved with the variables of its instruction.
//!
//! # Source
//! Dockerfile reference, “RUN --mount”; defaults where it is silent as BuildKit 0.25 has them.

use super::ast::{Mount, MountKey, MountKind, Word};
use super::codes::INVALID_MOUNT;
use super::expand::{Nothing, Variables, expand};
use super::lines::go_bool;
use crate::diagnostic::{Diagnostic, Span, suggest};

/// A mount with all variables replaced and all values read.
///
/// Targets are as written: relative ones are below the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedMount {
    /// Files of a stage, an image, a named context, or of the build context when `from` is none.
    Bind {
        /// Where; not empty.
        target: String,
        /// What below the root of `from`; `/` by default.
        source: String,
        /// Name as written.
        from: Option<String>,
        /// Writes succeed, and are thrown away.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// What it is known by; the target when not given.
        id: String,
        /// Where; not empty.
        target: String,
        /// Writes fail.
        read_only: bool,
        /// Who may have it at once.
        sharing: Sharing,
        /// What it holds at first: a stage, an image or a named context.
        from: Option<String>,
        /// The directory below `from`; `/` by default.
        source: String,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Where; not empty.
        target: String,
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret.
    Secret {
        /// Which.
        id: String,
        /// The file; `None` when only a variable is asked for.
        target: Option<String>,
        /// The variable.
        env: Option<String>,
        /// A build without the secret fails.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// An agent's socket.
    Ssh {
        /// Which; `default` when not given.
        id: String,
        /// Where; `None`: `/run/buildkit/ssh_agent.N`.
        target: Option<String>,
        /// A build without the agent fails.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// `sharing=` of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Any number at once.
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// One after the other.
    Locked,
}

const TYPES: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const KEYS: [(&str, MountKey); 17] = [
    ("target", MountKey::Target),
    ("dst", MountKey::Target),
    ("destination", MountKey::Target),
    ("source", MountKey::Source),
    ("src", MountKey::Source),
    ("ro", MountKey::ReadOnly),
    ("readonly", MountKey::ReadOnly),
    ("rw", MountKey::ReadWrite),
    ("readwrite", MountKey::ReadWrite),
    ("id", MountKey::Id),
    ("sharing", MountKey::Sharing),
    ("mode", MountKey::Mode),
    ("uid", MountKey::Uid),
    ("gid", MountKey::Gid),
    ("size", MountKey::Size),
    ("required", MountKey::Required),
    ("env", MountKey::Env),
];

fn wrong(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(INVALID_MOUNT, message).at(span, "")
}

/// Takes one `--mount` apart. Values without variables are checked at once.
pub(super) fn parse(flag: &Word) -> Result<Mount, Diagnostic> {
    let whole = (flag.span.end - flag.span.start) as usize == flag.text.len();
    let mut mount = Mount { span: flag.span, kind: MountKind::Bind, from: None, options: Vec::new() };
    for (at, field) in fields(&flag.text) {
        let span = if whole { flag.span.part(at, at + field.len()) } else { flag.span };
        let part = |from: usize, to: usize| if whole { span.part(from, to) } else { span };
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => {
                (key, Some(Word { text: value.to_owned(), span: part(key.len() + 1, field.len()) }))
            }
            None => (field.as_str(), None),
        };
        let key_span = part(0, key.len());
        let lower = key.to_ascii_lowercase();
        match (lower.as_str(), value) {
            ("type", Some(value)) => {
                let name = value.text.to_ascii_lowercase();
                let Some((_, kind)) = TYPES.iter().find(|(known, _)| *known == name) else {
                    let problem = wrong(value.span, format!("there is no mount type `{}`", value.text));
                    return Err(near(problem, &name, TYPES.iter().map(|(known, _)| *known)));
                };
                mount.kind = *kind;
            }
            ("from", Some(value)) => {
                if value.text.split_once('$').is_some_and(|(_, after)| !after.is_empty()) {
                    return Err(wrong(value.span, "variables are not replaced in `from` of a mount")
                        .help("give the image a name with `FROM IMAGE AS NAME`, and use that"));
                }
                mount.from = Some(value).filter(|value| !value.text.is_empty());
            }
            (_, value) => {
                let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == lower) else {
                    if value.is_none() && (lower == "type" || lower == "from") {
                        return Err(wrong(key_span, format!("option `{key}` of a mount needs a value")));
                    }
                    let problem = wrong(key_span, format!("a mount has no option `{key}`"));
                    return Err(near(
                        problem,
                        &lower,
                        KEYS.iter().map(|(known, _)| *known).chain(["type", "from"]),
                    ));
                };
                let switch = matches!(key, MountKey::ReadOnly | MountKey::ReadWrite | MountKey::Required);
                if value.is_none() && !switch {
                    return Err(wrong(key_span, format!("option `{lower}` of a mount needs a value")));
                }
                mount.options.push((
                    *key,
                    value.or_else(|| {
                        // The place is needed when the switch turns out to be out of place.
                        switch.then(|| Word { text: "true".to_owned(), span: key_span })
                    }),
                ));
            }
        }
    }
    let fixed = mount.options.iter().flat_map(|(_, value)| value).all(|value| !value.text.contains('$'));
    if fixed {
        resolve(&mount, '\\', &Nothing)?;
    }
    Ok(mount)
}

fn near<'a>(problem: Diagnostic, word: &str, known: impl Iterator<Item = &'a str>) -> Diagnostic {
    match suggest::nearest(word, known) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// The fields of a line of comma separated values, quoted ones without their quotes, each with its offset.
fn fields(text: &str) -> Vec<(usize, String)> {
    let mut out = vec![(0, String::new())];
    let mut quoted = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let (_, field) = out.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => out.push((at + 1, String::new())),
            c => field.push(c),
        }
    }
    out
}

/// The options of a mount as given, variables replaced.
#[derive(Default)]
struct Given {
    target: String,
    source: String,
    read_only: Option<bool>,
    id: String,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    required: bool,
    env: Option<String>,
}

/// Replaces the variables in a mount's options and reads their values.
///
/// # Errors
/// A value that cannot be read, an option that this type of mount does not have, or one that is missing.
pub fn resolve(mount: &Mount, escape: char, variables: &dyn Variables) -> Result<ResolvedMount, Diagnostic> {
    let mut given = Given::default();
    for (key, word) in &mount.options {
        let span = word.as_ref().map_or(mount.span, |word| word.span);
        let value =
            word.as_ref().map(|word| expand(word, escape, variables)).transpose()?.unwrap_or_default();
        option(&mut given, mount.kind, *key, value, span)?;
    }
    let target = |given: &Given| {
        if given.target.is_empty() {
            Err(wrong(mount.span, "the mount has no target").help("add `target=PATH`"))
        } else {
            Ok(given.target.clone())
        }
    };
    let from = mount.from.as_ref().map(|from| from.text.clone());
    let source = if given.source.is_empty() { "/".to_owned() } else { given.source.clone() };
    let path = Some(given.target.clone()).filter(|path| !path.is_empty());
    if let Some(word) =
        mount.from.as_ref().filter(|_| !matches!(mount.kind, MountKind::Bind | MountKind::Cache))
    {
        return Err(wrong(word.span, format!("a {} mount has no option `from`", name(mount.kind))));
    }
    Ok(match mount.kind {
        MountKind::Bind => ResolvedMount::Bind {
            target: target(&given)?,
            source,
            from,
            writable: given.read_only == Some(false),
        },
        MountKind::Cache => {
            let target = target(&given)?;
            ResolvedMount::Cache {
                id: if given.id.is_empty() { target.clone() } else { given.id },
                target,
                read_only: given.read_only == Some(true),
                sharing: given.sharing.unwrap_or_default(),
                from,
                source,
                mode: given.mode.unwrap_or(0o755),
                uid: given.uid.unwrap_or(0),
                gid: given.gid.unwrap_or(0),
            }
        }
        MountKind::Tmpfs => ResolvedMount::Tmpfs { target: target(&given)?, size: given.size },
        MountKind::Secret => {
            if !given.source.is_empty() && !given.id.is_empty() {
                return Err(wrong(mount.span, "a secret mount has either `id` or `source`"));
            }
            let base = given.target.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
            let id = [given.id.as_str(), given.source.as_str(), base].into_iter().find(|id| !id.is_empty());
            let Some(id) = id else {
                return Err(
                    wrong(mount.span, "the secret mount does not say which secret").help("add `id=NAME`")
                );
            };
            let default = || {
                let base = id.rsplit('/').find(|part| !part.is_empty()).unwrap_or(id);
                Some(format!("/run/secrets/{base}")).filter(|_| given.env.is_none())
            };
            ResolvedMount::Secret {
                target: path.or_else(default),
                id: id.to_owned(),
                env: given.env,
                required: given.required,
                mode: given.mode.unwrap_or(0o400),
                uid: given.uid.unwrap_or(0),
                gid: given.gid.unwrap_or(0),
            }
        }
        MountKind::Ssh => ResolvedMount::Ssh {
            id: [given.id, given.source]
                .into_iter()
                .find(|id| !id.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            target: path,
            required: given.required,
            mode: given.mode.unwrap_or(0o600),
            uid: given.uid.unwrap_or(0),
            gid: given.gid.unwrap_or(0),
        },
    })
}

fn name(kind: MountKind) -> &'static str {
    TYPES.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

fn option(
    given: &mut Given,
    kind: MountKind,
    key: MountKey,
    value: String,
    span: Span,
) -> Result<(), Diagnostic> {
    use MountKind::{Cache, Secret, Ssh, Tmpfs};
    let unreadable = |what: &str| wrong(span, format!("`{value}` is {what}"));
    let only = |kinds: &[MountKind], name: &str| {
        let here = self::name(kind);
        if kinds.contains(&kind) {
            Ok(())
        } else {
            Err(wrong(span, format!("a {here} mount has no option `{name}`")))
        }
    };
    let boolean = || go_bool(&value).ok_or_else(|| unreadable("not true or false"));
    match key {
        MountKey::Target => given.target = value,
        MountKey::Source => given.source = value,
        MountKey::Id => given.id = value,
        MountKey::ReadOnly => given.read_only = Some(boolean()?),
        MountKey::ReadWrite => given.read_only = Some(!boolean()?),
        MountKey::Sharing => {
            only(&[Cache], "sharing")?;
            given.sharing = Some(match value.to_ascii_lowercase().as_str() {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                other => {
                    let known = ["shared", "private", "locked"];
                    return Err(near(
                        unreadable("no way to share a cache: shared, private or locked"),
                        other,
                        known.into_iter(),
                    ));
                }
            });
        }
        MountKey::Mode => {
            only(&[Cache, Secret, Ssh], "mode")?;
            given.mode = Some(
                u32::from_str_radix(&value, 8).map_err(|_| unreadable("no mode; it is octal, like 0400"))?,
            );
        }
        MountKey::Uid => {
            only(&[Cache, Secret, Ssh], "uid")?;
            given.uid = Some(value.parse().map_err(|_| unreadable("no number of a user"))?);
        }
        MountKey::Gid => {
            only(&[Cache, Secret, Ssh], "gid")?;
            given.gid = Some(value.parse().map_err(|_| unreadable("no number of a group"))?);
        }
        MountKey::Size => {
            only(&[Tmpfs], "size")?;
            given.size = Some(size(&value).ok_or_else(|| unreadable("no size; write it like `64m`"))?);
        }
        MountKey::Required => {
            only(&[Secret, Ssh], "required")?;
            given.required = boolean()?;
        }
        MountKey::Env => {
            only(&[Secret], "env")?;
            given.env = Some(value).filter(|env| !env.is_empty());
        }
    }
    Ok(())
}

/// Bytes with one of Docker's suffixes, powers of 1024.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let lower = lower.strip_suffix('i').unwrap_or(lower);
    let (number, power) = match lower.char_indices().last()? {
        (at, c) if c.is_ascii_alphabetic() => (&lower[..at], "kmgtp".find(c)? + 1),
        _ => (lower, 0),
    };
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    (0.0..9.2e18).contains(&bytes).then(|| whole(bytes))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: not negative, below 2^63"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::FileId;

    fn word(text: &str) -> Word {
        Word { text: text.to_owned(), span: Span::new(FileId::default(), 0, text.len()) }
    }

    fn resolved(text: &str) -> Result<ResolvedMount, String> {
        parse(&word(text)).and_then(|mount| resolve(&mount, '\\', &Nothing)).map_err(|d| d.message)
    }

    #[test]
    fn defaults_of_every_type() {
        assert_eq!(
            resolved("target=/x,from=base,source=a"),
            Ok(ResolvedMount::Bind {
                target: "/x".into(),
                source: "a".into(),
                from: Some("base".into()),
                writable: false
            })
        );
        let Ok(ResolvedMount::Cache { id, sharing, read_only, mode, .. }) = resolved("type=cache,dst=/c")
        else {
            panic!()
        };
        assert_eq!((id.as_str(), sharing, read_only, mode), ("/c", Sharing::Shared, false, 0o755));
        assert_eq!(
            resolved("type=tmpfs,target=/t,size=1.5k"),
            Ok(ResolvedMount::Tmpfs { target: "/t".into(), size: Some(1536) })
        );
        let Ok(ResolvedMount::Secret { id, target, mode, .. }) = resolved("type=secret,id=a/tok,required")
        else {
            panic!()
        };
        assert_eq!((id.as_str(), target.as_deref(), mode), ("a/tok", Some("/run/secrets/tok"), 0o400));
        let Ok(ResolvedMount::Secret { id, target, .. }) = resolved("type=secret,id=t,env=TOKEN") else {
            panic!()
        };
        assert_eq!((id.as_str(), target), ("t", None));
        let Ok(ResolvedMount::Secret { id, .. }) = resolved("type=secret,target=/etc/pw") else { panic!() };
        assert_eq!(id, "pw");
        let Ok(ResolvedMount::Ssh { id, target, .. }) = resolved("type=ssh") else { panic!() };
        assert_eq!((id.as_str(), target), ("default", None));
    }

    #[test]
    fn mistakes() {
        for (text, message) in [
            ("type=cashe,target=/x", "there is no mount type `cashe`"),
            ("target=/x,sorce=a", "a mount has no option `sorce`"),
            ("type=cache", "the mount has no target"),
            ("target", "option `target` of a mount needs a value"),
            ("target=/x,from=$x", "variables are not replaced in `from` of a mount"),
            ("target=/x,size=3", "a bind mount has no option `size`"),
            ("type=tmpfs,target=/x,size=much", "`much` is no size; write it like `64m`"),
            ("type=secret", "the secret mount does not say which secret"),
            ("type=secret,id=a,source=b", "a secret mount has either `id` or `source`"),
            (
                "type=cache,target=/x,sharing=lock",
                "`lock` is no way to share a cache: shared, private or locked",
            ),
            ("type=cache,target=/x,mode=9", "`9` is no mode; it is octal, like 0400"),
            ("type=tmpfs,target=/x,from=a", "a tmpfs mount has no option `from`"),
            ("target=/x,required", "a bind mount has no option `required`"),
        ] {
            assert_eq!(resolved(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn variables_are_replaced_later() {
        let mount = parse(&word("type=cache,target=$dir,uid=${u}")).unwrap();
        assert_eq!(resolve(&mount, '\\', &Nothing).unwrap_err().message, "`` is no number of a user");
        assert_eq!(fields("a=1,\"b=2,3\",c"), [(0, "a=1".into()), (4, "b=2,3".into()), (12, "c".into())]);
    }
}
