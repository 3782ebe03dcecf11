//! The tables of the loader as a JSON Schema (draft 7, which editors read), for completion
//! and checks while a compose file is written.
//!
//! It describes files as they are written, not as they are after interpolation: wherever a number,
//! a flag or one of some words is expected, text with a `$` in it is right, too.

use serde_json::{Map, Value, json};

use super::schema::{CONTAINER_NAME, NAME, Object, PROJECT, PULL_POLICY, Shape};

/// The schema of a compose file. `hoist schema compose` prints it; `schemas/compose.json` is it.
pub fn compose() -> Value {
    let mut definitions = Map::new();
    let Shape::Object(project) = &PROJECT else { return Value::Null };
    let mut root = object(project, &mut definitions);
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["title"] = "Compose file".into();
    root["definitions"] = Value::Object(definitions);
    root
}

fn schema(shape: &Shape, definitions: &mut Map<String, Value>) -> Value {
    let or_variable = |other: Value| json!({ "anyOf": [other, { "type": "string", "pattern": "\\$" }] });
    match shape {
        Shape::Null => json!({ "type": "null" }),
        Shape::Bool => or_variable(json!({ "type": "boolean" })),
        Shape::Int(low, high) => {
            let mut integer = json!({ "type": "integer" });
            if *low != i64::MIN {
                integer["minimum"] = (*low).into();
            }
            if *high != i64::MAX {
                integer["maximum"] = (*high).into();
            }
            or_variable(integer)
        }
        Shape::Num => or_variable(json!({ "type": "number" })),
        Shape::Str => json!({ "type": "string" }),
        Shape::Enum(values) => or_variable(json!({ "type": "string", "enum": values })),
        Shape::PullPolicy => json!({ "type": "string", "pattern": format!("{PULL_POLICY}|\\$") }),
        Shape::ContainerName => json!({ "type": "string", "pattern": format!("{CONTAINER_NAME}|\\$") }),
        Shape::List(item) => json!({ "type": "array", "items": schema(item, definitions) }),
        // That items are not repeated is not asked for here: what is written may become one item
        // only when it is read, and the loader sees to it.
        Shape::Unique(item) => json!({ "type": "array", "items": schema(item, definitions) }),
        Shape::Dict(item) | Shape::Open(item) => json!({
            "type": "object",
            "propertyNames": { "minLength": 1 },
            "additionalProperties": schema(item, definitions),
        }),
        Shape::Named(item) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": schema(item, definitions),
        }),
        Shape::Object(it) => {
            let whole = object(it, definitions);
            // Some have the same name, such as the two kinds of device request.
            let words = it.name.trim_start_matches("an ").trim_start_matches("a ").replace('`', "");
            let base = words.replace(' ', "_");
            let mut name = base.clone();
            let mut number = 1;
            while definitions.get(&name).is_some_and(|known| *known != whole) {
                number += 1;
                name = format!("{base}_{number}");
            }
            definitions.insert(name.clone(), whole);
            json!({ "$ref": format!("#/definitions/{name}") })
        }
        Shape::OneOf(shapes) => {
            let all: Vec<Value> = shapes.iter().map(|one| schema(one, definitions)).collect();
            json!({ "anyOf": all })
        }
    }
}

fn object(object: &Object, definitions: &mut Map<String, Value>) -> Value {
    let keys: Map<String, Value> =
        object.keys.iter().map(|(key, shape)| ((*key).to_owned(), schema(shape, definitions))).collect();
    let mut whole = json!({
        "type": "object",
        "properties": keys,
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    });
    if !object.required.is_empty() {
        whole["required"] = object.required.into();
    }
    whole
}
