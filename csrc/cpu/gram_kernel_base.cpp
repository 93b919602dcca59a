#define EQV_VARIANT base
#define EQV_VECTOR_BYTES 16
#include "gram_kernel.inc"
