#include <memory>

#include "../cpu/kernels.h"
#include "mix.h"

namespace pmx {
namespace {

// Elements given to one thread at the least: a few microseconds of work, several times what waking a thread costs.
constexpr int64_t least_elements = 32768;

struct Cpu {
  explicit Cpu(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void mix_forward(const MixShape& shape, const MixOperands& operands) const {
    const int64_t partners = shape.grid ? shape.n_retain : 1;
    run(shape, operands, false, &MixKernels::forward, &MixPlan::forward_tasks,
        [&](const MixPlan& plan) { return plan.rows_per_chunk * shape.width * shape.channels * partners; });
  }

  void mix_mask_gradient(const MixShape& shape, const MixOperands& operands) const {
    run(shape, operands, false, &MixKernels::mask_gradient, &MixPlan::mask_gradient_tasks,
        [&](const MixPlan& plan) { return shape.image_size() / plan.blocks; });
  }

  void mix_image_gradient(const MixShape& shape, const MixOperands& operands, bool retain_side) const {
    const int64_t partners = !shape.grid ? 1 : retain_side ? shape.n_forget : shape.n_retain;
    run(shape, operands, retain_side, &MixKernels::image_gradient, &MixPlan::image_gradient_tasks,
        [&](const MixPlan& plan) { return plan.rows_per_chunk * shape.width * shape.channels * partners; });
  }

 private:
  template <class Kernel, class Tasks, class Elements>
  static void run(const MixShape& shape, const MixOperands& operands, bool retain_side, Kernel kernel, Tasks tasks,
                  Elements&& elements_per_task) {
    const auto with_taps = [&](auto zero) {
      using A = decltype(zero);
      const MixTaps<A> taps(shape, operands, retain_side);
      const MixPlan& plan = taps.plan();
      const auto body = kernels().mix(shape.in_double()).*kernel;
      const int64_t grain = std::max<int64_t>(1, least_elements / std::max<int64_t>(1, elements_per_task(plan)));
      torch::stable::parallel_for(0, (plan.*tasks)(), grain, [&](int64_t begin, int64_t end) {
        const std::unique_ptr<A[]> workspace(new A[plan.workspace()]);  // not initialised
        body(plan, begin, end, workspace.get());
      });
    };
    shape.in_double() ? with_taps(double{}) : with_taps(float{});
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_MIXING(m, pmx::Cpu); }
