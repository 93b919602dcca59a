import ctypes
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
    folder: Path = tmp_path_factory.mktemp("emulated")
    return EmulatedKernels(compile_library(folder, [*KERNELS, HERE / "exports.cpp"]))


@pytest.fixture
def kernels(library: EmulatedKernels) -> Iterator[EmulatedKernels]:
    """All CUDA kernels of the package; changes to the emulated device end with the test."""
    before = bytes(library.device)
    yield library
    ctypes.memmove(ctypes.addressof(library.device), before, len(before))
