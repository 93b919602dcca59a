#define EQV_VARIANT avx512
#define EQV_VECTOR_BYTES 64
#include "gram_kernel.inc"
