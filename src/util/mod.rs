//! Small things every module may use; one thing per file.

pub mod exact;
pub mod files;
pub mod fs;
pub mod ids;
pub mod lock;
