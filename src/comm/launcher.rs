//! Whether a launcher (`mpirun`, `srun`) has started this process as one of several.

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
