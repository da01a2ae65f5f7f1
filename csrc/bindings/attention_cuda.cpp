#include <cuda_runtime_api.h>

#include "../cuda/attention.h"
#include "attention.h"

namespace pmx {
namespace {

// Launches on the current stream of the tensors' device, with that device current, and never waits.
class Cuda {
 public:
  static constexpr bool position_stride_is_free = false;

  static ScalarType gradient_type(ScalarType own) { return own; }

  explicit Cuda(const Tensor& like) : like_(like), guard_(like.get_device_index()) {
    STD_TORCH_CHECK(like.is_cuda(), "expected a CUDA tensor");
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  void forward(const Attention& in, Dtype dtype, bool tf32, void* states, void* out) const {
    cuda::attention_forward(in, dtype, tf32, states, out, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void backward(const Attention& in, Dtype dtype, bool tf32, const void* grad, const void* states,
                const AttentionGradients& to) const {
    std::optional<Tensor> of_values;
    if (to.value[0] != nullptr || to.value[1] != nullptr) {
      of_values = allocate<1>(like_, {in.pairs() * 2 * in.tokens}, accumulation_type(dtype));
    }
    cuda::attention_backward(in, dtype, tf32, grad, states, to, of_values ? of_values->data_ptr() : nullptr, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  Tensor like_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_ATTENTION(m, pmx::Cuda); }
