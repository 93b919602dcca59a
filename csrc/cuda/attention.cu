// Attention's derivative rules as passes over the probabilities.

#include "attention.cuh"

#include <algorithm>
#include <limits>

#include "attention_pass.cuh"

namespace eqv::cuda {
namespace {

// Whether all rows are made of aligned packs, so that they can be copied as such.
template <typename Storage>
bool takes_packs(const Pass& pass) {
  constexpr int width = kPackWidth<Storage>;
  const auto fits = [](const auto& heads) {
    return heads.data == nullptr ||
           (pack_aligned(heads.data) && heads.stride_k % width == 0 && heads.stride_b % width == 0 &&
            heads.stride_h % width == 0 && heads.stride_row % width == 0);
  };
  return pass.inner % width == 0 && pass.width % width == 0 && fits(pass.left[0]) && fits(pass.left[1]) &&
         fits(pass.right[0]) && fits(pass.right[1]) && fits(pass.weighted) && fits(pass.averaged) && fits(pass.out);
}

template <typename Products, int tiles>
cudaError_t run(const Pass& pass, cudaStream_t stream) {
  using Tiles = SharedTiles<typename Products::Storage>;
  int per_block = 0, per_processor = 0;
  for (const auto& [attribute, value] : {std::pair{cudaDevAttrMaxSharedMemoryPerBlockOptin, &per_block},
                                         std::pair{cudaDevAttrMaxSharedMemoryPerMultiprocessor, &per_processor}}) {
    if (const cudaError_t error = device_attribute(attribute, *value); error != cudaSuccess) return error;
  }
  constexpr std::size_t reserved = 1024;  // by CUDA, of each block
  const std::size_t needed = Tiles::bytes(std::min(pass.width, 8 * tiles));
  const std::size_t with_scores = needed + Tiles::kept_bytes(pass.columns);
  const bool keep = pass.sums_are == Sums::of_rows && pass.weighted.data != nullptr &&
                    with_scores <= static_cast<std::size_t>(per_block) &&
                    2 * (with_scores + reserved) <= static_cast<std::size_t>(per_processor);

  const std::int64_t row_blocks = (pass.rows + kRows - 1) / kRows, blocks = row_blocks * pass.K * pass.B * pass.H;
  if (blocks > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>((pass.width + 8 * tiles - 1) / (8 * tiles)));
  return launch(pass_kernel<Products, tiles>, grid, kPassThreads, keep ? with_scores : needed, stream, pass, keep,
                takes_packs<typename Products::Storage>(pass));
}

template <typename Products>
cudaError_t run(const Pass& pass, cudaStream_t stream) {
  for (const int size : {pass.K, pass.B, pass.H, pass.rows, pass.width}) {
    if (size == 0) return cudaSuccess;
  }
  // A wide result is computed by one block where its sums fit into registers; else each part computes the scores anew.
  if constexpr (sizeof(typename Products::T) == 4) {
    if (pass.width > 64) return run<Products, 16>(pass, stream);
  }
  return run<Products, 8>(pass, stream);
}

cudaError_t run(Dtype dtype, Precision precision, const Pass& pass, cudaStream_t stream) {
  int major = 0;
  if (const cudaError_t error = device_attribute(cudaDevAttrComputeCapabilityMajor, major); error != cudaSuccess) {
    return error;
  }
  const bool tensor_cores = major >= 8;
  switch (dtype) {
    case Dtype::float64:
      return run<ExactProducts<double>>(pass, stream);
    case Dtype::float32:
      if (!tensor_cores || precision == Precision::ieee) return run<ExactProducts<float>>(pass, stream);
      return precision == Precision::tf32 ? run<Tf32Products<1>>(pass, stream) : run<Tf32Products<3>>(pass, stream);
    case Dtype::bfloat16:
      return tensor_cores ? run<Bfloat16Products>(pass, stream) : run<ExactProducts<Bfloat16>>(pass, stream);
  }
  return cudaErrorInvalidValue;
}

Pass pass_over(const AttentionPrimal& primal) {
  return {.K = static_cast<int>(primal.K), .B = static_cast<int>(primal.B), .H = static_cast<int>(primal.H),
          .rows = static_cast<int>(primal.L), .columns = static_cast<int>(primal.S), .p = primal.p,
          .p_stride_column = 1, .scale = primal.scale};
}

// The probabilities with the keys as rows.
Pass transposed_pass_over(const AttentionPrimal& primal) {
  Pass pass = pass_over(primal);
  std::swap(pass.rows, pass.columns);
  std::swap(pass.p.stride_row, pass.p_stride_column);
  pass.sums_are = Sums::of_columns;
  return pass;
}

}  // namespace

cudaError_t attention_jvp(Dtype dtype, const AttentionJvp& rule, cudaStream_t stream) {
  const AttentionPrimal& primal = rule.primal;
  Pass pass = pass_over(primal);
  pass.inner = static_cast<int>(primal.E);
  pass.width = static_cast<int>(primal.F);
  int pairs = 0;
  const auto add_scores = [&](const HeadsIn& left, const HeadsIn& right) {
    if (left.data == nullptr || right.data == nullptr) return;
    pass.left[pairs] = left;
    pass.right[pairs++] = right;
  };
  add_scores(rule.dq, primal.k);
  add_scores(primal.q, rule.dk);
  if (pairs > 0) pass.weighted = primal.v;
  pass.averaged = rule.dv;
  pass.out = rule.out;
  return run(dtype, primal.precision, pass, stream);
}

cudaError_t attention_vjp(Dtype dtype, const AttentionVjp& rule, void* row_sums, cudaStream_t stream) {
  const AttentionPrimal& primal = rule.primal;

  Pass queries = pass_over(primal);  // gQ = scale P * (G V^T - sums) K, and the sums
  queries.inner = static_cast<int>(primal.F);
  queries.width = static_cast<int>(primal.E);
  queries.left[0] = rule.g;
  queries.right[0] = primal.v;
  queries.weighted = primal.k;
  queries.out = rule.gq;
  queries.sums = row_sums;

  Pass keys = transposed_pass_over(primal);  // gK = scale P^T * (V G^T - sums) Q
  keys.inner = static_cast<int>(primal.F);
  keys.width = static_cast<int>(primal.E);
  keys.left[0] = primal.v;
  keys.right[0] = rule.g;
  keys.weighted = primal.q;
  keys.out = rule.gk;
  keys.sums = row_sums;

  Pass values = transposed_pass_over(primal);  // gV = P^T G
  values.width = static_cast<int>(primal.F);
  values.averaged = rule.g;
  values.out = rule.gv;

  for (const Pass& pass : {queries, keys, values}) {
    if (const cudaError_t error = run(dtype, primal.precision, pass, stream); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace eqv::cuda
