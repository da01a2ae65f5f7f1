// Marks a function for host and device when nvcc compiles it, and for the host alone elsewhere.
#pragma once

#if defined(__CUDACC__)
#define PMX_HD __host__ __device__ __forceinline__
#else
#define PMX_HD inline
#endif
