#include "../cuda/mix.h"
#include "cuda_queue.h"
#include "mix.h"

namespace pmx {
namespace {

class Cuda : public CudaQueue {
 public:
  using CudaQueue::CudaQueue;

  void mix_forward(const MixShape& shape, const MixOperands& operands) const {
    cuda::mix_forward(shape, operands, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mix_mask_gradient(const MixShape& shape, const MixOperands& operands) const {
    const int64_t words = cuda::mix_mask_gradient_scratch(shape, operands) / static_cast<int64_t>(sizeof(float));
    const Tensor partial = scratch(words, ScalarType::Float);
    cuda::mix_mask_gradient(shape, operands, partial.data_ptr(), stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mix_image_gradient(const MixShape& shape, const MixOperands& operands, bool retain_side) const {
    cuda::mix_image_gradient(shape, operands, retain_side, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_MIXING(m, pmx::Cuda); }
