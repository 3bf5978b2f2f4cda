//! Whether a launcher (`mpirun`, `srun`) has started this process as one of several, and the communicator that this asks for.

#[cfg(feature = "mpi")]
use super::mpi::MpiRanks;
use super::{Communicator, Single};
#[cfg(not(feature = "mpi"))]
use crate::Error;
use crate::Result;
use std::env;

/// The variables in which launchers tell a process its rank and the number of ranks: Open MPI's mpirun; MPICH's, Intel's and `srun --mpi=pmi2`;
/// `srun --mpi=pmix`.
const VARIABLES: [(&str, &str); 3] =
    [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("PMIX_RANK", "SLURM_STEP_NUM_TASKS")];

/// The rank of this process among those that a launcher has started as one job, and their number; `(0, 1)` without a launcher.
pub fn place() -> (usize, usize) {
    let number = |name: &str| env::var(name).ok()?.trim().parse::<usize>().ok();
    VARIABLES.iter().find_map(|(rank, size)| Some((number(rank)?, number(size)?))).unwrap_or((0, 1))
}

/// The communicator of this process. What is connected must be ended on every rank: dropped, after an error only once
/// [`Communicator::abort`] has returned.
///
/// # Errors
/// An input error if a launcher has started several processes and this program was built without MPI. A failure of MPI.
pub fn connect() -> Result<Box<dyn Communicator>> {
    match place() {
        (_, 0 | 1) => Ok(Box::new(Single)),
        #[cfg(feature = "mpi")]
        _ => Ok(Box::new(MpiRanks::connect()?)),
        #[cfg(not(feature = "mpi"))]
        (_, processes) => Err(Error::input(format!(
            "an MPI launcher has started {processes} processes, and this jigsaw was built without MPI; build it with `cargo build --release \
             --features mpi`, or start it without the launcher"
        ))),
    }
}
