// The losses and sharpen in torch.ops.pymixunlearn: schemas, and the kernels of the CPU or, in the CUDA library,
// those of the GPU. Their guards and allocation are in losses.h.
#include "losses.h"

#if defined(USE_CUDA)
#include "cuda_queue.h"
#else
#include <algorithm>

#include "../cpu/kernel_table.h"
#include "../cpu/losses.h"
#endif

namespace pmx {
namespace {

// --- the backend of this library -------------------------------------------------------------------------------------

#if defined(USE_CUDA)
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

using Backend = CudaLosses;
#else
struct CpuLosses {
  explicit CpuLosses(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void cosine_forward(const Pass& pass, void* states, void* sim) const {
    over_rows(pass, [&](const CosineRows& in, bool second, int64_t begin, int64_t end) {
      void* own = second ? static_cast<char*>(states) + state_bytes(pass) * pass.sets.first.rows : states;
      table(pass).forward(in, begin, end, own, sim);
    });
  }

  template <class A>
  void cosine_backward(const Pass& pass, const A* states, const Contrast<A>& contrast, const RowScalar<A>& grad,
                       const Gradients& out) const {
    over_rows(pass, [&](const CosineRows& in, bool second, int64_t begin, int64_t end) {
      const A* own = second ? states + state_width(pass.targets) * pass.sets.first.rows : states;
      table(pass).backward(in, begin, end, own, role_of(pass.role, second), &contrast, &grad,
                           second ? out.second : out.first);
    });
  }

  template <class A>
  void contrast(const Pass& pass, const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* states, A* lse,
                void* loss, const Gradients* out) const {
    cosine_forward(pass, states, nullptr);
    const A total = reduce_columns(
        kernels().column<A>(), terms, contrast, lse,
        [](int64_t count, int64_t grain, const auto& body) { torch::stable::parallel_for(0, count, grain, body); });
    write(loss, total, pass.dtype);
    if (out != nullptr) cosine_backward(pass, states, contrast, {nullptr, 0, A(1)}, *out);
  }

  void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T,
                       void* out) const {
    const SharpenKernels table = kernels().sharpen(dtype);
    torch::stable::parallel_for(0, rows, row_grain(classes), [&](int64_t begin, int64_t end) {
      table.forward(logits, classes, inverse_T, begin, end, out);
    });
  }

  void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                        double inverse_T, void* out) const {
    const SharpenKernels table = kernels().sharpen(dtype);
    torch::stable::parallel_for(0, rows, row_grain(classes), [&](int64_t begin, int64_t end) {
      table.backward(grad, logits, classes, inverse_T, begin, end, out);
    });
  }

 private:
  static CosineKernels table(const Pass& pass) {
    const Dtype target = pass.kind == TargetKind::labels ? pass.dtype : pass.target_dtype;
    return kernels().cosine(pass.dtype, target, pass.kind, pass.targets);
  }

  static int64_t state_bytes(const Pass& pass) {
    return state_width(pass.targets) * static_cast<int64_t>(pass.dtype == Dtype::f64 ? sizeof(double) : sizeof(float));
  }

  // Calls body(rows, whether they are the second set, begin, end) from as many threads as pay, both sets in one go.
  template <class Body>
  static void over_rows(const Pass& pass, const Body& body) {
    const int64_t first = pass.sets.first.rows;
    torch::stable::parallel_for(0, pass.sets.rows(), row_grain(pass.sets.first.classes),
                                [&](int64_t begin, int64_t end) {
                                  if (begin < first) body(pass.sets.first, false, begin, std::min(end, first));
                                  if (end > first)
                                    body(pass.sets.second, true, std::max(begin, first) - first, end - first);
                                });
  }

  static void write(void* to, double value, Dtype dtype) {
    switch (dtype) {
      case Dtype::f32:
        *static_cast<float*>(to) = static_cast<float>(value);
        break;
      case Dtype::f64:
        *static_cast<double*>(to) = value;
        break;
      case Dtype::bf16:
        *static_cast<BFloat16*>(to) = narrow<BFloat16>(static_cast<float>(value));
        break;
      case Dtype::f16:
        *static_cast<Half*>(to) = narrow<Half>(static_cast<float>(value));
        break;
    }
  }
};

using Backend = CpuLosses;
#endif

}  // namespace
}  // namespace pmx

#if defined(USE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CUDA, m) {
#else
// The CPU library, which every installation has, holds the schemas too.
STABLE_TORCH_LIBRARY_FRAGMENT(pymixunlearn, m) {
  m.def("sharpen(Tensor logits, float T) -> Tensor");
  m.def("sharpen_backward(Tensor grad, Tensor logits, float T) -> Tensor");
  // `state` holds a few scalars per row (core/losses.h) and is what the backward needs besides the inputs.
  m.def("sim_loss(Tensor logits, Tensor target, float? sharpen_T) -> (Tensor loss, Tensor state)");
  m.def("sim_loss_backward(Tensor grad, Tensor logits, Tensor target, Tensor state, float? sharpen_T) -> Tensor");
  // A scalar argument that may be a tensor comes twice: the tensor, and the number that holds when there is none.
  m.def(
      "mix_contrastive_loss(Tensor logits, Tensor target_forget, Tensor target_retain, Tensor? lam, float lam_value, "
      "Tensor? tau, float tau_value, bool grid, bool mean, float? sharpen_T) -> (Tensor loss, Tensor state)");
  // The loss and its gradient in one call, for small inputs, where calls are the cost.
  m.def(
      "mix_contrastive_loss_and_gradient(Tensor logits, Tensor target_forget, Tensor target_retain, Tensor? lam, "
      "float lam_value, Tensor? tau, float tau_value, bool grid, bool mean, float? sharpen_T) "
      "-> (Tensor loss, Tensor gradient)");
  m.def(
      "mix_contrastive_loss_backward(Tensor grad, Tensor logits, Tensor target_forget, Tensor target_retain, "
      "Tensor state, Tensor? lam, float lam_value, Tensor? tau, float tau_value, bool grid, bool mean, "
      "float? sharpen_T) -> Tensor");
  m.def(
      "real_contrastive_loss(Tensor logits_forget, Tensor logits_retain, Tensor target_forget, Tensor target_retain, "
      "Tensor? tau, float tau_value, bool mean, float? sharpen_T) -> (Tensor loss, Tensor state)");
  m.def(
      "real_contrastive_loss_and_gradients(Tensor logits_forget, Tensor logits_retain, Tensor target_forget, "
      "Tensor target_retain, Tensor? tau, float tau_value, bool mean, float? sharpen_T) "
      "-> (Tensor loss, Tensor grad_forget, Tensor grad_retain)");
  // Gradients that are not wanted come back empty.
  m.def(
      "real_contrastive_loss_backward(Tensor grad, Tensor logits_forget, Tensor logits_retain, Tensor target_forget, "
      "Tensor target_retain, Tensor state, Tensor? tau, float tau_value, bool mean, float? sharpen_T, "
      "bool want_forget, bool want_retain) -> (Tensor grad_forget, Tensor grad_retain)");
}

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) {
#endif
  m.impl("sharpen", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::sharpen));
  m.impl("sharpen_backward", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::sharpen_backward));
  m.impl("sim_loss", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::sim_loss));
  m.impl("sim_loss_backward", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::sim_loss_backward));
  m.impl("mix_contrastive_loss", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::mix_contrastive_loss));
  m.impl("mix_contrastive_loss_and_gradient",
         TORCH_BOX(&pmx::LossOperators<pmx::Backend>::mix_contrastive_loss_and_gradient));
  m.impl("mix_contrastive_loss_backward", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::mix_contrastive_loss_backward));
  m.impl("real_contrastive_loss", TORCH_BOX(&pmx::LossOperators<pmx::Backend>::real_contrastive_loss));
  m.impl("real_contrastive_loss_and_gradients",
         TORCH_BOX(&pmx::LossOperators<pmx::Backend>::real_contrastive_loss_and_gradients));
  m.impl("real_contrastive_loss_backward",
         TORCH_BOX(&pmx::LossOperators<pmx::Backend>::real_contrastive_loss_backward));
}
