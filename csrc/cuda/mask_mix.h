// Launchers of the mask_mix kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/mask_mix.h"

namespace pmx::cuda {

void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands, cudaStream_t stream);

// Bytes of scratch memory that `mask_mix_mask_gradient` needs.
int64_t mask_mix_mask_gradient_scratch(const MaskMixShape& shape, const MaskMixOperands& operands);
void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, void* scratch,
                            cudaStream_t stream);

void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side,
                             cudaStream_t stream);

}  // namespace pmx::cuda
