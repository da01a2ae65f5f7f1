#include <cuda_runtime_api.h>

#include "../cuda/mix.h"
#include "mix.h"

namespace pmx {
namespace {

// Launches on the current stream of the tensors' device, with that device current, and never waits.
class Cuda {
 public:
  explicit Cuda(const Tensor& like) : like_(like), guard_(like.get_device_index()) {
    STD_TORCH_CHECK(like.is_cuda(), "expected a CUDA tensor");
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  void mix_forward(const MixShape& shape, const MixOperands& operands) const {
    cuda::mix_forward(shape, operands, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mix_mask_gradient(const MixShape& shape, const MixOperands& operands) const {
    const int64_t words = cuda::mix_mask_gradient_scratch(shape, operands) / static_cast<int64_t>(sizeof(float));
    const Tensor scratch = allocate<1>(like_, {words}, ScalarType::Float);
    cuda::mix_mask_gradient(shape, operands, scratch.data_ptr(), stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void mix_image_gradient(const MixShape& shape, const MixOperands& operands, bool retain_side) const {
    cuda::mix_image_gradient(shape, operands, retain_side, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  Tensor like_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_MIXING(m, pmx::Cuda); }
