//! How much work values take: it grows linearly with their contents.
//!
//! Deliberately absent: what the results are (`value`).

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::types::limits;

/// All nodes do this at the same position in the order, and everything waits for it.
#[test]
fn the_work_grows_with_the_fields_and_not_with_their_square() {
    const FIELDS: usize = 100_000;
    let object = |names: Range<usize>| {
        Value::Dict(names.map(|name| (name.to_string(), Value::Int(1))).collect())
    };
    let (a, b) = (object(0..FIELDS), object(FIELDS / 2..FIELDS + FIELDS / 2));
    let started = Instant::now();
    assert!(fits(&a, &object(0..FIELDS)) && !fits(&a, &b));
    assert!(fits(&Value::List(vec![a.clone()]), &Value::List(vec![a.clone()])));
    assert_eq!(merged(a, b), object(0..FIELDS + FIELDS / 2));
    // The square is ten thousand million comparisons of names.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// A list of objects in each other, compared with itself: no level may double the work.
#[test]
fn the_work_does_not_double_with_each_level() {
    let deep = (0..limits::CONDITION_DEPTH)
        .fold(Value::Int(1), |inner, _| Value::Dict(vec![("a".into(), inner)]));
    let started = Instant::now();
    assert!(fits(&Value::List(vec![deep.clone()]), &Value::List(vec![deep])));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_value_is_indexed_once_for_all_that_wait_for_it() {
    const FIELDS: i64 = 100_000;
    let fields = (0..FIELDS).map(|at| (at.to_string(), Value::Int(at))).collect();
    let value = Value::Dict(vec![("x".into(), Value::Dict(fields))]);
    let compared = Compared::new(&value);
    let started = Instant::now();
    for _ in 0..limits::TOPIC_WAITERS {
        assert!(!compared.fits(&json(r#"{"x":{"0":0,"1":2}}"#)));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
