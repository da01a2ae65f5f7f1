// Marks a function for host and device when nvcc compiles it, and for the host alone elsewhere.
#pragma once

// Always inlined: a kernel compiled for wide registers must not call into a copy of the core that was compiled for the
// baseline, which costs a transition between instruction encodings for every row.
#if defined(__CUDACC__)
#define PMX_HD __host__ __device__ __forceinline__
#else
#define PMX_HD inline __attribute__((always_inline))
#endif

// Before a loop: how far nvcc unrolls it. Loops over registers must be unrolled whole.
#if defined(__CUDACC__)
#define PMX_PRAGMA(text) _Pragma(#text)
#define PMX_UNROLL PMX_PRAGMA(unroll)
#define PMX_UNROLL_BY(count) PMX_PRAGMA(unroll count)
// Loops that hardly ever run.
#define PMX_NO_UNROLL PMX_PRAGMA(unroll 1)
#else
#define PMX_UNROLL
#define PMX_UNROLL_BY(count)
#define PMX_NO_UNROLL
#endif
