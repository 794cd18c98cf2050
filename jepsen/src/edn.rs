//! EDN, the notation of Jepsen's histories, as far as histories need it.
//!
//! Invariant: what is written is read back as the same values. Keys of maps, and an operation's type and function, are
//! keywords.
//!
//! Deliberately absent: sets, lists, tags, characters and symbols other than `nil`, `true` and `false`.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{Map, Number, Value};

use crate::op::{Kind, Op, Process};

/// Deepest nesting that is read.
const DEPTH: usize = 32;

/// An operation as one line, without its end.
#[must_use]
pub fn write_op(op: &Op) -> String {
    let kind = match op.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let process = match op.process {
        Process::Client(number) => number.to_string(),
        Process::Nemesis => ":nemesis".to_owned(),
    };
    let mut text = format!(
        "{{:index {}, :time {}, :type :{kind}, :process {process}, :f :{}, :value ",
        op.index, op.time, op.f
    );
    write(&op.value, &mut text);
    text.push('}');
    text
}

/// Writes a value.
pub fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(yes) => text.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        Value::String(string) => write_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { " " } else { "" });
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                let _ = write!(text, "{}:{key} ", if at > 0 { ", " } else { "" });
                write(item, text);
            }
            text.push('}');
        }
    }
}

fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            other if other.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(other));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

/// Reads one line of a history.
///
/// # Errors
/// If it is not an operation.
pub fn read_op(line: &str) -> Result<Op> {
    let mut value = read(line)?;
    let number = |value: &Value, key: &str| {
        value[key].as_u64().with_context(|| format!("no :{key} in {value}"))
    };
    let process = match &value["process"] {
        Value::String(name) if name == "nemesis" => Process::Nemesis,
        other => Process::Client(other.as_u64().with_context(|| format!("process {other}"))?),
    };
    Ok(Op {
        index: number(&value, "index")?,
        time: number(&value, "time")?,
        kind: serde_json::from_value(value["type"].take())?,
        process,
        f: value["f"].as_str().context("no :f")?.to_owned(),
        value: value["value"].take(),
    })
}

/// Reads a value; keywords become strings.
///
/// # Errors
/// If it is not EDN, or of a kind that is not read here.
pub fn read(text: &str) -> Result<Value> {
    let mut reader = Reader { text, rest: text.char_indices().peekable() };
    let value = reader.value(0)?;
    reader.skip();
    match reader.rest.next() {
        None => Ok(value),
        Some((at, _)) => bail!("something stands behind the value: {:?}", &text[at..]),
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    fn skip(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_whitespace() || *c == ',').is_some() {}
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        ensure!(depth < DEPTH, "nested deeper than {DEPTH}");
        self.skip();
        let &(_, first) = self.rest.peek().context("a value is missing")?;
        match first {
            '{' => self.map(depth),
            '[' => self.vector(depth),
            '"' => self.string(),
            ':' => {
                self.rest.next();
                Ok(Value::String(self.word().to_owned()))
            }
            _ => match self.word() {
                "nil" => Ok(Value::Null),
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                word => {
                    let number: Number =
                        word.parse().with_context(|| format!("{word:?} is no value"))?;
                    Ok(Value::Number(number))
                }
            },
        }
    }

    /// The text up to the next end of a word.
    fn word(&mut self) -> &str {
        let start = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        let ends = |c: char| c.is_whitespace() || ",{}[]\"".contains(c);
        while self.rest.next_if(|(_, c)| !ends(*c)).is_some() {}
        let end = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        &self.text[start..end]
    }

    fn vector(&mut self, depth: usize) -> Result<Value> {
        self.rest.next();
        let mut items = Vec::new();
        loop {
            self.skip();
            if self.rest.next_if(|(_, c)| *c == ']').is_some() {
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        self.rest.next();
        let mut map = Map::new();
        loop {
            self.skip();
            if self.rest.next_if(|(_, c)| *c == '}').is_some() {
                return Ok(Value::Object(map));
            }
            let Value::String(key) = self.value(depth + 1)? else { bail!("a key is no keyword") };
            map.insert(key, self.value(depth + 1)?);
        }
    }

    fn string(&mut self) -> Result<Value> {
        self.rest.next();
        let mut string = String::new();
        loop {
            match self.rest.next().context("a string does not end")?.1 {
                '"' => return Ok(Value::String(string)),
                '\\' => match self.rest.next().context("a string does not end")?.1 {
                    'n' => string.push('\n'),
                    'r' => string.push('\r'),
                    't' => string.push('\t'),
                    'u' => {
                        let digits: String =
                            self.rest.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16)?;
                        string.push(char::from_u32(code).context("half a character")?);
                    }
                    other => string.push(other),
                },
                other => string.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_go_round() {
        for value in [
            json!(null),
            json!([true, false, 0, -7, u64::MAX, 1.5]),
            json!({ "a": { "b-c": [[], {}, "d"] }, "e": null }),
            json!("quote \" slash \\ line \n tab \t bell \u{7} é 狐"),
            json!(""),
        ] {
            let mut text = String::new();
            write(&value, &mut text);
            assert_eq!(read(&text).unwrap(), value, "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn operations_look_as_jepsen_writes_them() {
        let op = Op {
            index: 7,
            time: 1_500,
            kind: Kind::Invoke,
            process: Process::Client(3),
            f: "publish".to_owned(),
            value: json!({ "id": "a-1", "position": null }),
        };
        let text = "{:index 7, :time 1500, :type :invoke, :process 3, :f :publish, \
                    :value {:id \"a-1\", :position nil}}";
        assert_eq!(write_op(&op), text);
        assert_eq!(read_op(text).unwrap(), op);
        let nemesis = Op { process: Process::Nemesis, kind: Kind::Info, ..op };
        assert_eq!(read_op(&write_op(&nemesis)).unwrap(), nemesis);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(100);
        for text in ["", "[", "{:a", "{1 2}", "\"a", "\"\\u12", "1 2", "(1)", "#{1}", &deep] {
            assert!(read(text).is_err(), "{text}");
        }
        for text in ["{}", "{:index 1}", "7", "{:index 1, :time 1, :type :odd, :process 1, :f :a}"]
        {
            assert!(read_op(text).is_err(), "{text}");
        }
    }
}
