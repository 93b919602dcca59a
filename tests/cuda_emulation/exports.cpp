// What the tests call: the kernels' launchers, and the emulated device's settings.

#include "../../csrc/cuda/attention.cuh"
#include "../../csrc/cuda/norm.cuh"
#include "../../csrc/cuda/scale.cuh"
#include "../../csrc/cuda/sketch.cuh"
#include "../../csrc/cuda/softmax.cuh"
#include "../../csrc/cuda/split_tf32.cuh"
#include "block.h"

using namespace eqv;

extern "C" {

const char* failure() { return emulation::failure(); }
emulation::Device* device() { return &emulation::device(); }

int norm_jvp(int dtypes, const NormRows* rows) {
  return cuda::norm_rule(math::Rule::jvp, static_cast<DtypePair>(dtypes), *rows, nullptr);
}
int norm_vjp(int dtypes, const NormRows* rows) {
  return cuda::norm_rule(math::Rule::vjp, static_cast<DtypePair>(dtypes), *rows, nullptr);
}
int softmax_jvp(int dtypes, const SoftmaxRows* rows) {
  return cuda::softmax_rule(static_cast<DtypePair>(dtypes), *rows, nullptr);
}
int scale_tangents(int dtypes, const ScaleRows* rows) {
  return cuda::scale_tangents(static_cast<DtypePair>(dtypes), *rows, nullptr);
}
int split_tf32(const float* x, float* high, float* low, std::int64_t N) {
  return cuda::split_tf32(x, high, low, N, nullptr);
}
int sketch(int dtype, int kind, const SketchRows* rows) {
  return cuda::sketch(static_cast<Dtype>(dtype), static_cast<Sketch>(kind), *rows, nullptr);
}
int attention_jvp(int dtype, const AttentionJvp* rule) {
  return cuda::attention_jvp(static_cast<Dtype>(dtype), *rule, nullptr);
}
int attention_vjp(int dtype, const AttentionVjp* rule, void* row_sums) {
  return cuda::attention_vjp(static_cast<Dtype>(dtype), *rule, row_sums, nullptr);
}
}
