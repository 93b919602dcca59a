#define EQV_VARIANT avx2
#define EQV_VECTOR_BYTES 32
#include "scale_kernel.inc"
