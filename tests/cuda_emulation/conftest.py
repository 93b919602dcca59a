import ctypes
import fcntl
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import HERE, KERNELS, EmulatedKernels, compile_library


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where the emulator cannot be compiled."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile CUDA sources for the host")
    if platform.system() != "Linux":
        pytest.skip("the emulator uses glibc's ucontext")


@pytest.fixture(scope="session")
def library(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    """Compiled once for all processes of a test run."""
    folder: Path = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with open(folder / "emulated.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "emulated" / "library.so"
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            compile_library(made.parent, [*KERNELS, HERE / "exports.cpp"])
    return EmulatedKernels(made)


@pytest.fixture
def kernels(library: EmulatedKernels) -> Iterator[EmulatedKernels]:
    """All CUDA kernels of the package; changes to the emulated device end with the test."""
    before = bytes(library.device)
    yield library
    ctypes.memmove(ctypes.addressof(library.device), before, len(before))
