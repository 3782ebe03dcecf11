//! Asking before something is removed.

use std::io::IsTerminal as _;

use anyhow::bail;

use super::render::out;

/// Whether the user wants it: `force` says so, or an answer to the warning does.
///
/// # Errors
/// When nobody can be asked.
pub(crate) fn confirm(force: bool, warning: &str) -> anyhow::Result<bool> {
    if force {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("{warning}\nnobody can be asked here whether that is meant; use --force");
    }
    out::talk(&format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
