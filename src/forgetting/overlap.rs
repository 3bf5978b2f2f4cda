//! Examples that several benchmarks share (the same question in two styles, questions about one image). Their scores are not independent,
//! so a mean over such benchmarks treats a shared example as one observation.

use super::change::{ChangeStats, IntervalMethod};
use crate::stats::{ClusterTotal, Contribution, ResampleUnit, Stratum};
use std::collections::{HashMap, HashSet};

/// Benchmarks that share examples, directly or through others, combined. A benchmark that shares none is alone in its group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OverlapGroup {
    /// What its clusters contribute to the mean change over all benchmarks.
    pub strict: Stratum,
    /// The same of the lenient change.
    pub lenient: Stratum,
    /// The clusters, as the bootstrap draws them; the means over them are the sums of the benchmarks' mean scores.
    pub units: Vec<ResampleUnit>,
}

/// Which benchmarks, and which of their clusters, belong together.
struct Links {
    /// Benchmarks.
    together: DisjointSets,
    /// Clusters of all benchmarks, numbered through.
    joint: DisjointSets,
    /// Number of the first cluster of each benchmark.
    starts: Vec<usize>,
}

impl Links {
    fn of(members: &[&ChangeStats]) -> Links {
        let mut clusters = 0;
        let mut starts = Vec::with_capacity(members.len());
        for member in members {
            starts.push(clusters);
            clusters += member.units.len();
        }
        let (mut together, mut joint) = (DisjointSets::new(members.len()), DisjointSets::new(clusters));
        for places in common(members) {
            let (first, cluster) = places[0];
            for &(other, its) in &places[1..] {
                together.union(first, other);
                joint.union(starts[first] + cluster, starts[other] + its);
            }
        }
        Links { together, joint, starts }
    }
}

/// A number for each cluster of each benchmark, the same for clusters that share something.
pub(super) fn joint_clusters(members: &[&ChangeStats]) -> Vec<Vec<usize>> {
    let Links { mut joint, starts, .. } = Links::of(members);
    let of = |(member, start): (&&ChangeStats, &usize)| {
        (0..member.units.len()).map(|cluster| joint.find(start + cluster)).collect()
    };
    members.iter().zip(&starts).map(of).collect()
}

/// Group the benchmarks by what they share, in order of the first benchmark of each group.
pub(super) fn overlap_groups(members: &[&ChangeStats]) -> Vec<OverlapGroup> {
    let Links { mut together, mut joint, starts } = Links::of(members);
    let roots: Vec<usize> = (0..members.len()).map(|i| together.find(i)).collect();
    let firsts = (0..members.len()).filter(|&i| !roots[..i].contains(&roots[i]));
    let weight = 1.0 / members.len() as f64;
    let mut overlap_group = |first: usize| {
        let own: Vec<usize> = (first..members.len()).filter(|&i| roots[i] == roots[first]).collect();
        if own.len() == 1 {
            let ChangeStats { differences, lenient_differences, units, .. } = members[first];
            let of = |totals| stratum(members[first], totals, weight);
            return OverlapGroup { strict: of(differences), lenient: of(lenient_differences), units: units.clone() };
        }
        // The joint cluster of each cluster of each of these benchmarks, numbered from 0.
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut number = |i: usize, cluster: usize| {
            let next = numbers.len();
            *numbers.entry(joint.find(starts[i] + cluster)).or_insert(next)
        };
        let clusters: Vec<Vec<usize>> =
            own.iter().map(|&i| (0..members[i].units.len()).map(|cluster| number(i, cluster)).collect()).collect();
        let own: Vec<&ChangeStats> = own.iter().map(|&i| members[i]).collect();
        combine(&own, &clusters, numbers.len(), weight)
    };
    firsts.map(&mut overlap_group).collect()
}

/// Clusters that share something, by benchmark and number. What all clusters of a benchmark share (an empty image) is ignored: it
/// distinguishes nothing. So is what only one benchmark has.
fn common(members: &[&ChangeStats]) -> Vec<Vec<(usize, usize)>> {
    let mut places: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    for (i, member) in members.iter().enumerate() {
        for (cluster, names) in member.shares.iter().enumerate() {
            let names: HashSet<&str> = names.iter().map(String::as_str).collect();
            names.into_iter().for_each(|name| places.entry(name).or_default().push((i, cluster)));
        }
    }
    let useful = |places: &Vec<(usize, usize)>| {
        let of = |i: usize| places.iter().filter(|place| place.0 == i).count();
        let several = places.iter().any(|place| place.0 != places[0].0);
        several && places.iter().all(|&(i, _)| members[i].units.len() == 1 || of(i) < members[i].units.len())
    };
    places.into_values().filter(useful).collect()
}

/// What the clusters of a benchmark contribute to a mean in which it counts `weight` times. The same weights with the same scores have not
/// changed, whatever the examples.
fn stratum(member: &ChangeStats, totals: &[ClusterTotal], weight: f64) -> Stratum {
    match member.change.method {
        IntervalMethod::Same => Stratum::unchanged(totals.len()),
        _ => Stratum::new(totals, weight),
    }
}

/// Benchmarks that share clusters; `clusters` holds the number, below `count`, of the joint cluster of each cluster of each.
fn combine(members: &[&ChangeStats], clusters: &[Vec<usize>], count: usize, weight: f64) -> OverlapGroup {
    let join = |of: fn(&ChangeStats) -> &[ClusterTotal]| {
        let own: Vec<Stratum> = members.iter().map(|member| stratum(member, of(member), weight)).collect();
        joined(&own, clusters, count)
    };
    let mut units = vec![ResampleUnit { first: 0.0, second: 0.0, count: 1.0 }; count];
    for (member, clusters) in members.iter().zip(clusters) {
        let weight = count as f64 / member.units.iter().map(|unit| unit.count).sum::<f64>();
        for (unit, &cluster) in member.units.iter().zip(clusters) {
            units[cluster].first += weight * unit.first;
            units[cluster].second += weight * unit.second;
        }
    }
    OverlapGroup {
        strict: join(|member| &member.differences),
        lenient: join(|member| &member.lenient_differences),
        units,
    }
}

/// Strata whose clusters are joint, as one; `clusters` holds the number, below `count`, of the joint cluster of each cluster of each.
pub(super) fn joined(strata: &[Stratum], clusters: &[Vec<usize>], count: usize) -> Stratum {
    let mut joint = Stratum { clusters: vec![Contribution::default(); count], degrees: (count as f64 - 1.0).max(1.0) };
    for (own, clusters) in strata.iter().zip(clusters) {
        joint.degrees = joint.degrees.min(own.degrees.max(1.0));
        own.clusters.iter().zip(clusters).for_each(|(&one, &at)| joint.clusters[at] = joint.clusters[at].and(one));
    }
    joint
}

/// Union-find over numbers.
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    fn new(n: usize) -> DisjointSets {
        DisjointSets((0..n).collect())
    }

    fn find(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // The smaller number stays the root, so that the order of unions does not matter.
        self.0[a.max(b)] = a.min(b);
    }
}
