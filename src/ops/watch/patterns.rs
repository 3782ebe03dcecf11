//! Which paths a watch rule is about: `ignore`, `include`, `.dockerignore` and what editors leave around.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// Files that editors make on the way, and what is never meant.
const ALWAYS: [&str; 9] = [
    "**/.git",
    "**/4913",
    "**/*~",
    "**/.#*",
    "**/#*#",
    "**/.*.sw[a-z]",
    "**/.*.kate-swp",
    "**/.DS_Store",
    "**/___jb_*___",
];

/// Patterns as in a `.dockerignore`: the last one that matches decides, `!` takes back,
/// and what is below a match matches, too.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns(Vec<(bool, GlobMatcher)>);

impl Patterns {
    /// # Errors
    /// With the pattern that is none.
    pub(super) fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (taken_back, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if matches!(pattern, "" | ".") {
                continue;
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| format!("`{line}` is no pattern: {error}"))?;
            patterns.push((taken_back, glob.compile_matcher()));
        }
        Ok(Self(patterns))
    }

    /// What is ignored everywhere.
    pub(super) fn always() -> Self {
        // Fixed texts, which the tests compile.
        Self::new(ALWAYS).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path, relative to what the patterns are about, is matched.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let mut matched = false;
        for (taken_back, glob) in &self.0 {
            if path.ancestors().filter(|p| !p.as_os_str().is_empty()).any(|p| glob.is_match(p)) {
                matched = !taken_back;
            }
        }
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_dockerignore() {
        let patterns = Patterns::new(["# comment", "node_modules/", "/build", "**/*.tmp", "!keep.tmp"])
            .expect("patterns");
        let matches = |path: &str| patterns.matches(Path::new(path));
        assert!(matches("node_modules") && matches("node_modules/a/b.js"));
        assert!(!matches("web/node_modules"), "without ** only at the top");
        assert!(matches("build/x") && !matches("builds"));
        assert!(matches("a/b.tmp") && !matches("keep.tmp"));
        assert!(Patterns::new(["[z-a]"]).is_err());
    }

    #[test]
    fn what_editors_leave_is_ignored() {
        let always = Patterns::always();
        assert_eq!(always.0.len(), ALWAYS.len());
        for path in ["src/4913", "a/.main.rs.swp", "main.rs~", ".git/index", ".#lock", "x/.DS_Store"] {
            assert!(always.matches(Path::new(path)), "{path}");
        }
        for path in ["src/main.rs", ".gitignore", "a.swift", ".env"] {
            assert!(!always.matches(Path::new(path)), "{path}");
        }
    }
}
