// The kernels for avx512. Only this file's own code may be compiled with it: the standard headers come first, because
// an inline function of theirs compiled here could be the copy that the linker keeps for everybody.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../core/attention.h"
#include "../../core/losses.h"
#include "../kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define PMX_ISA avx512
#define PMX_VECTOR_BYTES 64
#include "attention.h"
#include "losses_columns.h"
#include "losses_rows.h"
#include "mask_mix.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace pmx {
const KernelTable avx512_kernels = {cosine_kernels,    sharpen_kernels,   mask_mix_kernels,
                                    attention_kernels, column_sum<float>, column_sum<double>};
}
#endif
