"""What only a process of its own can show: imports, pipes, terminals, exit codes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "open_clip", "numpy", "h5py", "pydantic", "rich", "PIL"}


def imported(*arguments: str) -> set[str]:
    """Top-level modules that a command has imported when it ends."""
    program = (
        "import sys\nfrom equivengine.cli.main import run\n"
        f"code = run({list(arguments)!r})\n"
        "print('\\n', code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("probe", "--help"), ("run", "--help")])
def test_help_imports_nothing_heavy(arguments):
    assert not imported(*arguments) & HEAVY


@pytest.mark.parametrize("arguments", [("ls", "plugins"), ("ls", "plugins", "--load"), ("ls", "probes")])
def test_listing_imports_no_torch(toys, arguments):
    assert not imported(*arguments) & {"torch", "torchvision", "timm", "open_clip"}


def test_exit_codes_reach_the_shell(toys, start):
    process = start("probe", "--plugin", "mesure")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: no probe is called 'mesure'\n  expected: perhaps 'measure'")


@pytest.mark.parametrize("reader", ["| true", "2>&1 | true"])
def test_a_reader_that_goes_away_does_not_stop_the_run(toys, tmp_path, reader):
    images = "noise:3?size=8&mode=L"
    command = f"{sys.executable} -m equivengine probe --plugin measure --model toy --images '{images}' --out run"
    shell = f"{command} {reader}; echo codes ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "codes 0" in done.stdout
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert len(list((tmp_path / "run" / "shards").rglob("*.h5"))) == 3
    assert (tmp_path / "run" / "run.h5").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start_stop_nothing(toys, closed):
    shell = f"{{ {sys.executable} -m equivengine ls probes --load {closed}; }}; echo codes $?"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert "codes 0" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", ["ls probes --json", "ls probes", "--help"])
def test_a_closed_pipe_of_a_short_command_is_silent(toys, arguments):
    shell = f"{sys.executable} -m equivengine {arguments} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_unless_no_color(toys, tmp_path, environment, coloured):
    controller, terminal = pty.openpty()
    arguments = ["probe", "--plugin", "measure", "--model", "toy", "--images", "noise:2?size=8&mode=L"]
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "equivengine", *arguments],
        stdout=terminal,
        stderr=terminal,
        stdin=terminal,
        cwd=tmp_path,
        env={**clean, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment},
    )
    os.close(terminal)
    said = b""
    while True:
        try:
            block = os.read(controller, 4096)
        except OSError:  # how a pty says that the other end is gone
            break
        if not block:
            break
        said += block
    os.close(controller)
    assert process.wait(timeout=30) == 0, said
    text = said.decode()
    assert "norm of the Jacobian" in text
    assert ("\x1b[33m" in text or "\x1b[1;33m" in text) == coloured  # the warning is yellow


def test_a_terminal_that_knows_no_unicode(toys, start, tmp_path):
    images = "noise:1?size=8&mode=L"
    arguments = ("probe", "--plugin", "measure", "--model", "toy", "--images", images, "--out", tmp_path / "run")
    process = start(*arguments, PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "norm of the Jacobian" in out


def test_shell_completion_knows_the_commands_and_options(toys):
    asked = {"_EQUIVENGINE_COMPLETE": "bash_complete", "COMP_WORDS": "equivengine pro", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "equivengine"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **asked})
    assert done.stdout.split() == ["plain,probe"]
    assert done.stderr == ""


def test_a_home_that_cannot_be_written_is_no_news(tmp_path):
    """matplotlib warns that it cannot keep its list of fonts there; it draws all the same."""
    program = (
        "import sys\nfrom equivengine.cli.main import run\n"
        "run(sys.argv[1:])\nimport matplotlib\nmatplotlib.get_cachedir()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    environment |= {"HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    for arguments, heard in ([], False), (["-v"], True):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, "ls", "plugins"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert ("matplotlib: mkdir -p failed" in done.stderr) is heard, done.stderr
