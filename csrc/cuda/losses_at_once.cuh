// A whole contrastive loss in one block, for problems so small that launches are the cost: the states of the rows, the
// log-sum-exp of each column, the loss and, if it is wanted, the gradient.
#pragma once

#include "launch_plan.h"
#include "losses_columns.cuh"
#include "losses_rows.cuh"

namespace pmx {

// What one block takes on: as much work as the three launches that it saves take time, at 2 microseconds each
// (docs/performance.md). Wider rows would need kernels of their own, and of them a batch of 32 images has too many
// elements.
constexpr int64_t at_once_elements = 2048;
constexpr int64_t at_once_classes = 64;

template <class A>
bool fits_at_once(const RowSets& sets, const ContrastTerms<A>& terms, const Contrast<A>& contrast) {
  const int64_t longest = terms.forget.terms > terms.retain.terms ? terms.forget.terms : terms.retain.terms;
  static_assert(row_group(at_once_classes) == RowGroup::part_of_warp);
  return sets.first.classes <= at_once_classes && sets.rows() * sets.first.classes <= at_once_elements &&
         contrast.columns <= warp_size && longest <= device_stretch;
}

// One block. `partial` is scratch memory, [columns]; `contrast.lse` is `lse`. Shared memory: one ColumnSum for each
// thread.
template <class T, class U, TargetKind kind, class Block>
PMX_HD void at_once_body(Block& block, const RowSets& sets, int targets, RowRole role,
                         const ContrastTerms<Acc<T>>& terms, const Contrast<Acc<T>>& contrast,
                         ColumnSum<Acc<T>>* partial, Acc<T>* states, Acc<T>* lse, T* loss, bool with_gradient,
                         T* out_first, T* out_second) {
  using A = Acc<T>;
  constexpr int group = part_of_warp_threads;
  const int groups = block.threads() / group, own = block.thread() / group;
  for (int64_t first = 0; first < sets.rows(); first += groups) {
    cosine_forward_row<T, U, kind, group, 1>(block, sets, targets, first + own, states, static_cast<T*>(nullptr));
  }
  block.sync();
  column_sums_body<A, warp_size>(block, terms, contrast, 1, partial);
  block.sync();
  column_losses_body<T>(block, contrast, 1, partial, lse, loss);
  if (!with_gradient) return;
  block.sync();
  const RowScalar<A> one = {nullptr, 0, A(1)};
  for (int64_t first = 0; first < sets.rows(); first += groups) {
    cosine_backward_row<T, U, kind, group, 1>(block, sets, targets, first + own, states, role, contrast, one, out_first,
                                              out_second);
  }
}

}  // namespace pmx
