//! The rules of [`lint`](super::lint) as data.

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The code of its diagnostics.
    pub code: &'static str,
    /// BuildKit's name, for `# check=skip=NAME`.
    pub name: &'static str,
    /// What it holds against a file.
    pub text: &'static str,
}

const fn rule(code: &'static str, name: &'static str, text: &'static str) -> Rule {
    Rule { code, name, text }
}

pub(super) const CONSISTENT_CASING: Rule = rule(
    "consistent-instruction-casing",
    "ConsistentInstructionCasing",
    "instructions in upper and in lower case",
);
pub(super) const COPY_IGNORED: Rule =
    rule("copy-ignored-file", "CopyIgnoredFile", "a copy of what `.dockerignore` excludes");
pub(super) const DUPLICATE_STAGE_NAME: Rule =
    rule("duplicate-stage-name", "DuplicateStageName", "two stages of one name");
pub(super) const EXPOSE_FORMAT: Rule =
    rule("expose-invalid-format", "ExposeInvalidFormat", "`EXPOSE` with an address or a host's port");
pub(super) const EXPOSE_CASING: Rule =
    rule("expose-proto-casing", "ExposeProtoCasing", "a protocol of `EXPOSE` that is not in lower case");
pub(super) const FROM_AS_CASING: Rule =
    rule("from-as-casing", "FromAsCasing", "`FROM` and `AS` in different case");
pub(super) const PLATFORM_CONSTANT: Rule = rule(
    "from-platform-flag-const-disallowed",
    "FromPlatformFlagConstDisallowed",
    "a platform that is the same whatever is built for",
);
pub(super) const INVALID_DEFAULT_ARG: Rule = rule(
    "invalid-default-arg-in-from",
    "InvalidDefaultArgInFrom",
    "an image name that is invalid without build arguments",
);
pub(super) const JSON_ARGS: Rule =
    rule("json-args-recommended", "JSONArgsRecommended", "`CMD` or `ENTRYPOINT` in shell form");
pub(super) const LEGACY_KEY_VALUE: Rule =
    rule("legacy-key-value-format", "LegacyKeyValueFormat", "`ENV` or `LABEL` without `=`");
pub(super) const MAINTAINER: Rule = rule("maintainer-deprecated", "MaintainerDeprecated", "`MAINTAINER`");
pub(super) const MULTIPLE_INSTRUCTIONS: Rule = rule(
    "multiple-instructions-disallowed",
    "MultipleInstructionsDisallowed",
    "an instruction that a later one of its stage replaces",
);
pub(super) const NO_EMPTY_CONTINUATION: Rule =
    rule("no-empty-continuation", "NoEmptyContinuation", "a blank line inside of an instruction");
pub(super) const REDUNDANT_PLATFORM: Rule =
    rule("redundant-target-platform", "RedundantTargetPlatform", "`FROM --platform=$TARGETPLATFORM`");
pub(super) const RESERVED_STAGE_NAME: Rule =
    rule("reserved-stage-name", "ReservedStageName", "a stage called `scratch` or `context`");
pub(super) const SECRETS: Rule =
    rule("secrets-used-in-arg-or-env", "SecretsUsedInArgOrEnv", "`ARG` or `ENV` named like a secret");
pub(super) const STAGE_NAME_CASING: Rule =
    rule("stage-name-casing", "StageNameCasing", "a stage name with capitals");
pub(super) const UNDEFINED_ARG_IN_FROM: Rule =
    rule("undefined-arg-in-from", "UndefinedArgInFrom", "`FROM` uses a variable that no `ARG` declares");
pub(super) const UNDEFINED_VAR: Rule = rule("undefined-var", "UndefinedVar", "a variable that is not set");
pub(super) const WORKDIR_RELATIVE: Rule =
    rule("workdir-relative-path", "WorkdirRelativePath", "a first `WORKDIR` that is relative");

/// All of them.
pub const RULES: [Rule; 20] = [
    CONSISTENT_CASING,
    COPY_IGNORED,
    DUPLICATE_STAGE_NAME,
    EXPOSE_FORMAT,
    EXPOSE_CASING,
    FROM_AS_CASING,
    PLATFORM_CONSTANT,
    INVALID_DEFAULT_ARG,
    JSON_ARGS,
    LEGACY_KEY_VALUE,
    MAINTAINER,
    MULTIPLE_INSTRUCTIONS,
    NO_EMPTY_CONTINUATION,
    REDUNDANT_PLATFORM,
    RESERVED_STAGE_NAME,
    SECRETS,
    STAGE_NAME_CASING,
    UNDEFINED_ARG_IN_FROM,
    UNDEFINED_VAR,
    WORKDIR_RELATIVE,
];
