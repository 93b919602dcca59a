// The Python module equivengine._C: build facts. Importing it registers the kernels of the other files.

#include <pybind11/pybind11.h>

#include "build_facts.h"  // written by setup.py
#include "cpu/isa.h"
#include "math/dtype.h"

#if defined(_OPENMP)
#define EQV_THREADS "openmp"
#else
#define EQV_THREADS "none"
#endif

// equivengine/ops/extension.py finds this string in the file's bytes before it loads the file.
extern "C" __attribute__((used, visibility("default"))) const char equivengine_build_facts[] =
    "EQUIVENGINE_BUILD_FACTS={" EQV_BUILD_FACTS ", \"kernel_dtypes\": [" EQV_KERNEL_DTYPES
    "], \"threads\": \"" EQV_THREADS "\"}";

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of equivengine, registered with torch.ops.equivengine; and facts about this build.";
  m.def("build_facts", [] { return pybind11::str(equivengine_build_facts); }, "The marker string with the build facts.");
  m.def("cpu_isa", [] { return eqv::cpu::name(eqv::cpu::isa()); }, "The CPU variant that runs on this processor.");
}
