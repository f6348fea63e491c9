//! What the service does, without any network.

use std::{error, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name under which servers announce themselves.
pub(crate) const NAME: &str = "arithmetic";

/// The answer on the wire: one of the two is there.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    pub(crate) result: Option<i64>,
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// What is wrong with a calculation: always the caller's fault.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Mistake {
    DivisionByZero,
    NoNumber(String),
    NoOperation(String),
    Overflow,
}

/// Parses and calculates. Pure: called twice, it answers the same and has changed nothing.
pub(crate) fn calculate(operation: &str, a: &str, b: &str) -> Result<i64, Mistake> {
    let (operation, a, b) = parse(operation, a, b)?;
    operation.apply(a, b)
}

pub(crate) fn parse(operation: &str, a: &str, b: &str) -> Result<(Operation, i64, i64), Mistake> {
    Ok((operation.parse()?, number(a)?, number(b)?))
}

fn number(text: &str) -> Result<i64, Mistake> {
    text.parse().map_err(|_cause| Mistake::NoNumber(text.to_owned()))
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide];

    pub(crate) fn apply(self, a: i64, b: i64) -> Result<i64, Mistake> {
        let result = match self {
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide if b == 0 => return Err(Mistake::DivisionByZero),
            Self::Divide => a.checked_div(b),
        };
        result.ok_or(Mistake::Overflow)
    }
}

impl FromStr for Operation {
    type Err = Mistake;

    fn from_str(name: &str) -> Result<Self, Mistake> {
        let named = Self::ALL.into_iter().find(|operation| operation.to_string() == name);
        named.ok_or_else(|| Mistake::NoOperation(name.to_owned()))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DivisionByZero => f.write_str("division by zero has no result"),
            Self::NoNumber(text) => write!(f, "{text:?} is not an integer of 64 bits"),
            Self::NoOperation(name) => {
                write!(f, "{name:?} is not one of Add, Subtract, Multiply, Divide")
            }
            Self::Overflow => f.write_str("the result does not fit into 64 bits"),
        }
    }
}

impl error::Error for Mistake {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_operations_calculate_with_integers() {
        assert_eq!(calculate("Add", "2", "3"), Ok(5));
        assert_eq!(calculate("Subtract", "2", "3"), Ok(-1));
        assert_eq!(calculate("Multiply", "-2", "3"), Ok(-6));
        assert_eq!(calculate("Divide", "7", "-2"), Ok(-3));
    }

    #[test]
    fn every_mistake_has_its_sentence() {
        let sentence =
            |operation, a, b| calculate(operation, a, b).expect_err("a mistake").to_string();
        assert_eq!(sentence("Divide", "1", "0"), "division by zero has no result");
        assert_eq!(sentence("Add", "x", "0"), "\"x\" is not an integer of 64 bits");
        assert_eq!(
            sentence("Power", "1", "0"),
            "\"Power\" is not one of Add, Subtract, Multiply, Divide"
        );
        let least = i64::MIN.to_string();
        let too_large = "the result does not fit into 64 bits";
        assert_eq!(sentence("Divide", &least, "-1"), too_large);
        assert_eq!(sentence("Subtract", &least, "1"), too_large);
    }
}
