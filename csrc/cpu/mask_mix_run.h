// The directions of mask_mix on the CPU, over whatever runs loops in parallel: `parallel_for(count, grain, body)` calls
// body(begin, end) over [0, count), from as many threads as it likes.
#pragma once

#include <algorithm>
#include <memory>

#include "kernel_table.h"

namespace pmx {

// Elements given to one thread at the least: a few microseconds of work, several times what waking a thread costs.
constexpr int64_t least_mask_mix_elements = 32768;

// Runs one of the MaskMixKernels over its tasks, each of `elements_per_task(plan)` elements.
template <class Kernel, class Tasks, class Elements, class ParallelFor>
void run_mask_mix(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side, Kernel kernel,
                  Tasks tasks, Elements&& elements_per_task, ParallelFor&& parallel_for) {
  const auto with_taps = [&](auto zero) {
    using A = decltype(zero);
    const MaskMixTaps<A> taps(shape, operands, retain_side);
    const MaskMixPlan& plan = taps.plan();
    const auto body = kernels().mask_mix(shape.in_double()).*kernel;
    const int64_t grain = std::max<int64_t>(1, least_mask_mix_elements / std::max<int64_t>(1, elements_per_task(plan)));
    parallel_for((plan.*tasks)(), grain, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<A[]> workspace(new A[plan.workspace()]);  // not initialised
      body(plan, begin, end, workspace.get());
    });
  };
  shape.in_double() ? with_taps(double{}) : with_taps(float{});
}

template <class ParallelFor>
void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands, ParallelFor&& parallel_for) {
  const int64_t partners = shape.grid ? shape.n_retain : 1;
  const auto elements = [&](const MaskMixPlan& plan) {
    return plan.rows_per_chunk * shape.width * shape.channels * partners;
  };
  run_mask_mix(shape, operands, false, &MaskMixKernels::forward, &MaskMixPlan::forward_tasks, elements, parallel_for);
}

template <class ParallelFor>
void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, ParallelFor&& parallel_for) {
  const auto elements = [&](const MaskMixPlan& plan) { return shape.image_size() / plan.blocks; };
  run_mask_mix(shape, operands, false, &MaskMixKernels::mask_gradient, &MaskMixPlan::mask_gradient_tasks, elements,
               parallel_for);
}

template <class ParallelFor>
void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side,
                             ParallelFor&& parallel_for) {
  const int64_t partners = !shape.grid ? 1 : retain_side ? shape.n_forget : shape.n_retain;
  const auto elements = [&](const MaskMixPlan& plan) {
    return plan.rows_per_chunk * shape.width * shape.channels * partners;
  };
  run_mask_mix(shape, operands, retain_side, &MaskMixKernels::image_gradient, &MaskMixPlan::image_gradient_tasks,
               elements, parallel_for);
}

}  // namespace pmx
