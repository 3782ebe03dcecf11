//! How a model type is read from a tree and written to one.
//!
//! A type is declared once, with [`record!`](crate::model::record), as a list of fields with their
//! keys; the list gives the struct, its decoder and its renderer, so they cannot
//! disagree. Trees are abstract on both sides: [`Source`] in, [`Out`] out.

use std::collections::BTreeMap;

use super::scalar::go_float;

/// A node of the tree a model is decoded from.
pub trait Source: Sized {
    /// What a mapping is.
    type Map;
    /// Where a node came from; goes back to the caller with each problem.
    type Place;
    /// The node's value.
    fn view(&self) -> View<'_, Self>;
    /// The entries of a mapping, in the order they stand.
    fn entries<'m>(map: &'m Self::Map) -> impl Iterator<Item = (&'m str, &'m Self)>
    where
        Self: 'm;
    /// Where this node came from.
    fn place(&self) -> Self::Place;
}

/// What a [`Source`] node holds.
#[derive(Debug)]
pub enum View<'a, S: Source> {
    /// Nothing.
    Null,
    /// A flag.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// A timestamp as Go prints it.
    Time(&'a str),
    /// A list.
    List(&'a [S]),
    /// A mapping, keys unique.
    Map(&'a S::Map),
}

/// Problems met while decoding: where, and what.
pub type Log<S> = Vec<(<S as Source>::Place, String)>;

/// Which of Docker Compose's two renderings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `--format json`, and the input of the config hash.
    Json,
    /// `--format yaml`.
    Yaml,
}

/// A rendered tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A number of double precision.
    Float(f64),
    /// A number of single precision; prints fewer digits.
    Float32(f32),
    /// Text.
    Str(String),
    /// A timestamp in RFC 3339 form.
    Time(String),
    /// A list.
    List(Vec<Out>),
    /// A mapping whose keys are printed in sorted order.
    Map(Vec<(String, Out)>),
    /// A mapping whose keys are printed in this order.
    Record(Vec<(&'static str, Out)>, Vec<(String, Out)>),
}

impl Out {
    /// Whether all its numbers are numbers: JSON has no way to write `.inf` and `.nan`.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Float(f) => f.is_finite(),
            Self::Float32(f) => f.is_finite(),
            Self::List(items) => items.iter().all(Self::is_finite),
            Self::Map(entries) => entries.iter().all(|(_, v)| v.is_finite()),
            Self::Record(fields, more) => {
                fields.iter().all(|(_, v)| v.is_finite()) && more.iter().all(|(_, v)| v.is_finite())
            }
            _ => true,
        }
    }
}

/// Something that can stand as the value of a key.
pub trait Field: Sized {
    /// Reads it. A problem is logged, and a default taken instead.
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self;
    /// Reads it where it may be absent; `None` when the value says nothing.
    fn decode_some<S: Source>(node: &S, log: &mut Log<S>) -> Option<Self> {
        Some(Self::decode(node, log))
    }
    /// Writes it.
    fn render(&self, style: Style) -> Out;
    /// Whether the key is left out.
    fn omit(&self, style: Style) -> bool;
}

/// Text of a scalar where text is expected; `None` for a list or mapping.
///
/// Numbers and dates come out as Go's default formatting, because the config
/// hash is taken of that text.
pub fn scalar_text<S: Source>(node: &S) -> Option<String> {
    Some(match node.view() {
        View::Null => String::new(),
        View::Bool(b) => b.to_string(),
        View::Int(i) => i.to_string(),
        View::Float(f) => go_float(f),
        View::Str(s) => s.to_owned(),
        View::Time(t) => t.to_owned(),
        View::List(_) | View::Map(_) => return None,
    })
}

/// `2024-01-01 00:00:00 +0000 UTC`, as Go prints a time, in RFC 3339 form.
pub fn rfc3339(time: &str) -> String {
    let mut parts = time.split(' ');
    let (date, clock, zone) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    match zone {
        "+0000" | "" => format!("{date}T{clock}Z"),
        zone if zone.len() == 5 => format!("{date}T{clock}{}:{}", &zone[..3], &zone[3..]),
        zone => format!("{date}T{clock}{zone}"),
    }
}

fn wrong<S: Source, T: Default>(node: &S, log: &mut Log<S>, wanted: &str) -> T {
    log.push((node.place(), format!("must be {wanted}")));
    T::default()
}

impl Field for String {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        scalar_text(node).unwrap_or_else(|| wrong(node, log, "a string"))
    }
    fn decode_some<S: Source>(node: &S, log: &mut Log<S>) -> Option<Self> {
        Some(Self::decode(node, log)).filter(|s| !s.is_empty())
    }
    fn render(&self, _: Style) -> Out {
        Out::Str(self.clone())
    }
    fn omit(&self, _: Style) -> bool {
        self.is_empty()
    }
}

impl Field for bool {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => false,
            View::Bool(b) => b,
            View::Str(s) => match s.to_ascii_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => true,
                "false" | "n" | "no" | "off" => false,
                _ => wrong(node, log, "true or false"),
            },
            _ => wrong(node, log, "true or false"),
        }
    }
    fn render(&self, _: Style) -> Out {
        Out::Bool(*self)
    }
    fn omit(&self, _: Style) -> bool {
        !*self
    }
}

/// An integer; text and whole-number floats are taken too, fractions are cut off.
fn integer<S: Source>(node: &S, log: &mut Log<S>) -> i128 {
    match node.view() {
        View::Null => 0,
        View::Int(i) => i,
        #[expect(clippy::cast_possible_truncation, reason = "fractions are truncated, as Compose does")]
        View::Float(f) => f as i128,
        View::Str(s) => match s.trim().parse() {
            Ok(i) => i,
            Err(_) => wrong(node, log, "an integer"),
        },
        _ => wrong(node, log, "an integer"),
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Field for $t {
            fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
                let i = integer(node, log);
                <$t>::try_from(i).unwrap_or_else(|_| {
                    wrong(node, log, concat!("an integer that fits ", stringify!($t)))
                })
            }
            fn render(&self, _: Style) -> Out {
                Out::Int(i128::from(*self))
            }
            fn omit(&self, _: Style) -> bool {
                *self == 0
            }
        }
    )*};
}
integers!(i64, u64, u32, u16);

impl Field for f32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "Compose keeps single precision"
    )]
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => 0.0,
            View::Int(i) => i as f32,
            View::Float(f) => f as f32,
            View::Str(s) => s.trim().parse().unwrap_or_else(|_| wrong(node, log, "a number")),
            _ => wrong(node, log, "a number"),
        }
    }
    fn render(&self, _: Style) -> Out {
        Out::Float32(*self)
    }
    fn omit(&self, _: Style) -> bool {
        *self == 0.0
    }
}

impl<T: Field> Field for Option<T> {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => None,
            _ => T::decode_some(node, log),
        }
    }
    fn render(&self, style: Style) -> Out {
        self.as_ref().map_or(Out::Null, |v| v.render(style))
    }
    fn omit(&self, _: Style) -> bool {
        self.is_none()
    }
}

impl<T: Field> Field for Box<T> {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        Self::new(T::decode(node, log))
    }
    fn render(&self, style: Style) -> Out {
        (**self).render(style)
    }
    fn omit(&self, style: Style) -> bool {
        (**self).omit(style)
    }
}

impl<T: Field> Field for Vec<T> {
    /// A single value stands for a list of one.
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => Self::new(),
            View::List(l) => l.iter().map(|n| T::decode(n, log)).collect(),
            _ => vec![T::decode(node, log)],
        }
    }
    fn render(&self, style: Style) -> Out {
        Out::List(self.iter().map(|v| v.render(style)).collect())
    }
    fn omit(&self, _: Style) -> bool {
        self.is_empty()
    }
}

/// Values of maps that may also be written as a list of `key=value`.
pub trait FromText: Sized {
    /// The value of `key` (no `=`) or `key=value`.
    fn from_text(value: Option<&str>) -> Option<Self>;
    /// A value from a scalar node, where an empty text is a value.
    fn from_scalar<S: Source>(node: &S, log: &mut Log<S>) -> Self
    where
        Self: Field,
    {
        Self::decode(node, log)
    }
}

impl FromText for String {
    fn from_text(value: Option<&str>) -> Option<Self> {
        Some(value.unwrap_or_default().to_owned())
    }
}

impl FromText for Option<String> {
    fn from_text(value: Option<&str>) -> Option<Self> {
        Some(value.map(str::to_owned))
    }
    fn from_scalar<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => None,
            _ => Some(String::decode(node, log)),
        }
    }
}

/// Marks map values that cannot come from `key=value` text.
macro_rules! no_text {
    ($($t:ty),* $(,)?) => {$(
        impl $crate::model::record::FromText for $t {
            fn from_text(_: Option<&str>) -> Option<Self> {
                None
            }
        }
    )*};
}
pub(crate) use no_text;

impl FromText for Vec<String> {
    fn from_text(value: Option<&str>) -> Option<Self> {
        Some(value.map(str::to_owned).into_iter().collect())
    }
}

impl<T: Field + FromText> Field for BTreeMap<String, T> {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => Self::new(),
            View::Map(m) => S::entries(m).map(|(k, n)| (k.to_owned(), T::from_scalar(n, log))).collect(),
            View::List(l) => {
                let mut map = Self::new();
                for item in l {
                    let text = scalar_text(item).unwrap_or_default();
                    let (key, value) = match text.split_once('=') {
                        Some((k, v)) => (k, Some(v)),
                        None => (text.as_str(), None),
                    };
                    match T::from_text(value) {
                        Some(v) => drop(map.insert(key.to_owned(), v)),
                        None => log.push((item.place(), "must be a mapping".to_owned())),
                    }
                }
                map
            }
            _ => wrong(node, log, "a mapping"),
        }
    }
    fn render(&self, style: Style) -> Out {
        Out::Map(self.iter().map(|(k, v)| (k.clone(), v.render(style))).collect())
    }
    fn omit(&self, _: Style) -> bool {
        self.is_empty()
    }
}

/// Declares a struct with its decoder and renderer.
///
/// `open` structs keep `x-*` keys in a field `extensions`; `closed` ones drop them.
/// A second key after `|` is the one JSON uses. A field marked `=> always` is printed also when it
/// says nothing. Fields in brackets are neither read nor written.
macro_rules! record {
    (
        $(#[$meta:meta])*
        open struct $name:ident $([ $( $(#[$emeta:meta])* $extra:ident : $ety:ty ),* $(,)? ])? {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty = $key:literal $(| $json:literal)? $(=> $keep:ident)? ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $( $( $(#[$emeta])* pub $extra: $ety, )* )?
            $( $(#[$fmeta])* pub $field: $ty, )*
            /// `x-*` attributes.
            pub extensions: $crate::model::Extensions,
        }
        impl $crate::model::record::Field for $name {
            fn decode<S: $crate::model::record::Source>(node: &S, log: &mut $crate::model::record::Log<S>) -> Self {
                let mut this = Self::default();
                $crate::model::record::entries(node, log, |key, value, log| {
                    match key {
                        $( $key => this.$field = $crate::model::record::Field::decode(value, log), )*
                        _ if key.starts_with("x-") => {
                            this.extensions.insert(key.to_owned(), $crate::model::record::Field::decode(value, log));
                        }
                        _ => {}
                    }
                });
                this
            }
            fn render(&self, style: $crate::model::record::Style) -> $crate::model::record::Out {
                use $crate::model::record::{Out, Style};
                let mut fields: Vec<(&'static str, Out)> = Vec::new();
                $(
                    if !self.$field.omit(style) $(|| $crate::model::record::$keep())? {
                        let key = $crate::model::record::pick(style, &[$key $(, $json)?]);
                        fields.push((key, self.$field.render(style)));
                    }
                )*
                let extensions = match style {
                    Style::Json => Vec::new(),
                    Style::Yaml => self.extensions.iter().map(|(k, v)| (k.clone(), v.render(style))).collect(),
                };
                Out::Record(fields, extensions)
            }
            fn omit(&self, style: $crate::model::record::Style) -> bool {
                style == $crate::model::record::Style::Yaml
                    $( && $crate::model::record::Field::omit(&self.$field, style) )* && self.extensions.is_empty()
            }
        }
        $crate::model::record::no_text!($name);
    };
    (
        $(#[$meta:meta])*
        closed struct $name:ident {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty = $key:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
        }
        impl $crate::model::record::Field for $name {
            fn decode<S: $crate::model::record::Source>(node: &S, log: &mut $crate::model::record::Log<S>) -> Self {
                let mut this = Self::default();
                $crate::model::record::entries(node, log, |key, value, log| {
                    match key {
                        $( $key => this.$field = $crate::model::record::Field::decode(value, log), )*
                        _ => {}
                    }
                });
                this
            }
            fn render(&self, style: $crate::model::record::Style) -> $crate::model::record::Out {
                use $crate::model::record::Out;
                let mut fields: Vec<(&'static str, Out)> = Vec::new();
                $( if !self.$field.omit(style) { fields.push(($key, self.$field.render(style))); } )*
                Out::Record(fields, Vec::new())
            }
            fn omit(&self, style: $crate::model::record::Style) -> bool {
                style == $crate::model::record::Style::Yaml
                    $( && $crate::model::record::Field::omit(&self.$field, style) )*
            }
        }
        $crate::model::record::no_text!($name);
    };
}
pub(crate) use record;

/// The mark of fields that are never left out.
pub(crate) const fn always() -> bool {
    true
}

/// The first key, or for JSON the last.
pub(crate) fn pick(style: Style, keys: &'static [&'static str]) -> &'static str {
    match style {
        Style::Yaml => keys[0],
        Style::Json => keys[keys.len() - 1],
    }
}

/// Calls `each` for every entry of a mapping node; logs anything else.
pub(crate) fn entries<S: Source>(node: &S, log: &mut Log<S>, mut each: impl FnMut(&str, &S, &mut Log<S>)) {
    match node.view() {
        View::Null => {}
        View::Map(m) => {
            for (k, v) in S::entries(m) {
                each(k, v, log);
            }
        }
        _ => log.push((node.place(), "must be a mapping".to_owned())),
    }
}
