// The kernels for avx2. Only this file's own code may be compiled with it: the standard headers come first, because
// an inline function of theirs compiled here could be the copy that the linker keeps for everybody.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define PMX_ISA avx2
#define PMX_VECTOR_BYTES 32
#define PMX_TABLE avx2_kernels
#include "../kernel_table.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
