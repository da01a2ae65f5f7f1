// The kernels for the processor that the compiler targets by default (SSE2 on x86-64, NEON on 64-bit Arm).
#define PMX_ISA baseline
#define PMX_VECTOR_BYTES 16
#include "../kernel_table.h"
#include "attention.h"
#include "losses_columns.h"
#include "losses_rows.h"
#include "mask_mix.h"

namespace pmx {
const KernelTable baseline_kernels = {cosine_kernels,    sharpen_kernels,   mask_mix_kernels,
                                      attention_kernels, column_sum<float>, column_sum<double>};
}
