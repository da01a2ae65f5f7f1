#include <algorithm>

#include "../cpu/kernel_table.h"
#include "../cpu/losses.h"
#include "losses.h"

namespace pmx {
namespace {

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

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_LOSSES(m, pmx::CpuLosses); }
