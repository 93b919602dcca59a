// Attention's derivative rules on the CPU: checks, allocation, threads and the choice of the instruction set.

#include "../attention.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <new>

#include "attention_kernel.h"
#include "isa.h"

namespace eqv::cpu {
namespace {

// Multiply-adds for which starting a thread pays.
constexpr int64_t kGrain = 1 << 18;

bool has_bfloat16_dot() {
#if defined(EQV_X86_VARIANTS)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// Few heads with many tangents must still feed all threads; else a head is packed once for all of its tangents.
AttentionSplit split_of(const AttentionPrimal& primal, int64_t most_pieces) {
  const int64_t wanted = 4 * static_cast<int64_t>(at::get_num_threads()), heads = primal.B * primal.H;
  const int64_t blocks = std::min(primal.K, at::divup(wanted, heads));
  return {blocks, std::min(most_pieces, at::divup(wanted, heads * blocks))};
}

template <typename Run>
void for_all_tasks(const AttentionPrimal& primal, const AttentionSplit& split, int64_t scratch_bytes, const Run& run) {
  const int64_t tasks = primal.B * primal.H * split.tangent_blocks * split.row_pieces;
  const int64_t work = 2 * primal.K * primal.B * primal.H * primal.L * primal.S * (primal.E + primal.F) / tasks;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    constexpr std::align_val_t line{64};
    const auto release = [](void* p) { ::operator delete(p, line); };
    const auto bytes = static_cast<size_t>(scratch_bytes);
    const std::unique_ptr<void, decltype(release)> scratch(::operator new(bytes, line), release);
    run(begin, end, scratch.get());
  });
}

at::Tensor attention_jvp(
    const std::optional<at::Tensor>& dq,  // [K, B, H, L, E]
    const std::optional<at::Tensor>& dk,  // [K, B, H, S, E]
    const std::optional<at::Tensor>& dv,  // [K, B, H, S, F]
    const at::Tensor& q,                  // [B, H, L, E]
    const at::Tensor& k,                  // [B, H, S, E]
    const at::Tensor& v,                  // [B, H, S, F]
    const at::Tensor& p,                  // [B, H, L, S]
    double scale, std::string_view precision) {
  const AttentionJvpCall call(dq, dk, dv, q, k, v, p, scale, precision);
  if (call.out.numel() == 0) return call.out;
  const eqv::AttentionJvp arguments = call.arguments();
  const AttentionPrimal& primal = arguments.primal;
  const int64_t block = attention_block(primal.S, call.dtype == Dtype::float64 ? 8 : 4);
  const AttentionSplit split = split_of(primal, at::divup(primal.L, block));
  const int64_t bytes = EQV_CPU_DISPATCH(attention_jvp_scratch_bytes, call.dtype, primal);
  for_all_tasks(primal, split, bytes, [&](int64_t begin, int64_t end, void* scratch) {
    EQV_CPU_DISPATCH(attention_jvp, call.dtype, has_bfloat16_dot(), arguments, split, begin, end, scratch);
  });
  return call.out;
}

at::Tensor attention_vjp(
    const at::Tensor& g,  // [K, B, H, L, F]
    const at::Tensor& q,  // [B, H, L, E]
    const at::Tensor& k,  // [B, H, S, E]
    const at::Tensor& v,  // [B, H, S, F]
    const at::Tensor& p,  // [B, H, L, S]
    double scale, std::string_view precision) {
  const AttentionVjpCall call(g, q, k, v, p, scale, precision);
  if (call.out.numel() == 0) return call.out;
  const eqv::AttentionVjp arguments = call.arguments();
  const AttentionPrimal& primal = arguments.primal;
  const AttentionSplit split = split_of(primal, 1);
  const int64_t bytes = EQV_CPU_DISPATCH(attention_vjp_scratch_bytes, call.dtype, primal);
  for_all_tasks(primal, split, bytes, [&](int64_t begin, int64_t end, void* scratch) {
    EQV_CPU_DISPATCH(attention_vjp, call.dtype, has_bfloat16_dot(), arguments, split, begin, end, scratch);
  });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) {
  m.impl("attention_jvp", TORCH_FN(attention_jvp));
  m.impl("attention_vjp", TORCH_FN(attention_vjp));
}

// For every device. Without it forward mode would take these operators' derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("attention_jvp", torch::autograd::autogradNotImplementedFallback());
  m.impl("attention_vjp", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
