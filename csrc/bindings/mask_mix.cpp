// The mask_mix operators over a backend: guards, layouts and allocation. The CPU and the CUDA library instantiate the
// same code with their own Backend, which provides
//
//     mask_mix_forward(shape, operands)
//     mask_mix_mask_gradient(shape, operands)                  result [P, h, w]
//     mask_mix_image_gradient(shape, operands, retain_side)    result like the images of that side
//
// Guards cover memory safety alone. The Python wrapper explains a refused call (ops/reference.py).
#include "../core/mask_mix.h"

#include <vector>

#include "tensors.h"

#if defined(USE_CUDA)
#include "cuda_queue.h"
#else
#include "../cpu/mask_mix_run.h"
#endif

namespace pmx {
namespace {

// A [N, C, H, W] tensor whose images are dense in the wanted layout; the step from image to image may be anything.
class DenseImages {
 public:
  DenseImages(const Tensor& tensor, bool interleaved) : tensor_(tensor) {
    const auto sizes = tensor.sizes();
    STD_TORCH_CHECK(sizes.size() == 4 && sizes[1] > 0 && sizes[2] > 0 && sizes[3] > 0, "expected images [N, C, H, W]");
    if (dense(tensor, interleaved)) {
      stride_ = tensor.stride(0);
      return;
    }
    if (interleaved) {  // as [N, H, W, C]
      tensor_ = torch::stable::transpose(torch::stable::transpose(tensor, 1, 3), 1, 2);
    }
    tensor_ = torch::stable::contiguous(tensor_);
    stride_ = sizes[1] * sizes[2] * sizes[3];
  }

  const void* data() const { return tensor_.data_ptr(); }
  int64_t stride() const { return stride_; }

  // Whether each image lies as [C, H, W], or as [H, W, C], without gaps.
  static bool dense(const Tensor& tensor, bool interleaved) {
    const auto sizes = tensor.sizes();
    const int64_t order[2][3] = {{3, 2, 1}, {1, 3, 2}};  // from the innermost dimension on
    int64_t step = 1;
    for (int64_t d : order[interleaved]) {
      if (sizes[d] != 1 && tensor.stride(d) != step) return false;
      step *= sizes[d];
    }
    return true;
  }

 private:
  Tensor tensor_;
  int64_t stride_;
};

// Channels last where both images are; a layout that can be read either way counts as contiguous. The fake kernels
// follow the same rule (ops/_mask_mix.py).
inline bool channels_last(const Tensor& forget, const Tensor& retain) {
  const auto last = [](const Tensor& x) { return DenseImages::dense(x, true) && !DenseImages::dense(x, false); };
  return last(forget) && last(retain);
}

inline Tensor allocate_images(const Tensor& like, const std::array<int64_t, 4>& sizes, ScalarType type,
                              bool interleaved) {
  if (!interleaved) return allocate<4>(like, sizes, type);
  // Allocated as [N, H, W, C] and seen as [N, C, H, W].
  const Tensor rows = allocate<4>(like, {sizes[0], sizes[2], sizes[3], sizes[1]}, type);
  return torch::stable::transpose(torch::stable::transpose(rows, 1, 3), 2, 3);
}

template <class Backend>
struct MaskMixOperators {
  static Tensor mask_mix(const Tensor& x_forget, const Tensor& x_retain, const Tensor& mask_logits, bool grid,
                         std::vector<double> mean, std::vector<double> std, ScalarType dtype) {
    const Call call(x_forget, x_retain, mask_logits, grid, mean, std, dtype);
    const MaskMixShape& shape = call.shape;
    const Tensor out =
        allocate_images(x_forget, {shape.pairs(), shape.channels, shape.height, shape.width}, dtype, shape.interleaved);
    MaskMixOperands operands = call.operands;
    operands.result = out.data_ptr();
    if (out.numel() > 0) Backend(x_forget).mask_mix_forward(shape, operands);
    return out;
  }

  static Tensor mask_mix_backward_mask(const Tensor& grad, const Tensor& x_forget, const Tensor& x_retain,
                                       const Tensor& mask_logits, bool grid, std::vector<double> mean,
                                       std::vector<double> std) {
    const Call call(x_forget, x_retain, mask_logits, grid, mean, std, grad.scalar_type());
    const MaskMixShape& shape = call.shape;
    const DenseImages incoming(grad, shape.interleaved);
    check_gradient(grad, mask_logits, shape);
    const Tensor out =
        allocate<3>(mask_logits, {shape.pairs(), shape.mask_height, shape.mask_width}, mask_logits.scalar_type());
    MaskMixOperands operands = call.operands;
    operands.grad = incoming.data();
    operands.grad_stride = incoming.stride();
    operands.result = out.data_ptr();
    if (out.numel() > 0) Backend(grad).mask_mix_mask_gradient(shape, operands);
    return out;
  }

  // Needs neither image: only how many there are, their type and their layout.
  static Tensor mask_mix_backward_image(const Tensor& grad, const Tensor& mask_logits, bool grid, bool retain_side,
                                        int64_t n_forget, int64_t n_retain, ScalarType dtype, bool interleaved) {
    STD_TORCH_CHECK(grad.dim() == 4 && mask_logits.dim() == 3, "expected a gradient [P, C, H, W] and masks [P, h, w]");
    const auto sizes = grad.sizes(), mask = mask_logits.sizes();
    const DenseImages incoming(grad, interleaved);
    const Tensor logits = torch::stable::contiguous(mask_logits);
    const MaskMixShape shape = {n_forget, n_retain,    grid,  sizes[1],        sizes[2],         sizes[3],      mask[1],
                                mask[2],  interleaved, false, dtype_of(dtype), dtype_of(logits), dtype_of(grad)};
    check_shape(shape, mask_logits);
    check_gradient(grad, mask_logits, shape);
    const Tensor out =
        allocate_images(grad, {retain_side ? n_retain : n_forget, sizes[1], sizes[2], sizes[3]}, dtype, interleaved);
    MaskMixOperands operands{};
    operands.mask_logits = logits.data_ptr();
    operands.grad = incoming.data();
    operands.grad_stride = incoming.stride();
    operands.result = out.data_ptr();
    if (out.numel() > 0) Backend(grad).mask_mix_image_gradient(shape, operands, retain_side);
    return out;
  }

 private:
  // The operands of a call as the kernels want them, with the tensors that own the memory.
  struct Call {
    DenseImages forget, retain;
    Tensor logits;
    MaskMixShape shape;
    MaskMixOperands operands;

    Call(const Tensor& x_forget, const Tensor& x_retain, const Tensor& mask_logits, bool grid,
         const std::vector<double>& mean, const std::vector<double>& std, ScalarType dtype)
        : Call(x_forget, x_retain, mask_logits, grid, mean, std, dtype, pmx::channels_last(x_forget, x_retain)) {}

   private:
    Call(const Tensor& x_forget, const Tensor& x_retain, const Tensor& mask_logits, bool grid,
         const std::vector<double>& mean, const std::vector<double>& std, ScalarType dtype, bool interleaved)
        : forget(x_forget, interleaved), retain(x_retain, interleaved), logits(torch::stable::contiguous(mask_logits)) {
      check_same_device(x_retain, x_forget);
      check_same_device(mask_logits, x_forget);
      STD_TORCH_CHECK(mask_logits.dim() == 3, "expected mask logits [P, h, w]");
      STD_TORCH_CHECK(x_retain.scalar_type() == x_forget.scalar_type(), "expected both images of one dtype");
      const auto f = x_forget.sizes(), r = x_retain.sizes(), mask = mask_logits.sizes();
      STD_TORCH_CHECK(f[1] == r[1] && f[2] == r[2] && f[3] == r[3], "expected both images of one shape");
      const bool bytes = x_forget.scalar_type() == ScalarType::Byte;
      shape = {f[0],
               r[0],
               grid,
               f[1],
               f[2],
               f[3],
               mask[1],
               mask[2],
               interleaved,
               bytes,
               bytes ? Dtype::f32 : dtype_of(x_forget),
               dtype_of(logits),
               dtype_of(dtype)};
      check_shape(shape, mask_logits);
      operands = {forget.data(),
                  retain.data(),
                  forget.stride(),
                  retain.stride(),
                  logits.data_ptr(),
                  nullptr,
                  0,
                  nullptr,
                  normalisation(shape, mean, std)};
    }
  };

  static void check_shape(const MaskMixShape& shape, const Tensor& mask_logits) {
    STD_TORCH_CHECK(shape.n_forget >= 0 && shape.n_retain >= 0 && (shape.grid || shape.n_forget == shape.n_retain),
                    "expected as many forget as retain images");
    STD_TORCH_CHECK(mask_logits.sizes()[0] == shape.pairs() && shape.mask_height > 0 && shape.mask_width > 0,
                    "expected mask logits [P, h, w] with one mask for each pair");
  }

  static void check_gradient(const Tensor& grad, const Tensor& like, const MaskMixShape& shape) {
    check_same_device(grad, like);
    const auto sizes = grad.sizes();
    STD_TORCH_CHECK(
        sizes[0] == shape.pairs() && sizes[1] == shape.channels && sizes[2] == shape.height && sizes[3] == shape.width,
        "expected a gradient of the mixed images' shape");
  }

  static Normalisation normalisation(const MaskMixShape& shape, const std::vector<double>& mean,
                                     const std::vector<double>& std) {
    Normalisation result{};
    result.per_channel = !mean.empty() || !std.empty();
    if (!result.per_channel) return result;
    const auto channels = static_cast<size_t>(shape.channels);
    STD_TORCH_CHECK(
        shape.bytes && mean.size() == channels && std.size() == channels && shape.channels <= max_normalised_channels,
        "expected one mean and one std for each channel of 8-bit images");
    for (size_t c = 0; c < channels; ++c) {
      result.scales[c] = 1 / (255 * std[c]);
      result.shifts[c] = -mean[c] / std[c];
    }
    return result;
  }
};

// --- the backend of this library -------------------------------------------------------------------------------------

#if defined(USE_CUDA)
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

using Backend = CudaMaskMix;
#else
struct CpuMaskMix {
  explicit CpuMaskMix(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    pmx::mask_mix_forward(shape, operands, parallel);
  }
  void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    pmx::mask_mix_mask_gradient(shape, operands, parallel);
  }
  void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side) const {
    pmx::mask_mix_image_gradient(shape, operands, retain_side, parallel);
  }

 private:
  static constexpr auto parallel = [](int64_t count, int64_t grain, const auto& body) {
    torch::stable::parallel_for(0, count, grain, body);
  };
};

using Backend = CpuMaskMix;
#endif

}  // namespace
}  // namespace pmx

#if defined(USE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) {
#else
// The CPU library, which every installation has, holds the schemas too.
STABLE_TORCH_LIBRARY_FRAGMENT(pymixunlearn, m) {
  // `mean` and `std` are empty, or hold one value for each channel of uint8 images.
  m.def(
      "mask_mix(Tensor x_forget, Tensor x_retain, Tensor mask_logits, bool grid, float[] mean, float[] std, "
      "ScalarType dtype) -> Tensor");
  m.def(
      "mask_mix_backward_mask(Tensor grad, Tensor x_forget, Tensor x_retain, Tensor mask_logits, bool grid, "
      "float[] mean, float[] std) -> Tensor");
  m.def(
      "mask_mix_backward_image(Tensor grad, Tensor mask_logits, bool grid, bool retain_side, SymInt n_forget, "
      "SymInt n_retain, ScalarType dtype, bool channels_last) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) {
#endif
  m.impl("mask_mix", TORCH_BOX(&pmx::MaskMixOperators<pmx::Backend>::mask_mix));
  m.impl("mask_mix_backward_mask", TORCH_BOX(&pmx::MaskMixOperators<pmx::Backend>::mask_mix_backward_mask));
  m.impl("mask_mix_backward_image", TORCH_BOX(&pmx::MaskMixOperators<pmx::Backend>::mask_mix_backward_image));
}
