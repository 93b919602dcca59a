"""Slurm's commands for one machine: what `sbatch` is given runs here, and `sacct` tells what has become of it.

`install` writes `sbatch`, `srun`, `sacct` and `scancel` into a folder for PATH. They take what submitit calls them
with, and refuse options that Slurm does not have. There is no queue, and no limit of time or memory is held.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Options of `sbatch` that a submission may hold.
OPTIONS = {
    *("account", "array", "constraint", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "nodes"),
    *("ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue", "signal", "time", "wckey"),
}
ONE_NODE = {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost"}
COMMANDS = ("sbatch", "srun", "sacct", "scancel")


def install(folder: Path) -> None:
    """Write the commands; what they know of tasks is kept in the same folder."""
    folder.mkdir()
    for command in COMMANDS:
        words = shlex.join([sys.executable, str(Path(__file__).resolve()), command, str(folder)])
        (folder / command).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / command).chmod(0o755)


def submissions(folder: Path) -> list[str]:
    """The files that were submitted, in order."""
    files = sorted(folder.glob("*.submitted"), key=lambda file: int(file.stem))
    return [file.read_text() for file in files]


def options(text: str) -> dict[str, str]:
    """What stands behind ``#SBATCH`` in a file."""
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in lines}


def sbatch(folder: Path, file: str) -> int:
    text = Path(file).read_text()
    if unknown := options(text).keys() - OPTIONS:
        print(f"sbatch: unrecognized option '--{min(unknown)}'", file=sys.stderr)
        return 1
    number = str(1 + len(submissions(folder)))
    (folder / f"{number}.submitted").write_text(text)
    words = [sys.executable, __file__, "carry-out", str(folder), number]
    nowhere = subprocess.DEVNULL  # whoever reads what this command prints waits for no task
    subprocess.Popen(words, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    print(f"Submitted batch job {number}")
    return 0


def carry_out(folder: Path, number: str) -> int:
    """Run the tasks of a submission, as many at once as it allows."""
    given = options((folder / f"{number}.submitted").read_text())
    last, parallel = re.fullmatch(r"0-(\d+)%(\d+)", given["array"]).groups() if "array" in given else ("", "1")
    waiting = [f"{number}_{place}" for place in range(int(last) + 1)] if last else [number]
    running: dict[str, subprocess.Popen[bytes]] = {}
    for task in waiting:
        note(folder, task, "PENDING")
    while waiting or running:
        while waiting and len(running) < int(parallel):
            task = waiting.pop(0)
            if state(folder, task) == "PENDING":
                running[task] = start(folder, task, given)
        for task, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[task]
                if state(folder, task) == "RUNNING":
                    note(folder, task, "FAILED" if code else "COMPLETED")
        time.sleep(0.02)
    return 0


def start(folder: Path, task: str, given: dict[str, str]) -> subprocess.Popen[bytes]:
    number, _, place = task.partition("_")
    environment = {**os.environ, **ONE_NODE, "SLURM_JOB_ID": number, "SLURM_CPUS_PER_TASK": given["cpus-per-task"]}
    if place:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": place}
    with open(named(given["output"], environment), "ab") as out, open(named(given["error"], environment), "ab") as said:
        script = ["bash", str(folder / f"{number}.submitted")]
        process = subprocess.Popen(script, env=environment, stdout=out, stderr=said, start_new_session=True)
    (folder / f"{task}.process").write_text(str(process.pid))
    note(folder, task, "RUNNING")
    return process


def named(path: str, environment: dict[str, str]) -> str:
    """A path with the numbers that stand for its letters."""
    for letter, name in {"%j": "SLURM_JOB_ID", "%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID"}.items():
        path = path.replace(letter, environment.get(name, ""))
    return path.replace("%t", environment.get("SLURM_PROCID", "0"))


def srun(_: Path, *words: str) -> int:
    environment = {**os.environ, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    unbuffered, output, out, error, said, *command = words
    assert (unbuffered, output, error) == ("--unbuffered", "--output", "--error"), words
    with open(named(out, environment), "ab") as out_file, open(named(said, environment), "ab") as said_file:
        return subprocess.run(command, env=environment, stdout=out_file, stderr=said_file).returncode


def sacct(folder: Path, *words: str) -> int:
    assert words[:3] == ("-o", "JobID,State,NodeList", "--parsable2"), words
    print("JobID|State|NodeList")
    for number in words[4::2]:
        for file in sorted(folder.glob("*.state")):
            if file.stem.partition("_")[0] == number:
                print(f"{file.stem}|{state(folder, file.stem)}|localhost")
    return 0


def scancel(folder: Path, *words: str) -> int:
    states = ("PENDING",) if "--state=PENDING" in words else ("PENDING", "RUNNING")
    for file in folder.glob("*.state"):
        task = file.stem
        before = state(folder, task)
        if not {task, task.partition("_")[0]} & set(words) or before not in states:
            continue
        note(folder, task, "CANCELLED by 0")
        if before == "RUNNING":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int((folder / f"{task}.process").read_text()), signal.SIGKILL)
    return 0


def state(folder: Path, task: str) -> str:
    file = folder / f"{task}.state"
    return file.read_text() if file.exists() else ""


def note(folder: Path, task: str, what: str) -> None:
    whole = folder / f"{task}.state-{os.getpid()}"
    whole.write_text(what)
    whole.rename(folder / f"{task}.state")


if __name__ == "__main__":
    named_commands = {"carry-out": carry_out, **{command: globals()[command] for command in COMMANDS}}
    sys.exit(named_commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
