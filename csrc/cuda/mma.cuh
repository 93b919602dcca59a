// The tensor core's instructions. The 32 lanes of a warp hold the matrices together; with g = lane / 4, t = lane % 4:
//
//   C [16, 8]:      c[0..1] = C[g][2t..2t+1],  c[2..3] = C[g + 8][2t..2t+1]
//   TF32, depth 8:  a = A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4],   b = B[t][g], B[t + 4][g]
//   bfloat16, depth 16, two to a register: a = A[g][2t..], A[g + 8][2t..], A[g][2t + 8..], A[g + 8][2t + 8..],
//                   b = B[2t..][g], B[2t + 8..][g]
//
// (PTX ISA, "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".) For a host compiler tests/cuda_emulation defines
// them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#if defined(__CUDACC__)

namespace eqv::cuda {
namespace {

// Older devices have neither type; nothing launches these there.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// C += A B; the operands are rounded to TF32 already.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

__device__ __forceinline__ void mma_bfloat16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else
__device__ inline void mma_tf32(float (&)[4], const float (&)[4], const float (&)[2]) { __trap(); }
__device__ inline void mma_bfloat16(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]) { __trap(); }
#endif

}  // namespace
}  // namespace eqv::cuda

#endif
