#include "../cuda/attention.h"
#include "attention.h"
#include "cuda_queue.h"

namespace pmx {
namespace {

class CudaAttention : public CudaQueue {
 public:
  static constexpr bool position_stride_is_free = false;

  static ScalarType gradient_type(ScalarType own) { return own; }

  using CudaQueue::CudaQueue;

  void forward(const Attention& in, Dtype dtype, bool tf32, void* states, void* out) const {
    cuda::attention_forward(in, dtype, tf32, states, out, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void backward(const Attention& in, Dtype dtype, bool tf32, const void* grad, const void* states,
                const AttentionGradients& to) const {
    std::optional<Tensor> of_values;
    if (to.value[0] != nullptr || to.value[1] != nullptr) {
      of_values = scratch(in.pairs() * 2 * in.tokens, accumulation_type(dtype));
    }
    cuda::attention_backward(in, dtype, tf32, grad, states, to, of_values ? of_values->data_ptr() : nullptr, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_ATTENTION(m, pmx::CudaAttention); }
