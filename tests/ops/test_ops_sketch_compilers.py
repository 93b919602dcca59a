"""The CPU kernel of random sketches has the same bits however it is compiled, and its generator is Philox4x32-10."""

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from equivengine.ops.sketch import KINDS, LARGEST_SPARSITY, philox

HERE = Path(__file__).resolve().parent
X86 = platform.machine().lower() in ("x86_64", "amd64")
#: Unoptimized, what the processor at hand offers (with fused multiply-add, where it has one), another compiler.
BUILDS = [("g++", "-O0"), ("g++", "-O3 -march=native"), ("clang++", "-O3 -march=native")]

#: Counter, key and words from Random123 (tests/kat_vectors), by the authors of the generator.
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def compiled(folder: Path, compiler: str, *flags: str) -> ctypes.CDLL:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    target = folder / "sketch.so"
    source = HERE / "sketch_exports.cpp"
    subprocess.run([compiler, "-std=c++20", "-shared", "-fPIC", *flags, str(source), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module", params=BUILDS, ids=" ".join)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler, flags = request.param
    unfused = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]  # as setup.py has them
    return compiled(tmp_path_factory.mktemp("sketch"), compiler, *flags.split(), *unfused)


def joined(words: list[int]) -> int:
    return words[0] | words[1] << 32


def signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_the_generator_gives_its_authors_numbers(library, counter, key, words):
    result = (ctypes.c_uint32 * 4)()
    library.philox(*(ctypes.c_uint64(joined(pair)) for pair in (counter[:2], counter[2:], key)), result)
    assert list(result) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_so_does_the_formula(counter, key, words):
    position, vector = (torch.tensor([signed(joined(pair))]) for pair in (counter[:2], counter[2:]))
    assert [int(word) for word in philox(position, vector, signed(joined(key)))] == words


def numbers(library: ctypes.CDLL, kind: str, sparsity: int) -> torch.Tensor:
    out = torch.full((3, 20_001), torch.nan)
    count, dim, key, start, offset = 3, 20_001, 11, 2**63 - 1, 6
    library.sketch(
        ctypes.c_void_p(out.data_ptr()),
        *map(ctypes.c_int64, (count, dim)),
        *map(ctypes.c_uint64, (key, start, offset)),
        KINDS.index(kind),
        ctypes.c_uint32(LARGEST_SPARSITY // sparsity),
        ctypes.c_float(sparsity**0.5),
    )
    return out


@pytest.mark.parametrize(("kind", "sparsity"), [("gaussian", 1), ("sign", 1), ("sign", 5)])
def test_bits_are_those_of_the_formula(library, kind, sparsity):
    out = torch.empty(3, 20_001)
    torch.ops.equivengine.fill_sketch.reference(out, 11, 2**63 - 1, 6, kind, sparsity)
    assert torch.equal(numbers(library, kind, sparsity).view(torch.int32), out.view(torch.int32))


def test_fused_operations_would_be_noticed(tmp_path):
    if not X86 or "fma" not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("needs an x86-64 processor with fused multiply-add")
    fused = compiled(tmp_path, "g++", "-O3", "-mfma", "-ffp-contract=fast")
    out = torch.empty(3, 20_001)
    torch.ops.equivengine.fill_sketch.reference(out, 11, 2**63 - 1, 6, "gaussian", 1)
    assert not torch.equal(numbers(fused, "gaussian", 1), out)
