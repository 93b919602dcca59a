"""No kernel touches memory outside its arguments: they run under AddressSanitizer, in a process of their own."""

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
from test_cuda_emulation_rows import DTYPES, RULES, WIDTHS, arguments
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
            getattr(kernels, rule.name)(*arguments(rule, 5, 3, width, dtypes))
for size in (1, 257, 1024):
    kernels.split_tf32(torch.zeros(size))
for (count, dim, offset), (kind, sparsity) in itertools.product(SHAPES, KINDS):
    for dtype in (torch.float32, torch.float64):
        kernels.fill_sketch(torch.empty(count, dim, dtype=dtype), 1, 2, offset, kind, sparsity)
print("within bounds", flush=True)
short = torch.zeros(3)
kernels.call("split_tf32", *(ctypes.c_void_p(short.data_ptr()) for _ in range(3)), ctypes.c_int64(4))
"""


@pytest.mark.slow
def test_no_kernel_reads_or_writes_out_of_bounds(compiler, tmp_path):
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(runtime).is_file():
        pytest.skip("g++ has no AddressSanitizer")
    # Fibers bring stacks of their own, which the sanitizer would have to be told of; it watches everything else.
    flags = ("-fsanitize=address", "--param=asan-stack=0")
    library = compile_library(tmp_path, [*KERNELS, HERE / "exports.cpp"], *flags)
    path = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", RUN_KERNELS, str(library)],
        env={**os.environ, "PYTHONPATH": path, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "within bounds\n", done.stderr
    # The last call was beyond its tensors: the sanitizer is awake.
    assert "heap-buffer-overflow" in done.stderr
