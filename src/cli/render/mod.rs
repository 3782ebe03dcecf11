//! What the user sees: progress, log lines, tables. The rest of the program emits events and values.

pub(crate) mod build;
pub(crate) mod explain;
pub(crate) mod frame;
pub(crate) mod lines;
pub(crate) mod logs;
pub(crate) mod out;
pub(crate) mod ports;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod view;
