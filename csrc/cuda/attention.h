// Launchers of the attention kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/attention.h"

namespace pmx::cuda {

// `states` is as in core/attention.h, in accumulation type; `out` [pairs, tokens] in `dtype`. Positions of all maps are
// neighbours in memory. `tf32` lets float32 use TF32.
void attention_forward(const Attention& in, Dtype dtype, bool tf32, void* states, void* out, cudaStream_t stream);

// `grad` is [pairs, tokens] contiguous; gradients are in `dtype`; `of_values` is scratch memory of [pairs, 2, tokens]
// in accumulation type, needed if the gradient of a value is wanted.
void attention_backward(const Attention& in, Dtype dtype, bool tf32, const void* grad, const void* states,
                        const AttentionGradients& to, void* of_values, cudaStream_t stream);

}  // namespace pmx::cuda
