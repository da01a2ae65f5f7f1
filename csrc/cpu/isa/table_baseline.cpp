// The kernels for the processor that the compiler targets by default (SSE2 on x86-64, NEON on 64-bit Arm).
#include "../kernel_table.h"

#define PMX_ISA baseline
#define PMX_VECTOR_BYTES 16
#define PMX_TABLE baseline_kernels
#include "../kernel_table.h"
