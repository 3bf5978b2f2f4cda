//! Ranks in threads: what they exchange, in which order they add, and how they end together.

use super::*;

/// The results of all ranks, which must have succeeded.
fn all<T: Send>(world_size: usize, work: impl Fn(&dyn Communicator) -> Result<T> + Sync) -> Vec<T> {
    threads::run(world_size, work).into_iter().map(|result| result.unwrap()).collect()
}

#[test]
fn every_rank_gets_the_bytes_of_every_rank_in_order() {
    for world_size in [1, 2, 4] {
        let gathered = all(world_size, |comm| {
            let mut rounds = Vec::new();
            for round in 0..50u8 {
                rounds.push(comm.all_gather(&vec![round; comm.rank()])?);
            }
            Ok(rounds)
        });
        for rounds in gathered {
            for (round, bytes) in rounds.into_iter().enumerate() {
                assert_eq!(bytes, (0..world_size).map(|rank| vec![round as u8; rank]).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_sum_is_the_one_of_a_single_rank_to_the_last_bit_however_its_terms_are_shared_out() {
    // Terms of very different sizes: another order gives another sum. More numbers than one message has.
    let terms: Vec<Vec<f32>> = (0..8)
        .map(|t| (0..PIECE + 7).map(|i| ((i * 8 + t) as f32).sin() * 10f32.powi((t * 5 % 9) as i32 - 4)).collect())
        .collect();
    let start: Vec<f32> = (0..PIECE + 7).map(|i| (i as f32).cos()).collect();
    for (count, filled) in [(8, true), (8, false), (3, true), (1, false), (0, true)] {
        let sum = |comm: &dyn Communicator| {
            let mut sum = start.clone();
            let own: Vec<&[f32]> = terms[comm.share(count)].iter().map(Vec::as_slice).collect();
            let counts: Vec<usize> =
                (0..comm.world_size()).map(|rank| share(count, rank, comm.world_size()).len()).collect();
            comm.all_reduce_sum(&mut sum, filled, &own, &counts)?;
            Ok(sum)
        };
        let alone = sum(&Single).unwrap();
        for world_size in [1, 2, 4, 5] {
            assert!(all(world_size, sum).iter().all(|sum| *sum == alone), "{count} terms on {world_size} ranks");
        }
    }
}

#[test]
fn a_sum_that_begins_with_a_term_keeps_the_sign_of_its_zeros() {
    let sums = all(2, |comm| {
        let (mut sum, zero) = ([5.0], [-0.0]);
        let own: &[&[f32]] = if comm.is_root() { &[] } else { &[&zero] };
        comm.all_reduce_sum(&mut sum, false, own, &[0, 1])?;
        Ok(sum[0].to_bits())
    });
    assert_eq!(sums, [(-0.0f32).to_bits(); 2]);
}

#[test]
fn ranks_that_disagree_on_the_length_of_a_message_get_an_error() {
    let results = threads::run(2, |comm| {
        let terms = [0.0; 3];
        comm.all_reduce_sum(&mut terms.clone(), true, &[&terms], &[1, 2])
    });
    assert!(results.into_iter().all(|result| result.unwrap_err().to_string().contains("do not agree")));
}

#[test]
fn values_come_from_the_root_and_lists_are_put_end_to_end() {
    let results = all(3, |comm| {
        let mut values = vec![comm.rank() as f32 + 0.5; 4];
        comm.broadcast_f32(1, &mut values)?;
        let said = comm.on_root(|| Ok(format!("rank {}", comm.rank())))?;
        let list = comm.gather((0..comm.rank()).map(|i| (comm.rank(), i)).collect())?;
        let numbers = comm.gather_f64(vec![f64::NAN; 2 - comm.rank()])?.len();
        let half = comm.gather_f32(vec![comm.rank() as f32])?;
        Ok((values, said, list, numbers, half, comm.any(comm.rank() == 2)?, comm.any(false)?))
    });
    let expected =
        (vec![1.5; 4], "rank 0".to_string(), vec![(1, 0), (2, 0), (2, 1)], 3, vec![0.0, 1.0, 2.0], true, false);
    assert!(results.iter().all(|result| *result == expected), "{results:?}");
}

#[test]
fn every_rank_hears_the_numbers_of_the_others() {
    let lengths = [3, 0, 2];
    let results = all(3, |comm| {
        let own: Vec<f32> = (0..lengths[comm.rank()]).map(|i| (10 * comm.rank() + i) as f32).collect();
        let mut heard = Vec::new();
        comm.exchange_f32(&own, &lengths, &mut |rank, bytes| {
            heard.push((rank, f32_values(bytes).collect::<Vec<f32>>()));
            Ok(())
        })?;
        Ok(heard)
    });
    let said = [(0, vec![0.0, 1.0, 2.0]), (1, vec![]), (2, vec![20.0, 21.0])];
    for (rank, heard) in results.into_iter().enumerate() {
        let others: Vec<_> = said.iter().filter(|(other, _)| *other != rank).cloned().collect();
        assert_eq!(heard, others);
    }
    let wrong = threads::run(2, |comm| comm.exchange_f32(&[1.0], &[1, 2], &mut |_, _| Ok(())));
    assert!(wrong.into_iter().all(|result| result.unwrap_err().to_string().contains("do not agree")));
}

#[test]
fn items_are_done_in_rounds_and_kept_in_order_on_every_rank() {
    for world_size in 1..=4 {
        let results = all(world_size, |comm| {
            let (mut done, mut rounds) = (Vec::new(), Vec::new());
            let work = |&item: &usize| {
                done.push(item);
                Ok(vec![item; item % 3])
            };
            comm.in_rounds(&[3, 4, 5, 6, 7], work, |kept| {
                rounds.push(kept);
                Ok(())
            })?;
            Ok((done, rounds))
        });
        for (rank, (done, rounds)) in results.into_iter().enumerate() {
            assert_eq!(done, (3..8).skip(rank).step_by(world_size).collect::<Vec<_>>());
            assert_eq!((rounds.len(), rounds.concat()), (5usize.div_ceil(world_size), vec![4, 5, 5, 7]));
        }
    }
}

#[test]
fn shares_cover_all_items_once_and_may_be_empty() {
    for (items, world_size) in [(8, 4), (7, 4), (3, 4), (0, 2), (5, 1)] {
        let shares: Vec<usize> = (0..world_size).flat_map(|rank| share(items, rank, world_size)).collect();
        assert_eq!(shares, (0..items).collect::<Vec<_>>());
    }
}

#[test]
fn an_error_of_the_root_is_the_error_of_every_rank() {
    let results = threads::run(3, |comm| comm.on_root(|| Err::<(), _>(Error::input("no such directory"))));
    for result in results {
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "no such directory"));
    }
}

#[test]
fn ranks_agree_on_the_first_error_and_go_on_where_there_is_none() {
    let results = threads::run(4, |comm| {
        let sum = comm.agree(Ok(comm.rank()))?;
        comm.agree(if sum % 2 == 1 { Err(Error::failed(format!("error {sum}"))) } else { Ok(sum) })
    });
    assert!(results.into_iter().all(|result| result.unwrap_err().to_string() == "rank 1: error 1"));
}

#[test]
fn a_rank_that_fails_panics_or_ends_early_ends_the_others() {
    let wait = |comm: &dyn Communicator| comm.barrier().and_then(|()| comm.barrier());
    let results = threads::run(3, |comm| match comm.rank() {
        1 => comm.barrier().and_then(|()| Err(Error::input("unreadable"))),
        _ => wait(comm),
    });
    let said: Vec<String> = results.into_iter().map(|result| result.unwrap_err().to_string()).collect();
    assert_eq!(said[1], "unreadable");
    assert!(said[0].contains("rank 1 has failed: unreadable") && said[0] == said[2], "{said:?}");
    let results = threads::run(3, |comm| match comm.rank() {
        2 => panic!("a rank that panics on purpose"),
        _ => wait(comm),
    });
    assert!(results.iter().all(Result::is_err));
    let results = threads::run(2, |comm| if comm.is_root() { Ok(()) } else { wait(comm) });
    assert!(results[0].is_ok() && results[1].as_ref().unwrap_err().to_string().contains("ended early"));
}

#[test]
fn a_single_rank_exchanges_nothing_and_keeps_what_it_has() {
    let comm: &dyn Communicator = &Single;
    let (mut bytes, mut values) = (vec![1, 2], [0.25]);
    comm.broadcast(0, &mut bytes).unwrap();
    comm.broadcast_f32(0, &mut values).unwrap();
    comm.barrier().unwrap();
    assert_eq!((bytes, values, comm.share(9)), (vec![1, 2], [0.25], 0..9));
    assert!(comm.agree(Err::<(), _>(Error::failed("x"))).unwrap_err().to_string() == "x" && comm.any(true).unwrap());
}
