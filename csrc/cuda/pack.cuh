// Several consecutive elements as one access to memory.
#pragma once

#include <cstdint>

#include "../math/bfloat16.h"

namespace eqv::cuda {
namespace {

constexpr int kPackBytes = 16;  // the widest access

template <typename Storage>
constexpr int kPackWidth = kPackBytes / static_cast<int>(sizeof(Storage));

template <typename Storage, int width>
struct alignas(sizeof(Storage) * width < kPackBytes ? sizeof(Storage) * width : kPackBytes) Pack {
  Storage element[width];
};

template <int width, typename Storage>
__device__ __forceinline__ void read(const Storage* source, Accumulator<Storage> (&values)[width]) {
  const auto pack = *reinterpret_cast<const Pack<Storage, width>*>(source);
#pragma unroll
  for (int i = 0; i < width; ++i) values[i] = math::widen(pack.element[i]);
}

template <int width, typename Storage>
__device__ __forceinline__ void write(const Accumulator<Storage> (&values)[width], Storage* target) {
  Pack<Storage, width> pack;
#pragma unroll
  for (int i = 0; i < width; ++i) math::narrow(values[i], pack.element[i]);
  *reinterpret_cast<Pack<Storage, width>*>(target) = pack;
}

inline bool pack_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % kPackBytes == 0; }

}  // namespace
}  // namespace eqv::cuda
