// Launchers of the mask_mix kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/mix.h"

namespace pmx::cuda {

void mix_forward(const MixShape& shape, const MixOperands& operands, cudaStream_t stream);

// Bytes of scratch memory that `mix_mask_gradient` needs.
int64_t mix_mask_gradient_scratch(const MixShape& shape, const MixOperands& operands);
void mix_mask_gradient(const MixShape& shape, const MixOperands& operands, void* scratch, cudaStream_t stream);

void mix_image_gradient(const MixShape& shape, const MixOperands& operands, bool retain_side, cudaStream_t stream);

}  // namespace pmx::cuda
