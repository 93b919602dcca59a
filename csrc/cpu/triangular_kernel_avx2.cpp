#define EQV_VARIANT avx2
#define EQV_VECTOR_BYTES 32
#include "triangular_kernel.inc"
