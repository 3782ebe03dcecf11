//! `post_start` and `pre_stop` hooks: commands run inside a service's container.

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use crate::engine::{Engine, EngineError};
use crate::spec::ExecSpec;

/// Bytes of output that a failed hook shows.
const OUTPUT_LIMIT: usize = 2000;

/// Runs a hook to its end.
///
/// # Errors
/// [`EngineError::Invalid`] with its last output when it gives a code other than 0.
pub(super) async fn run(
    engine: &Arc<dyn Engine>,
    id: &str,
    name: &str,
    stage: &str,
    spec: &ExecSpec,
) -> Result<(), EngineError> {
    let attached = engine.exec(id, spec).await?;
    let (mut stdout, mut stderr) = (attached.stdout, attached.stderr);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read_err = async {
        match &mut stderr {
            Some(stderr) => stderr.read_to_end(&mut err).await,
            None => Ok(0),
        }
    };
    let (read_out, read_err) = tokio::join!(stdout.read_to_end(&mut out), read_err);
    let code = attached.control.wait().await?;
    if code == 0 {
        return Ok(());
    }
    // Output that could not be read is only missing from the message.
    drop((read_out, read_err));
    out.extend(err);
    let tail = String::from_utf8_lossy(&out[out.len().saturating_sub(OUTPUT_LIMIT)..]).into_owned();
    let command = spec.command.join(" ");
    Err(EngineError::Invalid(format!(
        "{stage} hook `{command}` of container {name} exited with {code}: {}",
        tail.trim()
    )))
}
