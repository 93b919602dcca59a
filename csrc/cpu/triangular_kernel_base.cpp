#define EQV_VARIANT base
#define EQV_VECTOR_BYTES 16
#include "triangular_kernel.inc"
