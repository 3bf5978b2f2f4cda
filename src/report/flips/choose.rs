//! Chooses questions so that every model and direction has its share.

/// A question whose answer changed, with the numbers of the models that lost it and of those that gained it.
#[derive(Debug, Clone)]
pub struct Flipped<T> {
    /// The question.
    pub question: T,
    /// Models that no longer answer it rightly.
    pub lost: Vec<usize>,
    /// Models that now do.
    pub gained: Vec<usize>,
}

/// At most `most` of the questions: in each round every one of the `models` that has fewer than the round's number is given its next lost
/// question, then its next gained one.
pub fn choose<T>(questions: Vec<Flipped<T>>, models: usize, most: usize) -> Vec<T> {
    let mut left: Vec<Option<Flipped<T>>> = questions.into_iter().map(Some).collect();
    let mut taken = vec![[0; 2]; models];
    let mut chosen = Vec::new();
    for round in 1..=left.len() {
        for (model, way) in (0..models).flat_map(|model| [(model, 0), (model, 1)]) {
            let made = |one: &Flipped<T>| [&one.lost, &one.gained][way].contains(&model);
            if chosen.len() == most {
                return chosen;
            }
            if taken[model][way] >= round {
                continue;
            }
            let next = left.iter_mut().find(|one| one.as_ref().is_some_and(made)).and_then(Option::take);
            if let Some(one) = next {
                one.lost.iter().for_each(|&model| taken[model][0] += 1);
                one.gained.iter().for_each(|&model| taken[model][1] += 1);
                chosen.push(one.question);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_lost_little_has_its_question_among_those_of_one_that_lost_much() {
        let lost = |question: usize, lost: &[usize]| Flipped { question, lost: lost.to_vec(), gained: Vec::new() };
        let mut all: Vec<Flipped<usize>> = (0..20).map(|i| lost(i, &[0])).collect();
        all.push(Flipped { question: 20, lost: vec![0], gained: vec![1] });
        all.push(lost(21, &[2]));
        assert_eq!(choose(all.clone(), 3, 5), [0, 20, 21, 1, 2]);
        assert_eq!(choose(all, 3, 99).len(), 22, "all of them, each once");
        assert!(choose(Vec::<Flipped<usize>>::new(), 3, 5).is_empty());
    }

    #[test]
    fn of_each_model_a_lost_question_comes_before_a_gained_one() {
        let gained = Flipped { question: "gained", lost: Vec::new(), gained: vec![0] };
        let lost = Flipped { question: "lost", lost: vec![0], gained: Vec::new() };
        assert_eq!(choose(vec![gained, lost], 1, 1), ["lost"]);
    }
}
