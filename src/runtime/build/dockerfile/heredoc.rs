//! Finding `<<NAME` among the words of a line.

use super::expand::{Lexer, Nothing};

/// A `<<NAME` as announced; its body follows the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The delimiter without quotes.
    pub(super) name: String,
    /// `<<-`: tabs at the start of lines do not count.
    pub(super) chomp: bool,
    /// No part of the delimiter was quoted.
    pub(super) expand: bool,
}

/// All that a line announces, in order.
pub(super) fn announced(line: &str) -> Vec<Announced> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\', &Nothing) };
    // A line whose quotes do not match is the shell's matter; it announces nothing.
    let words = lexer.run(line).map(|done| done.words).unwrap_or_default();
    words.iter().filter_map(|word| heredoc(word)).collect()
}

/// A word that is `[N]<<[-]NAME`.
pub(super) fn heredoc(word: &str) -> Option<Announced> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.contains('<') {
        return None;
    }
    let plain = Lexer { skip_unset: true, ..Lexer::new('\\', &Nothing) };
    let raw = Lexer { raw_quotes: true, skip_unset: true, ..Lexer::new('\\', &Nothing) };
    let [name] = <[String; 1]>::try_from(plain.run(rest).ok()?.words).ok()?;
    let [quoted] = <[String; 1]>::try_from(raw.run(rest).ok()?.words).ok()?;
    // Escaped quotes count in both, quotes that quote only in the second.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&quoted);
    Some(Announced { name, chomp, expand })
}

/// A body without the tabs at the start of its lines.
pub(super) fn chomp(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters() {
        let all = |line: &str| {
            let all = announced(line);
            all.into_iter()
                .map(|a| {
                    format!("{}{}{}", if a.chomp { "-" } else { "" }, a.name, if a.expand { "" } else { "'" })
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(all("RUN <<EOF"), ["EOF"]);
        assert_eq!(all("RUN <<-'EOF' cat > x <<\"B\""), ["-EOF'", "B'"]);
        assert_eq!(all("RUN 3<<  X"), ["X"]);
        assert_eq!(all("RUN <<'one two'"), ["one two'"]);
        assert_eq!(all("RUN <<eo\\'f <<$EOF"), ["eo'f", "$EOF"]);
        assert_eq!(all("RUN \"<<NO\" x<<NO '<<NO' <<<NO"), [""; 0]);
        assert_eq!(all("RUN cat <<A && cat <<B"), ["A", "B"]);
        assert_eq!(all("RUN echo 'open <<A"), [""; 0]);
    }

    #[test]
    fn tabs_go_on_every_line() {
        assert_eq!(chomp("\t\ta\n\tb\tc\n d\n"), "a\nb\tc\n d\n");
    }
}
