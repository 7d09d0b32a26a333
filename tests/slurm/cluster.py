"""A Slurm of its own, thrown away afterwards: its nodes are network namespaces of this machine,
each with an address, a host name and a `slurmd`; the first also has the controller.

Everything it needs is generated into one directory: configuration, MUNGE's key, spool, logs.
Nothing of the machine's own Slurm is read or changed, and no system service is started. Needs root,
the packages `slurmctld slurmd slurm-client munge libpmix-dev` of Debian (or the like), iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.hosts import network as hosts
from tests.hosts.network import Network, network

NODES = ("n1", "n2", "n3")
PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "scancel", "munged", "mungekey", "unshare")
DEADLINE_S = 300.0
_SYSTEM = "/usr/sbin:/sbin"
"""Where daemons are, which may not be on a PATH."""

# No cgroups and no accounting, which containers may not have. Each node has a directory of its own
# for what PMIx puts beside its socket: all of them are one host to the file system.
_CONFIGURATION = """\
ClusterName=throwaway
SlurmctldHost=n1({first})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.sock
CredType=cred/munge
MpiDefault=none
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerType=sched/builtin
ReturnToService=2
KillWait=20
SlurmctldPidFile={base}/slurmctld.pid
SlurmctldLogFile={base}/slurmctld.log
StateSaveLocation={base}/state
SlurmdPidFile={base}/slurmd-%n.pid
SlurmdLogFile={base}/slurmd-%n.log
SlurmdSpoolDir={base}/spool-%n
TmpFS={base}/tmp-%n
NodeName=n[1-3] NodeAddr={prefix}[1-3] Sockets=1 CoresPerSocket={cores} State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def why_not() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge libpmix-dev)"
    return hosts.why_not()


class Cluster:
    """It runs; commands are given on its nodes."""

    def __init__(self, net: Network, base: Path) -> None:
        self.net = net
        self.base = base
        self.environ = {**os.environ, "PATH": _path(), "SLURM_CONF": str(base / "slurm.conf")}

    def on(self, node: int, *command: str) -> list[str]:
        """The command, to be run on a node: its network, its host name, names for the others."""
        named = f'mount --bind {self.base}/hosts /etc/hosts && hostname n{node} && exec "$@"'
        return self.net.inside(
            node, "unshare", "--uts", "--mount", "sh", "-c", named, "sh", *command
        )

    def run(
        self,
        *command: str,
        node: int = 1,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A command on a node, to its end."""
        return subprocess.run(
            self.on(node, *command),
            env={**self.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def say(self, *command: str) -> str:
        """What a command that must not fail prints on the first node."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what other processes do."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"not within {DEADLINE_S:g} s: {what}\n{self.logs()}"
            )
            time.sleep(0.2)

    def jobs(self) -> list[str]:
        """Those that are not over, as squeue has them."""
        return self.say("squeue", "--noheader").splitlines()

    def processes(self, node: int, word: str) -> list[int]:
        """Those on a node whose command line has a word."""
        return [pid for pid in self.net.pids(node) if word in _command_line(pid)]

    def logs(self) -> str:
        """The end of what Slurm's daemons and the jobs said."""
        files = sorted(self.base.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in files)


@contextmanager
def cluster(base: Path) -> Iterator[Cluster]:
    """Three idle nodes; afterwards there is nothing left of them."""
    with network(len(NODES)) as net, ExitStack() as daemons:
        made = Cluster(net, base)
        _write(made)
        daemons.enter_context(_daemon(made, _munged(base)))
        made.until((base / "munge.sock").exists, "munged listens")
        daemons.enter_context(_daemon(made, made.on(1, "slurmctld", "-D")))
        for number, name in enumerate(NODES, start=1):
            daemons.enter_context(_daemon(made, made.on(number, "slurmd", "-D", "-N", name)))
        made.until(lambda: _idle(made) == len(NODES), "all nodes are idle")
        try:
            yield made
        finally:
            made.run("scancel", "--user", "root")
            made.until(lambda: not made.jobs(), "no job is left")


def _write(made: Cluster) -> None:
    base, net = made.base, made.net
    addresses = {name: net.address(number) for number, name in enumerate(NODES, start=1)}
    (base / "hosts").write_text(
        "127.0.0.1 localhost\n"
        + "".join(f"{address} {name}\n" for name, address in addresses.items())
    )
    cores = os.cpu_count() or 1
    (base / "slurm.conf").write_text(
        _CONFIGURATION.format(base=base, first=addresses["n1"], prefix=hosts.PREFIX, cores=cores)
    )
    (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for name in ("state", *(f"{kind}-{node}" for kind in ("spool", "tmp") for node in NODES)):
        (base / name).mkdir()
    subprocess.run(
        ["mungekey", "--create", f"--keyfile={base}/munge.key"], env=made.environ, check=True
    )


def _munged(base: Path) -> list[str]:
    files = {"key": "key", "socket": "sock", "pid": "pid", "log": "log", "seed": "seed"}
    flags = [
        f"--{name if name == 'socket' else f'{name}-file'}={base}/munge.{ending}"
        for name, ending in files.items()
    ]
    # --force: the directory may be below one that others can write to.
    return ["munged", "--foreground", "--force", *flags]


@contextmanager
def _daemon(made: Cluster, command: list[str]) -> Iterator[None]:
    with (made.base / "daemons.log").open("ab") as log:
        process = subprocess.Popen(command, env=made.environ, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(made: Cluster) -> int:
    done = made.run("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")
    return len(done.stdout.split())


def _path() -> str:
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SYSTEM}"


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode("utf-8", "replace")
