//! Judges one response.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use hickory_resolver::{
    net::NoRecords,
    proto::{
        op::{Message, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType, rdata::CNAME},
    },
};
use tower_sd_core::{Error, ErrorKind, Result};

use crate::{BACKEND, query::shown};

/// The result of a lookup.
#[derive(Debug)]
pub(crate) enum Answer {
    Found(Found),
    /// There are no records, authoritatively.
    Nothing {
        ttl: Duration,
    },
}

/// Records of the wanted type, and the time of their validity.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) records: Vec<RData>,
    /// The least of all records on the way.
    pub(crate) ttl: Duration,
    /// Addresses of the additional section.
    pub(crate) glue: Vec<(Name, IpAddr)>,
}

/// The result of one response.
#[derive(Debug)]
pub(crate) enum Step {
    Found(Found),
    Nothing {
        ttl: Duration,
    },
    /// The records are those of this name.
    Alias {
        target: Name,
        ttl: Duration,
    },
}

/// Judges a response that is no error and has an answer section.
pub(crate) fn judge(response: &Message, asked: &Name, kind: RecordType) -> Result<Step> {
    check_question(response.queries.first(), asked, kind)?;
    let (name, alias_ttl) = follow_aliases(response, asked)?;
    let mut ttl = alias_ttl;
    let mut records = Vec::new();
    let answers = response.answers.iter();
    for record in answers.filter(|it| it.name == name && it.record_type() == kind) {
        ttl = ttl.min(ttl_of(record));
        records.push(record.data.clone());
    }
    if !records.is_empty() {
        let glue = glue(response, asked, &records, &mut ttl);
        return Ok(Step::Found(Found { records, ttl, glue }));
    }
    let soa = response.authorities.iter().find_map(negative_ttl);
    if soa.is_some() || response.response_code == ResponseCode::NXDomain {
        return Ok(Step::Nothing { ttl: soa.unwrap_or_default().min(MAX_NEGATIVE).min(ttl) });
    }
    if name == *asked {
        return Err(garbled(asked, "the response has no record of it"));
    }
    Ok(Step::Alias { target: name, ttl })
}

/// Judges a response without an answer.
pub(crate) fn judge_none(none: &NoRecords, asked: &Name, kind: RecordType) -> Result<Step> {
    check_question(Some(&none.query), asked, kind)?;
    if none.soa.is_none() && none.ns.is_some() {
        return Err(Error::new(ErrorKind::Unavailable, BACKEND, "follow").with_message(format!(
            "query for {}: the server only refers to others; a recursive one is needed",
            shown(asked)
        )));
    }
    // RFC 2308 §5: without a SOA it must not be cached.
    let ttl = none.negative_ttl.map_or(Duration::ZERO, seconds);
    Ok(Step::Nothing { ttl: ttl.min(MAX_NEGATIVE) })
}

/// Over TCP, hickory compares the id alone.
fn check_question(question: Option<&Query>, asked: &Name, kind: RecordType) -> Result<()> {
    match question.is_some_and(|it| it.name() == asked && it.query_type() == kind) {
        true => Ok(()),
        false => Err(garbled(asked, "the response is to another question")),
    }
}

/// The name at the end of the aliases in this response, and the least TTL of them.
fn follow_aliases(response: &Message, asked: &Name) -> Result<(Name, Duration)> {
    let (mut name, mut ttl) = (asked.clone(), Duration::MAX);
    let mut seen = HashSet::from([name.clone()]);
    let alias = |name: &Name| {
        response.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(CNAME(target)) if record.name == *name => Some((target.clone(), record)),
            _ => None,
        })
    };
    while let Some((target, record)) = alias(&name) {
        if !seen.insert(target.clone()) {
            return Err(garbled(asked, "its aliases form a circle"));
        }
        (name, ttl) = (target, ttl.min(ttl_of(record)));
    }
    Ok((name, ttl))
}

/// The addresses of SRV targets in the additional section. Others are ignored.
fn glue(
    response: &Message,
    asked: &Name,
    records: &[RData],
    ttl: &mut Duration,
) -> Vec<(Name, IpAddr)> {
    let targets: HashSet<&Name> = records
        .iter()
        .filter_map(|record| match record {
            RData::SRV(srv) => Some(&srv.target),
            _ => None,
        })
        .collect();
    let mut glue = Vec::new();
    for record in &response.additionals {
        let wanted = targets.contains(&record.name)
            && in_bailiwick(response.metadata.authoritative, asked, &record.name);
        if let Some(ip) = record.data.ip_addr().filter(|_| wanted) {
            *ttl = (*ttl).min(ttl_of(record));
            glue.push((record.name.clone(), ip));
        }
    }
    glue
}

/// Whether a server that answers for `asked` is trusted with `name` too.
///
/// They must share two labels (`example.org`). One (`consul`, a top level of its own) is enough for
/// a server that answers with authority.
fn in_bailiwick(authoritative: bool, asked: &Name, name: &Name) -> bool {
    let shared = if authoritative { 1 } else { 2 };
    name.num_labels() >= shared && asked.trim_to(usize::from(shared)).zone_of(name)
}

fn negative_ttl(record: &Record) -> Option<Duration> {
    match &record.data {
        RData::SOA(soa) => Some(ttl_of(record).min(seconds(soa.minimum))),
        _ => None,
    }
}

fn ttl_of(record: &Record) -> Duration {
    seconds(record.ttl)
}

/// RFC 2181 §8: with the top bit set it is zero.
fn seconds(ttl: u32) -> Duration {
    let ttl = if ttl > u32::MAX / 2 { 0 } else { ttl };
    Duration::from_secs(ttl.into())
}

fn garbled(asked: &Name, why: &str) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, "follow")
        .with_message(format!("query for {}: {why}", shown(asked)))
}

/// A zone's SOA often has an hour, for names that are mistyped, not for services about to start.
const MAX_NEGATIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::OpCode,
        rr::rdata::{A, SOA},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    #[test]
    fn negative_ttl_is_at_most_a_minute() {
        let asked = name("a.lab.test.");
        let query = Query::query(asked.clone(), RecordType::A);
        let mut none = NoRecords::new(Box::new(query.clone()), ResponseCode::NXDomain);
        none.negative_ttl = Some(3600);
        let nothing = judge_none(&none, &asked, RecordType::A).expect("it is an answer");
        assert!(matches!(nothing, Step::Nothing { ttl } if ttl == MAX_NEGATIVE), "{nothing:?}");

        let mut response = Message::response(1, OpCode::Query);
        response.add_query(query);
        let alias = RData::CNAME(CNAME(name("gone.lab.test.")));
        response.add_answers([Record::from_rdata(asked.clone(), 3600, alias)]);
        let soa = SOA::new(name("ns.lab.test."), name("me.lab.test."), 1, 60, 60, 60, 3600);
        let soa = Record::from_rdata(name("lab.test."), 3600, RData::SOA(soa));
        response.add_authorities([soa]);
        let nothing = judge(&response, &asked, RecordType::A).expect("it is an answer");
        assert!(matches!(nothing, Step::Nothing { ttl } if ttl == MAX_NEGATIVE), "{nothing:?}");
    }

    #[test]
    fn answer_about_another_name_is_no_answer() {
        let asked = name("a.lab.test.");
        let mut response = Message::response(1, OpCode::Query);
        response.add_query(Query::query(asked.clone(), RecordType::A));
        let of_other = RData::A(A([6, 6, 6, 6].into()));
        response.add_answers([Record::from_rdata(name("b.lab.test."), 60, of_other)]);
        judge(&response, &asked, RecordType::A).expect_err("neither data nor a negative answer");
        let mine = RData::A(A([10, 0, 0, 1].into()));
        response.add_answers([Record::from_rdata(asked.clone(), 60, mine.clone())]);
        let step = judge(&response, &asked, RecordType::A).expect("one is ours");
        assert!(matches!(&step, Step::Found(found) if found.records == [mine]), "{step:?}");
    }
}
