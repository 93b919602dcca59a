// Which of the compiled CPU variants runs on this processor.
#pragma once

namespace eqv::cpu {

enum class Isa { base, avx2, avx512 };

// The best variant that was compiled, that the processor and operating system support, and that the environment
// variable EQUIVENGINE_CPU_ISA (base, avx2 or avx512) allows. Decided once in a process.
Isa isa();

const char* name(Isa isa);

}  // namespace eqv::cpu

// Calls FUNCTION of the chosen variant's namespace. Only x86-64 has more than the base variant.
#if defined(EQV_X86_VARIANTS)
#define EQV_CPU_DISPATCH(FUNCTION, ...)               \
  [&] {                                               \
    switch (::eqv::cpu::isa()) {                      \
      case ::eqv::cpu::Isa::avx512:                   \
        return ::eqv::cpu::avx512::FUNCTION(__VA_ARGS__); \
      case ::eqv::cpu::Isa::avx2:                     \
        return ::eqv::cpu::avx2::FUNCTION(__VA_ARGS__);   \
      default:                                        \
        return ::eqv::cpu::base::FUNCTION(__VA_ARGS__);   \
    }                                                 \
  }()
#else
#define EQV_CPU_DISPATCH(FUNCTION, ...) ::eqv::cpu::base::FUNCTION(__VA_ARGS__)
#endif
