// The CPU kernel of random sketches and its generator for ctypes; test_ops_sketch_compilers.py compiles it.

#include "../../csrc/cpu/sketch_unfused.cpp"

extern "C" {

void philox(std::uint64_t position, std::uint64_t vector, std::uint64_t key, std::uint32_t* words) {
  const eqv::math::Words4 result = eqv::math::philox(position, vector, key);
  std::memcpy(words, result.word, sizeof result.word);
}

void sketch(float* out, std::int64_t count, std::int64_t dim, std::uint64_t key, std::uint64_t start,
            std::uint64_t offset, int kind, std::uint32_t threshold, float size) {
  const eqv::SketchRows rows{out, count, dim, key, start, offset, threshold, size};
  eqv::cpu::sketch(eqv::Dtype::float32, static_cast<eqv::Sketch>(kind), rows, 0, eqv::cpu::sketch_tasks(rows));
}
}
