// A CUDA stream as the launchers take it, for files that are compiled without CUDA's headers.
#pragma once

struct CUstream_st;

namespace pmx::cuda {

using Stream = CUstream_st*;  // cudaStream_t

}  // namespace pmx::cuda
