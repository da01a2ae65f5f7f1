#include <cuda_runtime_api.h>

#include "../cuda/losses.h"
#include "losses.h"

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

  void cosine_forward(const Rows& rows, void* states, void* sim) const {
    cuda::cosine_forward(launch(rows), states, sim);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class A>
  void reduce(const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* lse, void* loss, Dtype dtype) const {
    const int64_t words = cuda::reduce_scratch(terms, contrast) / static_cast<int64_t>(sizeof(A));
    const Tensor scratch = allocate<1>(like_, {words}, accumulation_type(dtype));
    cuda::reduce(terms, contrast, lse, loss, dtype, scratch.data_ptr(), stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class A>
  void cosine_backward(const Rows& rows, const A* states, RowRole role, const Contrast<A>& contrast,
                       const RowScalar<A>& grad, void* out) const {
    cuda::cosine_backward(launch(rows), states, role, contrast, grad, out);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T,
                       void* out) const {
    cuda::sharpen_forward(dtype, logits, rows, classes, inverse_T, out, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                        double inverse_T, void* out) const {
    cuda::sharpen_backward(dtype, grad, logits, rows, classes, inverse_T, out, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  cuda::RowsLaunch launch(const Rows& rows) const {
    return {rows.in(), rows.dtype(), rows.target_dtype(), rows.kind(), rows.targets(), stream_};
  }

  Tensor like_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) { PMX_REGISTER_LOSSES(m, pmx::Cuda); }
