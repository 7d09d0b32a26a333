"""What the script runs on every other rank."""

from mpi4py.futures import MPICommExecutor
from mpi4py.MPI import COMM_WORLD

with MPICommExecutor(COMM_WORLD) as executor:
    if executor is not None:
        raise RuntimeError("rank 0 is a worker node")
