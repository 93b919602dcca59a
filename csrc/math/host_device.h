// Marks functions that compile for the host and, under nvcc, for the device.
//
// Everything in csrc/math has internal linkage (an unnamed namespace) and is inlined: the CPU kernels compile the same
// header once for each instruction set, and a shared symbol would let the linker hand the AVX-512 body to the base
// variant.
#pragma once

#if defined(__CUDACC__)
#define EQV_INLINE __host__ __device__ __forceinline__
#else
#define EQV_INLINE inline __attribute__((always_inline))
#endif
