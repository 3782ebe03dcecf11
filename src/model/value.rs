//! Untyped values: what stands under `x-*`.

use std::collections::BTreeMap;

use super::record::{Field, Log, Out, Source, Style, View, rfc3339};

/// The `x-*` attributes of a mapping, by full key.
pub type Extensions = BTreeMap<String, Value>;

/// Any YAML value.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Any integer of YAML.
    Int(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// Text.
    String(String),
    /// A timestamp, as Go prints it.
    Time(String),
    /// A list.
    List(Vec<Value>),
    /// A mapping.
    Map(BTreeMap<String, Value>),
}

impl Field for Value {
    fn decode<S: Source>(node: &S, log: &mut Log<S>) -> Self {
        match node.view() {
            View::Null => Self::Null,
            View::Bool(b) => Self::Bool(b),
            View::Int(i) => Self::Int(i),
            View::Float(f) => Self::Float(f),
            View::Str(s) => Self::String(s.to_owned()),
            View::Time(t) => Self::Time(t.to_owned()),
            View::List(l) => Self::List(l.iter().map(|n| Self::decode(n, log)).collect()),
            View::Map(m) => {
                Self::Map(S::entries(m).map(|(k, n)| (k.to_owned(), Self::decode(n, log))).collect())
            }
        }
    }

    #[expect(clippy::only_used_in_recursion, reason = "the same in both renderings")]
    fn render(&self, style: Style) -> Out {
        match self {
            Self::Null => Out::Null,
            Self::Bool(b) => Out::Bool(*b),
            Self::Int(i) => Out::Int(*i),
            Self::Float(f) => Out::Float(*f),
            Self::String(s) => Out::Str(s.clone()),
            Self::Time(t) => Out::Time(rfc3339(t)),
            Self::List(l) => Out::List(l.iter().map(|v| v.render(style)).collect()),
            Self::Map(m) => Out::Map(m.iter().map(|(k, v)| (k.clone(), v.render(style))).collect()),
        }
    }

    fn omit(&self, _: Style) -> bool {
        false
    }
}
