// Where the kernels of one call are launched.
#pragma once

#include <cuda_runtime_api.h>

#include "tensors.h"

namespace pmx {

// The current stream of a tensor's device, with that device current as long as this lives. Nothing here waits.
class CudaQueue {
 public:
  explicit CudaQueue(const Tensor& like) : like_(like), guard_(like.get_device_index()) {
    STD_TORCH_CHECK(like.is_cuda(), "expected a CUDA tensor");
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

 protected:
  cudaStream_t stream() const { return stream_; }

  // Memory for the kernels alone: freed by the caller, reused only by what is queued later.
  Tensor scratch(int64_t elements, ScalarType type) const { return allocate<1>(like_, {elements}, type); }

 private:
  Tensor like_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace pmx
