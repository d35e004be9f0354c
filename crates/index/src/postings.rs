//! Lists of series ids, and how matchers select from them.

use std::collections::HashSet;

use roaring::RoaringBitmap;

use crate::matcher::{CompiledMatcher, Selects};

/// The ids of the series that have one label pair, sorted.
#[derive(Clone, Debug)]
pub enum Postings<'a> {
    /// A short list.
    Ids(&'a [u32]),
    /// A long one.
    Bitmap(&'a RoaringBitmap),
    /// One that was made for the question.
    Owned(RoaringBitmap),
}

impl Postings<'_> {
    /// How many ids.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Ids(ids) => ids.len() as u64,
            Self::Bitmap(bitmap) => bitmap.len(),
            Self::Owned(bitmap) => bitmap.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the ids to `into`.
    pub fn union_into(&self, into: &mut RoaringBitmap) {
        match self {
            Self::Ids(ids) => into.extend(ids.iter().copied()),
            Self::Bitmap(bitmap) => *into |= *bitmap,
            Self::Owned(bitmap) => *into |= bitmap,
        }
    }

    /// Removes the ids from `from`.
    pub fn subtract_from(&self, from: &mut RoaringBitmap) {
        match self {
            Self::Ids(ids) => ids.iter().for_each(|id| {
                from.remove(*id);
            }),
            Self::Bitmap(bitmap) => *from -= *bitmap,
            Self::Owned(bitmap) => *from -= bitmap,
        }
    }

    /// Keeps of `of` what is here too.
    pub fn intersect_with(&self, of: &mut RoaringBitmap) {
        match self {
            Self::Ids(ids) => *of = ids.iter().copied().filter(|id| of.contains(*id)).collect(),
            Self::Bitmap(bitmap) => *of &= *bitmap,
            Self::Owned(bitmap) => *of &= bitmap,
        }
    }

    /// Whether one of the ids is in `other`.
    #[must_use]
    pub fn intersects(&self, other: &RoaringBitmap) -> bool {
        match self {
            Self::Ids(ids) => ids.iter().any(|id| other.contains(*id)),
            Self::Bitmap(bitmap) => !bitmap.is_disjoint(other),
            Self::Owned(bitmap) => !bitmap.is_disjoint(other),
        }
    }

    fn into_bitmap(self) -> RoaringBitmap {
        match self {
            Self::Ids(ids) => ids.iter().copied().collect(),
            Self::Bitmap(bitmap) => bitmap.clone(),
            Self::Owned(bitmap) => bitmap,
        }
    }
}

/// An inverted index: label pairs to series ids, with a way back.
pub trait PostingsSource {
    /// What can go wrong.
    type Error;

    /// All series.
    fn all(&self) -> Result<Postings<'_>, Self::Error>;

    /// The series whose label `name` has `value`; `value` is not empty.
    fn postings(&self, name: &str, value: &str) -> Result<Postings<'_>, Self::Error>;

    /// How many values label `name` has. Cheap.
    fn values_count(&self, name: &str) -> Result<u64, Self::Error>;

    /// Calls `visit` for each value of label `name` that begins with `prefix`, in order.
    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, Postings<'_>),
    ) -> Result<(), Self::Error>;

    /// Those of `ids` whose value of label `name` (empty where they lack it) `keep` accepts.
    fn filter(
        &self,
        name: &str,
        ids: &RoaringBitmap,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Self::Error>;
}

/// What one matcher asks for.
///
/// Every matcher is one of two kinds: it needs the label to be set (it refuses the empty value) and then selects the
/// union of some values' lists, or it does not and then takes the union of the *other* values' lists away.
struct Term<'m> {
    matcher: &'m CompiledMatcher,
    /// Intersect with the union, or subtract it.
    intersect: bool,
    /// The union is over the values that the matcher's positive form accepts, or over those it refuses.
    accepted: bool,
}

impl Term<'_> {
    /// The values of the union, where they need not be searched.
    fn literals(&self) -> Option<&[Box<str>]> {
        match self.matcher.selects() {
            Selects::Literals(texts) if self.accepted => Some(texts),
            _ => None,
        }
    }

    fn union<S: PostingsSource>(&self, source: &S) -> Result<RoaringBitmap, S::Error> {
        let mut union = RoaringBitmap::new();
        if let Some(texts) = self.literals() {
            for text in texts {
                source.postings(self.matcher.name(), text)?.union_into(&mut union);
            }
            return Ok(union);
        }
        let prefix = match self.matcher.selects() {
            Selects::Scan { prefix } if self.accepted => prefix,
            _ => "",
        };
        source.for_each_value(self.matcher.name(), prefix, &mut |value, postings| {
            if self.matcher.matches_positive(value) == self.accepted {
                postings.union_into(&mut union);
            }
        })?;
        Ok(union)
    }

    /// Reduces `candidates` to what the term leaves of them, by whichever way is shorter: over the label's values or
    /// over the candidates' labels.
    fn apply<S: PostingsSource>(&self, source: &S, candidates: &mut RoaringBitmap) -> Result<(), S::Error> {
        let name = self.matcher.name();
        if let Some(texts) = self.literals() {
            if let ([one], true) = (texts, self.intersect) {
                source.postings(name, one)?.intersect_with(candidates);
                return Ok(());
            }
            if !self.intersect && texts.len() as u64 <= candidates.len() {
                for text in texts {
                    source.postings(name, text)?.subtract_from(candidates);
                }
                return Ok(());
            }
        }
        let to_visit = match self.literals() {
            Some(texts) => texts.len() as u64,
            None => source.values_count(name)?,
        };
        if candidates.len() < to_visit {
            *candidates = source.filter(name, candidates, &mut |value| self.matcher.matches(value))?;
        } else if self.intersect {
            *candidates &= self.union(source)?;
        } else {
            *candidates -= self.union(source)?;
        }
        Ok(())
    }
}

/// The series of `source` that meet all of `matchers`; all series when there is none.
///
/// # Errors
/// Those of the source.
pub fn resolve<S: PostingsSource>(
    source: &S,
    matchers: &[CompiledMatcher],
) -> Result<RoaringBitmap, S::Error> {
    let mut direct: Vec<(u64, Term<'_>)> = Vec::new();
    let mut searched: Vec<(u64, Term<'_>)> = Vec::new();
    let mut subtracted: Vec<Term<'_>> = Vec::new();
    let mut seen = HashSet::new();
    for matcher in matchers {
        if !seen.insert(matcher.matcher()) {
            continue;
        }
        if matcher.selects() == Selects::Anything {
            if matcher.is_negated() {
                return Ok(RoaringBitmap::new());
            }
            continue;
        }
        let intersect = !matcher.matches_empty();
        let term = Term { matcher, intersect, accepted: intersect != matcher.is_negated() };
        if !intersect {
            subtracted.push(term);
        } else if let Some(texts) = term.literals() {
            let mut cardinality = 0;
            for text in texts {
                cardinality += source.postings(matcher.name(), text)?.len();
            }
            if cardinality == 0 {
                return Ok(RoaringBitmap::new());
            }
            direct.push((cardinality, term));
        } else {
            searched.push((source.values_count(matcher.name())?, term));
        }
    }
    // Smallest first: each step then works on no more than the smallest list. Negatives come last, on what is left.
    direct.sort_by_key(|(cardinality, _)| *cardinality);
    searched.sort_by_key(|(values, _)| *values);
    let mut terms = direct.iter().chain(&searched).map(|(_, term)| term);
    let mut candidates = match terms.next() {
        Some(first) => match first.literals() {
            Some([one]) => source.postings(first.matcher.name(), one)?.into_bitmap(),
            _ => first.union(source)?,
        },
        None => source.all()?.into_bitmap(),
    };
    for term in terms.chain(&subtracted) {
        if candidates.is_empty() {
            break;
        }
        term.apply(source, &mut candidates)?;
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests;
