//! The live tree on a terminal, as a pure function from what is known to lines of text.
//!
//! Drawing them is the business of [`super::view`]. A line never is wider than
//! the terminal: a wrapped line would break the count of lines to go back over.

use std::time::Duration;

use hoist::ops::events::{ProjectEvent, ResourceKind, Status};
use indexmap::IndexMap;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::lines::one_line;
use super::text::human_size;

/// Everything that one operation works on.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    operation: &'static str,
    dry_run: bool,
    tasks: IndexMap<(ResourceKind, String), Task>,
}

/// One resource. Times are since the start of the command.
#[derive(Debug)]
struct Task {
    status: Status,
    text: &'static str,
    details: String,
    started: Duration,
    ended: Option<Duration>,
    /// Layers of an image.
    layers: IndexMap<String, Layer>,
    bytes: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Layer {
    status: Status,
    bytes: Option<(u64, u64)>,
}

/// What lines may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Columns of the terminal.
    pub(crate) width: usize,
    /// Most lines to return.
    pub(crate) height: usize,
    /// Use colours.
    pub(crate) color: bool,
}

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

impl Tree {
    /// An empty tree under a heading.
    pub(crate) fn new(operation: &'static str, dry_run: bool) -> Self {
        Self { operation, dry_run, tasks: IndexMap::new() }
    }

    /// Nothing to show yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Everything is done, and nothing went wrong.
    pub(crate) fn is_content(&self) -> bool {
        self.tasks.values().all(|task| task.status == Status::Done)
    }

    /// Takes a change of a resource in.
    pub(crate) fn update(&mut self, event: &ProjectEvent, now: Duration) {
        let ProjectEvent::Progress { kind, name, parent, status, text, details, bytes } = event else {
            return;
        };
        if let (ResourceKind::Layer, Some(image)) = (kind, parent) {
            let task = self.task(ResourceKind::Image, image, now);
            // A step without a count keeps the bar where it was.
            let before = task.layers.get(name).and_then(|layer| layer.bytes);
            task.layers.insert(name.clone(), Layer { status: *status, bytes: bytes.or(before) });
            return;
        }
        let task = self.task(*kind, name, now);
        task.status = *status;
        task.text = text;
        task.details = one_line(details);
        task.bytes = *bytes;
        task.ended = (*status != Status::Working).then_some(now);
    }

    fn task(&mut self, kind: ResourceKind, name: &str, now: Duration) -> &mut Task {
        self.tasks.entry((kind, name.to_owned())).or_insert_with(|| Task {
            status: Status::Working,
            text: "",
            details: String::new(),
            started: now,
            ended: None,
            layers: IndexMap::new(),
            bytes: None,
        })
    }

    /// The tree as lines, at most `shape.height` of them, each at most `shape.width` wide.
    pub(crate) fn frame(&self, shape: Shape, now: Duration) -> Vec<String> {
        let done = self.tasks.values().filter(|task| task.ended.is_some()).count();
        let mut heading = Line::new(shape);
        heading.push(&format!("[+] {} {done}/{}", self.operation, self.tasks.len()), Color::None);
        let mut lines = vec![heading.text];
        let room = shape.height.saturating_sub(1);
        let shown = self.shown(room);
        let hidden = self.tasks.len() - shown.len();
        let name_width = shown.iter().map(|i| self.label(*i).width()).max().unwrap_or(0);
        for index in shown {
            lines.push(self.line(index, name_width, shape, now));
        }
        if hidden > 0 && room > 0 {
            let mut more = Line::new(shape);
            more.push(&format!(" ... {hidden} more"), Color::Dim);
            lines.push(more.text);
        }
        lines
    }

    /// Which tasks get a line when there is room for `room` lines, in their
    /// order: failed and working ones before finished ones.
    fn shown(&self, room: usize) -> Vec<usize> {
        if self.tasks.len() <= room {
            return (0..self.tasks.len()).collect();
        }
        let room = room.saturating_sub(1);
        let rank = |task: &Task| match task.status {
            Status::Error => 0,
            Status::Warning => 1,
            Status::Working => 2,
            Status::Done => 3,
        };
        let mut order: Vec<usize> = (0..self.tasks.len()).collect();
        order.sort_by_key(|i| (rank(&self.tasks[*i]), *i));
        order.truncate(room);
        order.sort_unstable();
        order
    }

    fn label(&self, index: usize) -> String {
        let Some(((kind, name), _)) = self.tasks.get_index(index) else { return String::new() };
        format!("{} {name}", kind.as_str())
    }

    fn line(&self, index: usize, name_width: usize, shape: Shape, now: Duration) -> String {
        let task = &self.tasks[index];
        let tenths = now.as_millis() / 100;
        let (sign, color) = match task.status {
            Status::Working => (SPINNER[usize::try_from(tenths % 10).unwrap_or(0)], Color::Cyan),
            Status::Done => ("✔", Color::Green),
            Status::Warning => ("!", Color::Yellow),
            Status::Error => ("✘", Color::Red),
        };
        let elapsed = task.ended.unwrap_or(now).saturating_sub(task.started);
        let timer = format!("{:.1}s", elapsed.as_secs_f64());
        let mut line = Line::new(shape);
        line.reserve = timer.width() + 1;
        line.push(" ", Color::None);
        line.push(sign, color);
        line.push(" ", Color::None);
        if self.dry_run {
            line.push("DRY-RUN MODE -  ", Color::Dim);
        }
        let label = self.label(index);
        // The state says more than the end of a long name.
        let for_name = line.room().saturating_sub(task.text.width() + 2);
        line.push(&middle_cut(&label, for_name), Color::None);
        if task.ended.is_none() && (!task.layers.is_empty() || task.bytes.is_some()) {
            line.push(&format!(" {}", task.bar(shape.width)), Color::None);
        } else {
            // States in one column, as long as that leaves room for them.
            let pad = name_width.saturating_sub(label.width());
            if line.room() > pad + task.text.width() + 2 {
                line.push(&" ".repeat(pad), Color::None);
            }
        }
        if !task.text.is_empty() {
            line.push("  ", Color::None);
            line.push(task.text, color);
        }
        if !task.details.is_empty() {
            line.push("  ", Color::None);
            line.push(&task.details, Color::Dim);
        }
        line.finish(&timer)
    }
}

impl Task {
    /// `[⣿⣿⣶⣀]  12MB / 30MB`, one cell per layer.
    fn bar(&self, width: usize) -> String {
        const CELLS: [&str; 9] = ["⣀", "⣀", "⣄", "⣤", "⣦", "⣶", "⣷", "⣿", "⣿"];
        let (mut current, mut total) = self.bytes.unwrap_or_default();
        let mut cells = String::new();
        for layer in self.layers.values() {
            let (done, all) = layer.bytes.unwrap_or_default();
            current += done;
            total += all;
            let level = if layer.status == Status::Done {
                8
            } else {
                usize::try_from((done * 8).checked_div(all).unwrap_or(0)).unwrap_or(0).min(7)
            };
            cells.push_str(CELLS[level]);
        }
        let counts = format!("{:>7} / {:<7}", human_size(current), human_size(total));
        if cells.is_empty() || self.layers.len() > width / 4 { counts } else { format!("[{cells}] {counts}") }
    }
}

/// Colours of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Color {
    None,
    Dim,
    Cyan,
    Green,
    Yellow,
    Red,
}

/// A line under construction that stops at the right edge.
struct Line {
    text: String,
    used: usize,
    /// Columns kept for what stands at the right edge.
    reserve: usize,
    shape: Shape,
}

impl Line {
    fn new(shape: Shape) -> Self {
        Self { text: String::new(), used: 0, reserve: 0, shape }
    }

    fn room(&self) -> usize {
        self.shape.width.saturating_sub(self.used + self.reserve)
    }

    fn push(&mut self, text: &str, color: Color) {
        let text = cut(text, self.room());
        if text.is_empty() {
            return;
        }
        self.used += text.width();
        let code = match color {
            Color::None => "",
            Color::Dim => "2",
            Color::Cyan => "36",
            Color::Green => "32",
            Color::Yellow => "33",
            Color::Red => "31",
        };
        if self.shape.color && !code.is_empty() {
            self.text.push_str("\x1b[");
            self.text.push_str(code);
            self.text.push('m');
            self.text.push_str(&text);
            self.text.push_str("\x1b[0m");
        } else {
            self.text.push_str(&text);
        }
    }

    /// Puts `right` at the right edge.
    fn finish(mut self, right: &str) -> String {
        let width = right.width();
        if self.used + width < self.shape.width {
            let gap = self.shape.width - self.used - width;
            self.text.push_str(&" ".repeat(gap));
            self.text.push_str(right);
        }
        self.text
    }
}

/// At most `width` columns; control characters, which could move the cursor, become blanks.
fn cut(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.width() <= width {
        return clean;
    }
    let mut used = 0;
    let mut out: String = clean
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used < width
        })
        .collect();
    if width > 0 {
        out.push('…');
    }
    out
}

/// At most `width` columns, the middle replaced by `…`: both ends of a name matter.
fn middle_cut(text: &str, width: usize) -> String {
    if text.width() <= width || width < 5 {
        return cut(text, width);
    }
    let chars: Vec<char> = text.chars().collect();
    let keep = width - 1;
    let (left, right) = (keep.div_ceil(2), keep / 2);
    let head: String = chars.iter().take(left).collect();
    let tail: String = chars.iter().skip(chars.len().saturating_sub(right)).collect();
    cut(&format!("{head}…{tail}"), width)
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::{layer, progress};
    use super::*;

    const WIDE: Shape = Shape { width: 60, height: 20, color: false };

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    fn example() -> Tree {
        let mut tree = Tree::new("up", false);
        tree.update(&progress("p-database-1", Status::Working, "Creating"), seconds(0.0));
        tree.update(&progress("p-web-1", Status::Working, "Creating"), seconds(0.1));
        tree.update(&progress("p-database-1", Status::Done, "Started"), seconds(0.5));
        tree
    }

    #[test]
    fn one_line_per_resource_with_the_time_at_the_edge() {
        insta::assert_snapshot!(example().frame(WIDE, seconds(1.2)).join("\n"), @r"
        [+] up 1/2
         ✔ Container p-database-1  Started                      0.5s
         ⠹ Container p-web-1       Creating                     1.1s
        ");
    }

    #[test]
    fn colours_do_not_count_as_columns() {
        let lines = example().frame(Shape { color: true, ..WIDE }, seconds(1.2));
        assert!(lines[1].starts_with(" \x1b[32m✔\x1b[0m Container p-database-1  \x1b[32mStarted\x1b[0m"));
    }

    #[test]
    fn forty_columns_are_enough() {
        let mut tree = Tree::new("up", false);
        tree.update(
            &progress("a-long-project-name-and-a-long-service-name-1", Status::Working, "Waiting"),
            seconds(0.0),
        );
        let narrow = Shape { width: 40, ..WIDE };
        insta::assert_snapshot!(tree.frame(narrow, seconds(0.0)).join("\n"), @r"
        [+] up 0/1
         ⠋ Container a…vice-name-1  Waiting 0.0s
        ");
        for width in 0..60 {
            for line in tree.frame(Shape { width, ..WIDE }, seconds(0.0)) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn two_hundred_resources_leave_room_for_those_that_matter() {
        let mut tree = Tree::new("up", false);
        for i in 0..200 {
            tree.update(&progress(&format!("p-s{i}-1"), Status::Done, "Started"), seconds(0.0));
        }
        tree.update(&progress("p-s150-1", Status::Error, "Error"), seconds(0.0));
        tree.update(&progress("p-s170-1", Status::Working, "Starting"), seconds(0.0));
        let lines = tree.frame(Shape { height: 5, ..WIDE }, seconds(0.0));
        insta::assert_snapshot!(lines.join("\n"), @r"
        [+] up 199/200
         ✔ Container p-s0-1    Started                          0.0s
         ✘ Container p-s150-1  Error                            0.0s
         ⠋ Container p-s170-1  Starting                         0.0s
         ... 197 more
        ");
    }

    #[test]
    fn a_pull_shows_its_layers() {
        let mut tree = Tree::new("pull", false);
        let mut image = progress("redis:7", Status::Working, "Pulling");
        if let ProjectEvent::Progress { kind, .. } = &mut image {
            *kind = ResourceKind::Image;
        }
        tree.update(&image, seconds(0.0));
        tree.update(&layer("a", "Downloading", (10_000_000, 10_000_000)), seconds(0.0));
        tree.update(&layer("b", "Downloading", (5_000_000, 10_000_000)), seconds(0.0));
        tree.update(&layer("c", "Downloading", (0, 10_000_000)), seconds(0.0));
        insta::assert_snapshot!(tree.frame(WIDE, seconds(0.0)).join("\n"), @r"
        [+] pull 0/1
         ⠋ Image redis:7 [⣿⣦⣀]    15MB / 30MB     Pulling       0.0s
        ");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut tree = Tree::new("up", false);
        let mut event = progress("web", Status::Error, "Error");
        if let ProjectEvent::Progress { details, .. } = &mut event {
            *details = "a\x1b[2Jb\nc".into();
        }
        tree.update(&event, seconds(0.0));
        assert!(!tree.frame(WIDE, seconds(0.0)).join("").contains('\x1b'));
    }
}
