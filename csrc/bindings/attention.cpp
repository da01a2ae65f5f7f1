// MixBlock's attention over a backend: argument guards, allocation and the launch. The CPU and the CUDA library
// instantiate the same code with their own Backend, which provides
//
//     position_stride_is_free              whether positions may lie apart in memory, or must be neighbours
//     gradient_type(dtype, grid)           element type that the backward writes
//     forward(in, dtype, allow_tf32, states, out)
//     backward(in, dtype, allow_tf32, grad, states, to)
//
// Guards cover memory safety alone. The Python wrapper explains a refused call (ops/reference.py).
#include "../core/attention.h"

#include <cmath>

#include "tensors.h"

#if defined(USE_CUDA)
#include "cuda_queue.h"
#else
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../cpu/kernel_table.h"
#endif

namespace pmx {
namespace {

// The six inputs in kernel layout, with the tensors that own the memory.
class AttentionInputs {
 public:
  // In the order of the schema: queries, keys and values of the forget images, then of the retain images.
  using Tensors = std::array<Tensor, 6>;

  AttentionInputs(const Tensors& tensors, bool grid, bool position_stride_is_free)
      : dtype_(dtype_of(tensors[0])), height_(0), width_(0) {
    STD_TORCH_CHECK(tensors[0].dim() == 4 && tensors[3].dim() == 4, "expected queries [N, d, h, w]");
    const auto sizes = tensors[0].sizes();
    height_ = sizes[2];
    width_ = sizes[3];
    in_.images[0] = sizes[0];
    in_.images[1] = tensors[3].sizes()[0];
    in_.grid = grid;
    in_.dim = sizes[1];
    in_.tokens = height_ * width_;
    STD_TORCH_CHECK(in_.dim > 0 && in_.tokens > 0, "expected d, h and w of at least 1");
    STD_TORCH_CHECK(grid || in_.images[0] == in_.images[1], "expected as many forget as retain images");
    in_.scale = 1 / std::sqrt(static_cast<double>(in_.dim));
    for (int i = 0; i < 6; ++i) maps_[i] = maps_of(tensors[i], i, tensors[0], position_stride_is_free);
    in_.direction[0] = {maps_[0], maps_[4], maps_[2]};
    in_.direction[1] = {maps_[3], maps_[1], maps_[5]};
  }

  const Attention& in() const { return in_; }
  Dtype dtype() const { return dtype_; }
  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  int64_t state_size() const { return in_.pairs() * 2 * state_parts * in_.tokens; }

 private:
  Maps maps_of(const Tensor& tensor, int i, const Tensor& like, bool position_stride_is_free) {
    const bool values = i % 3 == 2;
    const int last = values ? 2 : 3;
    check_same_device(tensor, like);
    STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), "expected one dtype");
    STD_TORCH_CHECK(tensor.dim() == last + 1, "expected queries and keys [N, d, h, w] and values [N, h, w]");
    const auto sizes = tensor.sizes();
    STD_TORCH_CHECK(sizes[0] == in_.images[i / 3] && (values || sizes[1] == in_.dim) && sizes[last - 1] == height_ &&
                        sizes[last] == width_,
                    "expected the shape of the queries");
    const int64_t step = width_ > 1 ? tensor.stride(last) : height_ > 1 ? tensor.stride(last - 1) : 1;
    const bool one_stride = width_ == 1 || height_ == 1 || tensor.stride(last - 1) == width_ * step;
    const bool ready = one_stride && (position_stride_is_free || step == 1);
    owned_[i] = ready ? tensor : torch::stable::contiguous(tensor);
    return {owned_[i]->data_ptr(), owned_[i]->stride(0), values ? 0 : owned_[i]->stride(1), ready ? step : 1};
  }

  Dtype dtype_;
  int64_t height_, width_;
  Attention in_{};
  std::array<Maps, 6> maps_{};
  std::array<std::optional<Tensor>, 6> owned_;
};

template <class Backend>
struct AttentionOperators {
  static std::tuple<Tensor, Tensor> forward(const Tensor& q_f, const Tensor& k_f, const Tensor& v_f, const Tensor& q_r,
                                            const Tensor& k_r, const Tensor& v_r, bool grid, bool allow_tf32) {
    const AttentionInputs inputs({q_f, k_f, v_f, q_r, k_r, v_r}, grid, Backend::position_stride_is_free);
    Tensor state = allocate<1>(q_f, {inputs.state_size()}, accumulation_type(inputs.dtype()));
    Tensor out = allocate<3>(q_f, {inputs.in().pairs(), inputs.height(), inputs.width()}, q_f.scalar_type());
    Backend(q_f).forward(inputs.in(), inputs.dtype(), allow_tf32, state.data_ptr(), out.data_ptr());
    return {out, state};
  }

  // Bit i of `wanted` asks for the gradient of input i; the others come back empty.
  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
      const Tensor& grad, const Tensor& q_f, const Tensor& k_f, const Tensor& v_f, const Tensor& q_r, const Tensor& k_r,
      const Tensor& v_r, const Tensor& state, bool grid, bool allow_tf32, int64_t wanted) {
    const AttentionInputs inputs({q_f, k_f, v_f, q_r, k_r, v_r}, grid, Backend::position_stride_is_free);
    const Attention& in = inputs.in();
    const Dtype dtype = inputs.dtype();
    check_same_device(grad, q_f);
    STD_TORCH_CHECK(grad.scalar_type() == q_f.scalar_type() && grad.numel() == in.pairs() * in.tokens,
                    "expected a gradient like the mask logits");
    check_same_device(state, q_f);
    STD_TORCH_CHECK(state.scalar_type() == accumulation_type(dtype) && state.numel() == inputs.state_size(),
                    "expected the state of this call");
    const Tensor incoming = torch::stable::contiguous(grad), numbers = torch::stable::contiguous(state);
    const ScalarType own = q_f.scalar_type(), written = Backend::gradient_type(own);
    std::array<std::optional<Tensor>, 6> out;
    AttentionGradients to{};
    for (int i = 0; i < 6; ++i) {
      if ((wanted >> i & 1) == 0) {
        out[i] = allocate<1>(q_f, {0}, own);
        continue;
      }
      const int64_t images = in.images[i / 3];
      const bool values = i % 3 == 2;
      out[i] = values ? allocate<3>(q_f, {images, inputs.height(), inputs.width()}, written)
                      : allocate<4>(q_f, {images, in.dim, inputs.height(), inputs.width()}, written);
      // The keys of an image meet the queries of the other side.
      const int side = i / 3;
      void** slot = i % 3 == 0 ? &to.query[side] : i % 3 == 1 ? &to.key[1 - side] : &to.value[side];
      *slot = out[i]->data_ptr();
    }
    Backend(q_f).backward(in, dtype, allow_tf32, incoming.data_ptr(), numbers.data_ptr(), to);
    const auto finished = [&](int i) {
      return out[i]->scalar_type() == own ? *out[i] : torch::stable::to(*out[i], own);
    };
    return {finished(0), finished(1), finished(2), finished(3), finished(4), finished(5)};
  }
};

// --- the backend of this library -------------------------------------------------------------------------------------

#if defined(USE_CUDA)
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

using Backend = CudaAttention;
#else
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

std::unique_ptr<void, Free> scratch_of(int64_t bytes) {
  const size_t rounded = static_cast<size_t>(bytes + 63) / 64 * 64;
  std::unique_ptr<void, Free> memory(std::aligned_alloc(64, rounded));
  STD_TORCH_CHECK(memory != nullptr, "out of memory for the attention's tiles");
  return memory;
}

// Units given to one thread at the least: several times the work that waking a thread costs.
int64_t unit_grain(const Attention& in) {
  const double operations = 4.0 * in.tokens * in.tokens * (in.dim + 16);
  return std::max<int64_t>(1, static_cast<int64_t>(5e5 / operations));
}

struct CpuAttention {
  static constexpr bool position_stride_is_free = true;

  // Accumulation type, because in grid pairing gradients are sums over the partners of an image.
  static ScalarType gradient_type(ScalarType own) {
    return own == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  }

  explicit CpuAttention(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void forward(const Attention& in, Dtype dtype, bool, void* states, void* out) const {
    const AttentionKernels table = kernels().attention(dtype);
    const int64_t bytes = table.scratch_bytes(in, false);
    torch::stable::parallel_for(0, table.forward_units(in), unit_grain(in), [&](int64_t begin, int64_t end) {
      table.forward(in, begin, end, scratch_of(bytes).get(), states, out);
    });
  }

  void backward(const Attention& in, Dtype dtype, bool, const void* grad, const void* states,
                const AttentionGradients& to) const {
    const AttentionKernels table = kernels().attention(dtype);
    const int64_t bytes = table.scratch_bytes(in, true);
    const size_t element = dtype == Dtype::f64 ? sizeof(double) : sizeof(float);
    if (in.grid) clear(in, element, to);
    const GridRounds rounds(in);
    for (int64_t round = 0; round < rounds.rounds; ++round) {
      torch::stable::parallel_for(0, 2 * rounds.pairs, unit_grain(in), [&](int64_t begin, int64_t end) {
        table.backward(in, round, begin, end, grad, states, scratch_of(bytes).get(), to);
      });
    }
  }

 private:
  static void clear(const Attention& in, size_t element, const AttentionGradients& to) {
    for (int k = 0; k < 2; ++k) {
      const size_t mine = in.images[k] * in.tokens * element, other = in.images[1 - k] * in.tokens * element;
      if (to.query[k] != nullptr) std::memset(to.query[k], 0, mine * in.dim);
      if (to.key[k] != nullptr) std::memset(to.key[k], 0, other * in.dim);
      if (to.value[k] != nullptr) std::memset(to.value[k], 0, mine);
    }
  }
};

using Backend = CpuAttention;
#endif

}  // namespace
}  // namespace pmx

#if defined(USE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) {
#else
// The CPU library, which every installation has, holds the schemas too.
STABLE_TORCH_LIBRARY_FRAGMENT(pymixunlearn, m) {
  // `state` holds three numbers per query (core/attention.h). The backward returns the gradients that the bits of
  // `wanted` ask for, in the order of the inputs; the others are empty.
  m.def(
      "mixblock_attention(Tensor q_f, Tensor k_f, Tensor v_f, Tensor q_r, Tensor k_r, Tensor v_r, bool grid, "
      "bool allow_tf32) -> (Tensor mask_logits, Tensor state)");
  m.def(
      "mixblock_attention_backward(Tensor grad, Tensor q_f, Tensor k_f, Tensor v_f, Tensor q_r, Tensor k_r, "
      "Tensor v_r, Tensor state, bool grid, bool allow_tf32, int wanted) -> (Tensor grad_q_f, Tensor grad_k_f, "
      "Tensor grad_v_f, Tensor grad_q_r, Tensor grad_k_r, Tensor grad_v_r)");
}

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) {
#endif
  m.impl("mixblock_attention", TORCH_BOX(&pmx::AttentionOperators<pmx::Backend>::forward));
  m.impl("mixblock_attention_backward", TORCH_BOX(&pmx::AttentionOperators<pmx::Backend>::backward));
}
