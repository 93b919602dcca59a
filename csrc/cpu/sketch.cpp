// Random sketches on the CPU: checks and threads.

#include "../sketch.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "sketch_kernel.h"

namespace eqv::cpu {
namespace {

// Numbers for which starting a thread pays.
constexpr int64_t kGrain = 32768;

void fill_sketch(const at::Tensor& out, int64_t key, int64_t start, int64_t offset, std::string_view kind,
                 int64_t sparsity) {
  const SketchCall call(out, key, start, offset, kind, sparsity);
  if (out.numel() == 0) return;
  const int64_t per_task = std::min(call.rows.dim, kSketchTile);
  const int64_t grain = std::max<int64_t>(1, kGrain / per_task);
  at::parallel_for(0, sketch_tasks(call.rows), grain, [&](int64_t begin, int64_t end) {
    sketch(call.dtype, call.kind, call.rows, begin, end);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) { m.impl("fill_sketch", TORCH_FN(fill_sketch)); }

}  // namespace eqv::cpu
