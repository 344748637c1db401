//! Numbers taken from histograms: sparse counts, which can be subtracted, added up and asked for quantiles.

use hdrhistogram::Histogram;

/// Counts of latencies, by ascending microseconds; values that nobody had are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<(u64, u64)>);

impl Counts {
    /// Everything that a histogram has counted.
    pub fn of(histogram: &Histogram<u64>) -> Counts {
        let recorded = histogram.iter_recorded();
        Counts(recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// What has come since `before`, which must be of the same histogram.
    pub fn since(&self, before: &Counts) -> Counts {
        let mut earlier = before.0.iter().peekable();
        let difference = self.0.iter().filter_map(|(value, count)| {
            while earlier.next_if(|(known, _)| known < value).is_some() {}
            let known = earlier.next_if(|(known, _)| known == value).map_or(0, |(_, count)| *count);
            (*count > known).then(|| (*value, count - known))
        });
        Counts(difference.collect())
    }

    /// All of these together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Counts {
        let mut together: Vec<(u64, u64)> = all.into_iter().flat_map(|counts| counts.0.iter().copied()).collect();
        together.sort_unstable();
        let mut sum: Vec<(u64, u64)> = Vec::with_capacity(together.len());
        for (value, count) in together {
            match sum.last_mut() {
                Some((last, sum)) if *last == value => *sum += count,
                _ => sum.push((value, count)),
            }
        }
        Counts(sum)
    }

    /// How many latencies.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The latency that this part of all did not exceed; none where there are none.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let wanted = ((quantile * self.len() as f64).ceil() as u64).max(1);
        let mut passed = 0;
        self.0.iter().find_map(|(value, count)| {
            passed += count;
            (passed >= wanted).then_some(*value)
        })
    }

    /// The greatest.
    pub fn max(&self) -> Option<u64> {
        self.0.last().map(|(value, _)| *value)
    }

    /// How many are in each bucket whose upper bounds these are, ascending, and how many are beyond the last.
    pub fn in_buckets(&self, bounds_us: &[u64]) -> Vec<u64> {
        let mut buckets = vec![0; bounds_us.len() + 1];
        for (value, count) in &self.0 {
            buckets[bounds_us.partition_point(|bound| bound < value)] += count;
        }
        buckets
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap()
    }

    #[test]
    fn a_difference_has_the_quantiles_of_what_came_since() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut all, mut before, mut after) = (histogram(), histogram(), histogram());
        for place in 0..20_000 {
            let value = 1u64 << random.random_range(0..28);
            let value = value + random.random_range(0..value);
            all.record(value).unwrap();
            if place < 5_000 { before.record(value) } else { after.record(value) }.unwrap();
        }
        let since = Counts::of(&all).since(&Counts::of(&before));
        assert_eq!(since, Counts::of(&after));
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let expected = after.highest_equivalent(after.value_at_quantile(quantile));
            assert_eq!(since.quantile(quantile), Some(expected), "{quantile}");
        }
        assert_eq!(Counts::sum([&since, &Counts::of(&before)]), Counts::of(&all));
        assert_eq!((since.len(), since.max()), (15_000, Some(after.max())));
    }

    #[test]
    fn each_latency_is_in_the_first_bucket_that_it_does_not_exceed() {
        let counts = Counts(vec![(0, 1), (16, 2), (17, 3), (99, 4)]);
        assert_eq!(counts.in_buckets(&[16, 23]), [3, 3, 4]);
        assert_eq!(Counts::default().quantile(0.5), None);
    }
}
