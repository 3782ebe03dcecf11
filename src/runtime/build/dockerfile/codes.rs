//! The table of diagnostic codes of Dockerfiles. A test holds it against the sources.

pub(super) const DUPLICATE_FLAG: &str = "duplicate-flag";
pub(super) const EMPTY_DOCKERFILE: &str = "empty-dockerfile";
pub(super) const FOREIGN_SYNTAX: &str = "foreign-syntax";
pub(super) const HEREDOC_DESTINATION: &str = "heredoc-destination";
pub(super) const INVALID_DIRECTIVE: &str = "invalid-directive";
pub(super) const INVALID_DURATION: &str = "invalid-duration";
pub(super) const INVALID_FLAG: &str = "invalid-flag";
pub(super) const INVALID_JSON_FORM: &str = "invalid-json-form";
pub(super) const INVALID_MOUNT: &str = "invalid-mount";
pub(super) const INVALID_PAIR: &str = "invalid-pair";
pub(super) const INVALID_STAGE_NAME: &str = "invalid-stage-name";
pub(super) const INVALID_TRIGGER: &str = "invalid-trigger";
pub(super) const NO_STAGE: &str = "no-stage";
pub(super) const UNKNOWN_FLAG: &str = "unknown-flag";
pub(super) const UNKNOWN_INSTRUCTION: &str = "unknown-instruction";
pub(super) const UNSUPPORTED_FLAG: &str = "unsupported-flag";
pub(super) const UNTERMINATED_HEREDOC: &str = "unterminated-heredoc";
pub(super) const WRONG_ARGUMENTS: &str = "wrong-arguments";

/// Every error of a Dockerfile, with what it means. Warnings are in [`RULES`](super::rules::RULES).
pub const ERRORS: &[(&str, &str)] = &[
    (DUPLICATE_FLAG, "a flag that can be given once is given again"),
    (EMPTY_DOCKERFILE, "a Dockerfile without an instruction"),
    (FOREIGN_SYNTAX, "`# syntax=` names a frontend that is not Docker's"),
    (HEREDOC_DESTINATION, "the destination of a copy is a heredoc"),
    (INVALID_DIRECTIVE, "a directive at the top that is repeated or has a wrong value"),
    (INVALID_DURATION, "a time that cannot be read, or is below a millisecond"),
    ("invalid-expansion", "a `$` expression or a quote that does not parse"),
    (INVALID_FLAG, "a flag without a value, or with one that it cannot have"),
    (INVALID_JSON_FORM, "a JSON array with something else than texts, or none where it must be one"),
    (INVALID_MOUNT, "a `--mount` with an option that is unknown, wrong or out of place"),
    (INVALID_PAIR, "a name without a value"),
    ("invalid-port", "a port of `EXPOSE` that cannot be read"),
    (INVALID_STAGE_NAME, "the name of a stage with characters that names cannot have"),
    (INVALID_TRIGGER, "an instruction that cannot follow `ONBUILD`"),
    (NO_STAGE, "an instruction other than `ARG` before the first `FROM`, or no `FROM` at all"),
    ("required-argument", "a variable that `${…:?}` insists on is not set"),
    (UNKNOWN_FLAG, "a flag that the instruction does not have"),
    (UNKNOWN_INSTRUCTION, "a line that begins with no instruction"),
    (UNSUPPORTED_FLAG, "a flag that hoist does not carry out"),
    (UNTERMINATED_HEREDOC, "a heredoc whose last line never comes"),
    (WRONG_ARGUMENTS, "too few or too many words after an instruction"),
];
