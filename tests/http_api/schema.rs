//! Whether a JSON value is what an OpenAPI 3.1 document says: the part of JSON Schema that ours uses, and strictly: a
//! member that is not documented is a fault, too.

use serde_json::Value;

/// What is wrong with `value`, each fault with its place.
pub fn faults(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#')).expect("the reference leads somewhere");
        return faults(document, found, value, place);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return faults(document, &merged(document, parts), value, place);
    }
    for any in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[any].as_array() {
            let all: Vec<Vec<String>> = choices.iter().map(|choice| faults(document, choice, value, place)).collect();
            let fits = all.iter().filter(|faults| faults.is_empty()).count();
            return if fits > 0 { Vec::new() } else { all.into_iter().flatten().collect() };
        }
    }
    let mut found = Vec::new();
    if !has_type(&schema["type"], value) {
        found.push(format!("{place}: {value} is not of type {}", schema["type"]));
        return found;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{place}: {value} is none of {allowed:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        found.push(format!("{place}: {number} < {least}"));
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.extend(faults(document, &schema["items"], item, &format!("{place}[{index}]")));
            }
        }
        Value::Object(members) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !members.contains_key(name) {
                    found.push(format!("{place}: {name} is missing"));
                }
            }
            for (name, member) in members {
                let place = format!("{place}.{name}");
                match (schema["properties"].get(name), schema.get("additionalProperties")) {
                    (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                        found.extend(faults(document, schema, member, &place));
                    }
                    _ => found.push(format!("{place} is not documented")),
                }
            }
        }
        Value::String(text) if schema["format"] == "date-time" && !is_utc(text) => {
            found.push(format!("{place}: {text:?} is no time in UTC"));
        }
        _ => {}
    }
    found
}

fn is_utc(text: &str) -> bool {
    chrono::DateTime::parse_from_rfc3339(text).is_ok() && text.ends_with('Z')
}

/// One schema of objects with the members of all of these.
fn merged(document: &Value, parts: &[Value]) -> Value {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for part in parts {
        let part = match part["$ref"].as_str() {
            Some(reference) => {
                document.pointer(reference.trim_start_matches('#')).expect("the reference leads somewhere")
            }
            None => part,
        };
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    serde_json::json!({ "type": "object", "properties": properties, "required": required })
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Array(any) => any.iter().any(|wanted| has_type(wanted, value)),
        Value::String(wanted) => match wanted.as_str() {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("unknown type {other}"),
        },
        _ => true,
    }
}
