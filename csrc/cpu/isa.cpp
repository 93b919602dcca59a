#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace eqv::cpu {
namespace {

Isa supported() {
#if defined(EQV_X86_VARIANTS)
  // Must name every feature that setup.py compiles the variants with.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::base;
#else
  return Isa::base;
#endif
}

Isa allowed() {
  const char* value = std::getenv("EQUIVENGINE_CPU_ISA");
  if (value == nullptr) return Isa::avx512;
  for (const Isa isa : {Isa::base, Isa::avx2, Isa::avx512}) {
    if (std::string(value) == name(isa)) return isa;
  }
  throw std::invalid_argument("the environment variable EQUIVENGINE_CPU_ISA: expected base | avx2 | avx512, got '" +
                              std::string(value) + "'");
}

}  // namespace

Isa isa() {
  static const Isa chosen = [] {
    const Isa best = supported(), cap = allowed();
    return cap < best ? cap : best;
  }();
  return chosen;
}

const char* name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "base";
  }
}

}  // namespace eqv::cpu
