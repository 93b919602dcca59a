"""Compiles the torch-free CUDA sources for this machine's processor, and calls their kernels on CPU tensors.

The kernels run thread by thread (block.h): slow, exact about barriers, and without a GPU. What this cannot show is
speed, and how a GPU rounds inside a tensor core.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivengine.ops.attention import cotangents_of
from equivengine.ops.sketch import KINDS, LARGEST_SPARSITY

HERE = Path(__file__).resolve().parent
KERNELS = sorted((HERE.parents[1] / "csrc" / "cuda").glob("*.cu"))
DTYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2}
DTYPE_PAIRS = {(dtype, dtype): code for dtype, code in DTYPES.items()} | {(torch.bfloat16, torch.float32): 3}
PRECISIONS = {"ieee": 0, "tf32": 1, "tf32x3": 2}


def compile_library(folder: Path, sources: list[Path], *flags: str) -> Path:
    """Compile CUDA and C++ sources with g++ into one shared library."""

    def compile_one(source: Path) -> str:
        target = folder / f"{source.stem}_{source.suffix[1:]}.o"
        options = [
            "-std=c++20",
            "-O1",
            "-ffp-contract=off",  # as nvcc takes the intrinsics that csrc/math/gaussian.h asks for
            "-U_FORTIFY_SOURCE",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-Wno-unknown-pragmas",
            *flags,
        ]
        command = ["g++", *options, f"-I{HERE}", "-x", "c++", "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, [*sources, HERE / "block.cpp"]))
    library = folder / "library.so"
    subprocess.run(["g++", "-shared", *flags, *objects, "-o", str(library)], check=True)
    return library


class Device(ctypes.Structure):
    """The settings of the emulated device; `emulation::Device`."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("processors", "capability", "shared_per_block", "shared_per_processor", "order", "edge")
    ]


class NormRows(ctypes.Structure):
    """`eqv::NormRows`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tangents", "x", "mean", "rstd", "weight", "residual", "out")),
        *((name, ctypes.c_int64) for name in "KRD"),
        *((f"tangents_stride_{name}", ctypes.c_int64) for name in "kr"),
        *((f"residual_stride_{name}", ctypes.c_int64) for name in "kr"),
        ("x_stride_r", ctypes.c_int64),
    ]


class SoftmaxRows(ctypes.Structure):
    """`eqv::SoftmaxRows`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tangents", "p", "out")),
        *((name, ctypes.c_int64) for name in ("K", "R", "D", "tangents_stride_k", "tangents_stride_r", "p_stride_r")),
    ]


class ScaleRows(ctypes.Structure):
    """`eqv::ScaleRows`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tangents", "factor", "out")),
        *((name, ctypes.c_int64) for name in ("K", "N", "tangents_stride_k")),
    ]


class SketchRows(ctypes.Structure):
    """`eqv::SketchRows`."""

    _fields_ = [
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "dim")),
        *((name, ctypes.c_uint64) for name in ("key", "start", "offset")),
        ("threshold", ctypes.c_uint32),
        ("size", ctypes.c_float),
    ]


class Heads(ctypes.Structure):
    """`eqv::Heads`."""

    _fields_ = [("data", ctypes.c_void_p), *((f"stride_{name}", ctypes.c_int64) for name in ("k", "b", "h", "row"))]

    @classmethod
    def of(cls, t: Tensor | None) -> Heads:
        if t is None:
            return cls()
        strides = t.stride() if t.dim() == 5 else (0, *t.stride())
        assert strides[4] == 1 or t.shape[-1] <= 1
        return cls(t.data_ptr(), *strides[:4])


class AttentionPrimal(ctypes.Structure):
    """`eqv::AttentionPrimal`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in "KBHLSEF"),
        *((name, Heads) for name in "qkvp"),
        ("scale", ctypes.c_double),
        ("precision", ctypes.c_int),
    ]


class AttentionJvp(ctypes.Structure):
    """`eqv::AttentionJvp`."""

    _fields_ = [("primal", AttentionPrimal), *((name, Heads) for name in ("dq", "dk", "dv", "out"))]


class AttentionVjp(ctypes.Structure):
    """`eqv::AttentionVjp`."""

    _fields_ = [("primal", AttentionPrimal), *((name, Heads) for name in ("g", "gq", "gk", "gv"))]


class EmulatedLibrary:
    """Functions of a compiled library; a launch that fails raises RuntimeError with the emulator's words."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.failure.restype = ctypes.c_char_p
        self.library.device.restype = ctypes.POINTER(Device)
        self.device: Any = self.library.device().contents

    def call(self, name: str, *args: Any) -> None:
        status = getattr(self.library, name)(*args)
        if status != 0:
            raise RuntimeError(f"{name} returned {status}: {self.library.failure().decode()}")


def unwritten(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous result; NaN until it is written."""
    return torch.full(shape, torch.nan, dtype=dtype)


class EmulatedKernels(EmulatedLibrary):
    """The operators with CUDA kernels; tensors and results as the operators of the same names have them."""

    def layer_norm_jvp(self, tangents, x, mean, rstd, weight) -> Tensor:
        return self._norm("norm_jvp", tangents, x, mean, rstd, weight, None)

    def layer_norm_vjp(self, cotangents, x, mean, rstd, weight, residual) -> Tensor:
        return self._norm("norm_vjp", cotangents, x, mean, rstd, weight, residual)

    def rms_norm_jvp(self, tangents, x, rstd, weight) -> Tensor:
        return self._norm("norm_jvp", tangents, x, None, rstd, weight, None)

    def rms_norm_vjp(self, cotangents, x, rstd, weight, residual) -> Tensor:
        return self._norm("norm_vjp", cotangents, x, None, rstd, weight, residual)

    def _norm(self, rule: str, t: Tensor, x: Tensor, mean, rstd: Tensor, weight, residual) -> Tensor:
        out = unwritten(t.shape, t.dtype)
        pointers = (None if a is None else a.data_ptr() for a in (t, x, mean, rstd, weight, residual, out))
        residual_strides = (0, 0) if residual is None else residual.stride()[:2]
        rows = NormRows(*pointers, *t.shape, *t.stride()[:2], *residual_strides, x.stride(0))
        self.call(rule, DTYPE_PAIRS[t.dtype, x.dtype], ctypes.byref(rows))
        return out

    def softmax_jvp(self, tangents: Tensor, p: Tensor) -> Tensor:
        out = unwritten(tangents.shape, tangents.dtype)
        pointers = (a.data_ptr() for a in (tangents, p, out))
        rows = SoftmaxRows(*pointers, *tangents.shape, *tangents.stride()[:2], p.stride(0))
        self.call("softmax_jvp", DTYPE_PAIRS[tangents.dtype, p.dtype], ctypes.byref(rows))
        return out

    def scale_tangents(self, tangents: Tensor, factor: Tensor) -> Tensor:
        out = unwritten(tangents.shape, tangents.dtype)
        pointers = (a.data_ptr() for a in (tangents, factor, out))
        rows = ScaleRows(*pointers, len(tangents), factor.numel(), tangents.stride(0))
        self.call("scale_tangents", DTYPE_PAIRS[tangents.dtype, factor.dtype], ctypes.byref(rows))
        return out

    def split_tf32(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high, low = unwritten(x.shape, x.dtype), unwritten(x.shape, x.dtype)
        self.call("split_tf32", *(ctypes.c_void_p(a.data_ptr()) for a in (x, high, low)), ctypes.c_int64(x.numel()))
        return high, low

    def fill_sketch(self, out: Tensor, key: int, start: int, offset: int, kind: str, sparsity: int) -> None:
        threshold, size = LARGEST_SPARSITY // sparsity, sparsity**0.5
        rows = SketchRows(out.data_ptr(), *out.shape, key, start, offset, threshold, size)
        self.call("sketch", DTYPES[out.dtype], KINDS.index(kind), ctypes.byref(rows))

    def attention_jvp(self, dq, dk, dv, q, k, v, p, scale: float, precision: str = "ieee") -> Tensor:
        directions = next(t for t in (dq, dk, dv) if t is not None).shape[0]
        out = unwritten((directions, *q.shape[:3], v.shape[-1]), q.dtype)
        primal = _primal(directions, q, k, v, p, scale, precision)
        rule = AttentionJvp(primal, *map(Heads.of, (dq, dk, dv, out)))
        self.call("attention_jvp", DTYPES[q.dtype], ctypes.byref(rule))
        return out

    def attention_vjp(self, g, q, k, v, p, scale: float, precision: str = "ieee") -> Tensor:
        size = sum(t.numel() for t in (q, k, v)) // max(1, len(q))
        out = unwritten((len(g), len(q), size), q.dtype)
        results = cotangents_of(out, q, k, v)
        primal = _primal(len(g), q, k, v, p, scale, precision)
        rule = AttentionVjp(primal, *map(Heads.of, (g, *results)))
        accumulator = torch.float64 if q.dtype == torch.float64 else torch.float32
        row_sums = unwritten(g.shape[:-1], accumulator)
        self.call("attention_vjp", DTYPES[q.dtype], ctypes.byref(rule), ctypes.c_void_p(row_sums.data_ptr()))
        return out


def _primal(
    directions: int, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float, precision: str
) -> AttentionPrimal:
    batch, heads, length, inner = q.shape
    sizes = (directions, batch, heads, length, k.shape[2], inner, v.shape[-1])
    return AttentionPrimal(*sizes, *map(Heads.of, (q, k, v, p)), scale, PRECISIONS[precision])
