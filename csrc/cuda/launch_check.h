// Turns a failed kernel launch into an error that says what to do.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include "build_facts.h"  // written by setup.py

#define EQV_CHECK_LAUNCH(EXPRESSION)                                                                              \
  do {                                                                                                            \
    const cudaError_t eqv_error = (EXPRESSION);                                                                   \
    TORCH_CHECK(eqv_error != cudaErrorNoKernelImageForDevice,                                                     \
                "the compiled extension has no kernels for this GPU: it was built for compute capability "        \
                EQV_CUDA_ARCH_LIST "; rebuild it with TORCH_CUDA_ARCH_LIST set to this GPU's (`make setup`, or "  \
                "`pip install --no-build-isolation .`)");                                                         \
    C10_CUDA_CHECK(eqv_error);                                                                                    \
  } while (false)
