"""No kernel touches memory outside its arguments, takes packs that are not aligned, or overflows an index.

They run under AddressSanitizer and UndefinedBehaviorSanitizer, in a process of their own. A processor's wide accesses
take any address; a GPU's do not.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulated import HERE, KERNELS, compile_library

RUN_KERNELS = """
import ctypes, itertools, sys
from pathlib import Path

import torch
from emulated import EmulatedKernels
from test_cuda_emulation_attention import ARITHMETIC, SIZES, Case
from test_cuda_emulation_rows import DTYPES, RULES, WIDTHS, arguments, sliced
from test_cuda_emulation_sketch import KINDS, SHAPES

kernels = EmulatedKernels(Path(sys.argv[1]))
for sizes in SIZES:
    for dtype, precision in ARITHMETIC:
        for kernels.device.shared_per_processor in (228 << 10, 64 << 10):
            case = Case(sizes, dtype, precision)
            kernels.attention_jvp(*case.tangents, *case.primal)
            kernels.attention_vjp(case.g, *case.primal)
for rule in RULES:
    for dtypes in DTYPES:
        for width in WIDTHS:
            given = arguments(rule, 5, 3, width, dtypes)
            getattr(kernels, rule.name)(*given)
            if rule.name != "scale_tangents":
                getattr(kernels, rule.name)(*map(sliced, given))
for size in (1, 257, 1024):
    kernels.split_tf32(torch.zeros(size))
    kernels.split_tf32(torch.zeros(size + 1)[1:])
for (count, dim, offset), (kind, sparsity) in itertools.product(SHAPES, KINDS):
    for dtype in (torch.float32, torch.float64):
        kernels.fill_sketch(torch.empty(count, dim, dtype=dtype), 1, 2, offset, kind, sparsity)
print("within bounds", flush=True)
print("aligned", file=sys.stderr, flush=True)
odd = torch.zeros(64, dtype=torch.uint8)
kernels.call("split_tf32", *(ctypes.c_void_p(odd.data_ptr() + 2 + 16 * i) for i in range(3)), ctypes.c_int64(2))
short = torch.zeros(3)
kernels.call("split_tf32", *(ctypes.c_void_p(short.data_ptr()) for _ in range(3)), ctypes.c_int64(4))
"""


@pytest.mark.slow
def test_no_kernel_reads_or_writes_out_of_bounds_or_unaligned(compiler, tmp_path):
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(runtime).is_file():
        pytest.skip("g++ has no AddressSanitizer")
    # Fibers bring stacks of their own, which the sanitizer would have to be told of; it watches everything else.
    flags = ("-fsanitize=address,alignment,signed-integer-overflow,shift", "--param=asan-stack=0")
    library = compile_library(tmp_path, [*KERNELS, HERE / "exports.cpp"], *flags)
    path = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", RUN_KERNELS, str(library)],
        env={**os.environ, "PYTHONPATH": path, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "within bounds\n", done.stderr
    # The last calls were off their alignment and beyond their tensors: the sanitizers are awake.
    before, aligned, after = done.stderr.partition("aligned\n")
    assert aligned
    assert "runtime error" not in before, before
    assert "misaligned address" in after
    assert "heap-buffer-overflow" in done.stderr
