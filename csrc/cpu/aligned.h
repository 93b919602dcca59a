// Scratch memory that begins at a line of the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace eqv::cpu {

class AlignedBytes {
 public:
  explicit AlignedBytes(std::int64_t bytes) : data_(::operator new(static_cast<std::size_t>(bytes), kLine)) {}
  ~AlignedBytes() { ::operator delete(data_, kLine); }
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;

  void* data() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  void* data_;
};

}  // namespace eqv::cpu
