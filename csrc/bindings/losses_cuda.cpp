#include "../cuda/losses.h"
#include "cuda_queue.h"
#include "losses.h"

namespace pmx {
namespace {

class CudaLosses : public CudaQueue {
 public:
  using CudaQueue::CudaQueue;

  void cosine_forward(const Pass& pass, void* states, void* sim) const {
    cuda::cosine_forward(launch(pass), states, sim);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class A>
  void cosine_backward(const Pass& pass, const A* states, const Contrast<A>& contrast, const RowScalar<A>& grad,
                       const Gradients& out) const {
    cuda::cosine_backward(launch(pass), states, contrast, grad, out.first, out.second);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class A>
  void contrast(const Pass& pass, const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* states, A* lse,
                void* loss, const Gradients* out) const {
    const int64_t words = cuda::reduce_scratch(terms, contrast) / static_cast<int64_t>(sizeof(A));
    const Tensor partial = scratch(words, accumulation_type(pass.dtype));
    const Gradients gradients = out != nullptr ? *out : Gradients{};
    if (!cuda::at_once(launch(pass), terms, contrast, states, lse, loss, partial.data_ptr(), out != nullptr,
                       gradients.first, gradients.second)) {
      cosine_forward(pass, states, nullptr);
      cuda::reduce(terms, contrast, lse, loss, pass.dtype, partial.data_ptr(), stream());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      if (out != nullptr) cosine_backward(pass, states, contrast, {nullptr, 0, A(1)}, *out);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T,
                       void* out) const {
    cuda::sharpen_forward(dtype, logits, rows, classes, inverse_T, out, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                        double inverse_T, void* out) const {
    cuda::sharpen_backward(dtype, grad, logits, rows, classes, inverse_T, out, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  cuda::RowsLaunch launch(const Pass& pass) const {
    return {pass.sets, pass.dtype, pass.target_dtype, pass.kind, pass.targets, pass.role, stream()};
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_LOSSES(m, pmx::CudaLosses); }
