"""A Slurm of this machine for tests: its own daemons, on ports that are free, with one node that claims four cores.

`slurmctld` and `slurmd` are taken from PATH and the usual folders, or from below `EQUIVENGINE_TEST_SLURM`, where
packages may have been unpacked (`dpkg -x`). A data base is all that is missing: `sacct` is answered by what `scontrol`
knows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = Path(os.environ.get("EQUIVENGINE_TEST_SLURM", "/"))

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
KillWait=3
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=1
PartitionName=high Nodes={host} PriorityTier=10
"""

SACCT = r"""#!{python}
import re, subprocess
print("JobID|State|NodeList")
known = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True)
for line in known.stdout.splitlines():
    found = dict(re.findall(r"(\w+)=(\S*)", line))
    if "JobId" in found:
        task = found.get("ArrayTaskId", "")
        named = f"{{found['ArrayJobId']}}_{{task if task.isdigit() else f'[{{task}}]'}}" if task else found["JobId"]
        print(f"{{named}}|{{found['JobState']}}|{{found.get('NodeList', '')}}")
"""


def found(name: str) -> Path | None:
    """A program of Slurm; Debian adds a word to the names of its daemons."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *(str(PREFIX / part) for part in ("usr/bin", "usr/sbin"))])
    for variant in (name, f"{name}-wlm"):
        if where := shutil.which(variant, path=path):
            return Path(where)
    return None


@dataclass
class Slurm:
    """A Slurm that runs.

    Attributes:
        environment: Environment variables of whoever talks to it.
    """

    environment: dict[str, str]

    def say(self, *words: str) -> str:
        """Run one of its commands."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def tasks(self) -> dict[str, str]:
        """Id and state of each task that it remembers."""
        return dict(line.split("|")[:2] for line in self.say("sacct").splitlines()[1:])

    def wait_for(self, condition: Callable[[dict[str, str]], bool], seconds: float = 90) -> None:
        """Wait until the states of its tasks are as they should be."""
        deadline = time.monotonic() + seconds
        while not condition(self.tasks()):
            assert time.monotonic() < deadline, self.tasks()
            time.sleep(0.2)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Slurm]:
    """Start the daemons below a folder; LookupError, saying why, if they cannot be had or do not work here."""
    programs = {name: found(name) for name in ("slurmctld", "slurmd", "slurmstepd", "sbatch", "scontrol")}
    missing = [name for name, path in programs.items() if path is None and name != "slurmstepd"]
    if missing:
        raise LookupError(f"no {', '.join(missing)} on this machine")
    libraries = PREFIX / "usr/lib/x86_64-linux-gnu"
    plugins = next((path.parent for path in sorted(PREFIX.glob("usr/lib*/**/auth_none.so"))), None)
    if plugins is None:
        raise LookupError("this Slurm has no auth/none, without which it needs munge")
    ports = [free_port(), free_port()]
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    text = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0], user=subprocess.check_output(["id", "-un"], text=True).strip(),
        controller_port=ports[0], node_port=ports[1], folder=folder, plugins=plugins,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(text)
    (folder / "bin" / "sacct").write_text(SACCT.format(python=sys.executable))
    (folder / "bin" / "sacct").chmod(0o755)
    environment = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "LD_LIBRARY_PATH": os.pathsep.join([str(libraries), str(plugins), os.environ.get("LD_LIBRARY_PATH", "")]),
        "PATH": os.pathsep.join([str(folder / "bin"), str(programs["sbatch"].parent), os.environ["PATH"]]),
    }
    slurm = Slurm(environment)
    step = ["-d", str(programs["slurmstepd"])] if programs["slurmstepd"] else []
    daemons = []
    try:
        for words in ([programs["slurmctld"], "-D", "-c"], [programs["slurmd"], "-D", *step]):
            with open(folder / f"{words[0].name}.log", "w") as log:
                given = {**os.environ, **environment}
                daemons.append(subprocess.Popen(words, env=given, stdout=log, stderr=log, start_new_session=True))
        wait_until_idle(slurm, folder)
        yield slurm
    finally:
        with contextlib.suppress(AssertionError):
            slurm.say("scancel", "--user", str(os.getuid()))
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def wait_until_idle(slurm: Slurm, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(AssertionError):
            if "idle" in slurm.say("sinfo", "--noheader", "--format=%T"):
                return
        if time.monotonic() > deadline:
            said = "".join(path.read_text()[-500:] for path in folder.glob("*.log"))
            raise LookupError(f"the daemons of Slurm do not work here: {said}")
        time.sleep(0.5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
