#include "../cuda/mask_mix.h"
#include "cuda_queue.h"
#include "mask_mix.h"

namespace pmx {
namespace {

class CudaMaskMix : public CudaQueue {
 public:
  using CudaQueue::CudaQueue;

  void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    cuda::mask_mix_forward(shape, operands, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    const int64_t words = cuda::mask_mix_mask_gradient_scratch(shape, operands) / static_cast<int64_t>(sizeof(float));
    const Tensor partial = scratch(words, ScalarType::Float);
    cuda::mask_mix_mask_gradient(shape, operands, partial.data_ptr(), stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side) const {
    cuda::mask_mix_image_gradient(shape, operands, retain_side, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_MASK_MIX(m, pmx::CudaMaskMix); }
