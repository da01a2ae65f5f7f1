#include <algorithm>

#include "../cpu/contrast.h"
#include "../cpu/kernels.h"
#include "losses.h"

namespace pmx {
namespace {

// Rows given to one thread at the least: about 10 microseconds of work, several times what waking a thread costs.
int64_t row_grain(int64_t classes) { return std::max<int64_t>(1, 16384 / (classes + 16)); }

struct Cpu {
  explicit Cpu(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void cosine_forward(const Rows& rows, void* states, void* sim) const {
    const CosineKernels table = kernels().cosine(rows.dtype(), target_dtype(rows), rows.kind(), rows.targets());
    torch::stable::parallel_for(0, rows.in().rows, row_grain(rows.in().classes),
                                [&](int64_t begin, int64_t end) { table.forward(rows.in(), begin, end, states, sim); });
  }

  template <class A>
  void reduce(const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* lse, void* loss, Dtype dtype) const {
    const A total = reduce_columns(terms, contrast, lse, [](int64_t count, int64_t grain, const auto& body) {
      torch::stable::parallel_for(0, count, grain, body);
    });
    switch (dtype) {
      case Dtype::f32:
        *static_cast<float*>(loss) = static_cast<float>(total);
        break;
      case Dtype::f64:
        *static_cast<double*>(loss) = total;
        break;
      case Dtype::bf16:
        *static_cast<BFloat16*>(loss) = narrow<BFloat16>(static_cast<float>(total));
        break;
      case Dtype::f16:
        *static_cast<Half*>(loss) = narrow<Half>(static_cast<float>(total));
        break;
    }
  }

  template <class A>
  void cosine_backward(const Rows& rows, const A* states, RowRole role, const Contrast<A>& contrast,
                       const RowScalar<A>& grad, void* out) const {
    const CosineKernels table = kernels().cosine(rows.dtype(), target_dtype(rows), rows.kind(), rows.targets());
    torch::stable::parallel_for(0, rows.in().rows, row_grain(rows.in().classes), [&](int64_t begin, int64_t end) {
      table.backward(rows.in(), begin, end, states, role, &contrast, &grad, out);
    });
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
  static Dtype target_dtype(const Rows& rows) {
    return rows.kind() == TargetKind::labels ? rows.dtype() : rows.target_dtype();
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_LOSSES(m, pmx::Cpu); }
