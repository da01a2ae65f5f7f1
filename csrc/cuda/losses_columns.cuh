// The coupling of the rows on the GPU, in two launches and in a fixed order (no atomics): every block sums a stretch of
// a column's terms, then one block joins the stretches, writes each column's log-sum-exp and adds up the loss.
#pragma once

#include "../core/losses.h"
#include "block.cuh"

namespace pmx {

// Terms of a column that one block sums.
constexpr int64_t device_stretch = 4096;

// Neighbouring columns lie next to each other in memory, so in grid pairing a block takes `tile` columns at once.
// Shared memory: one ColumnSum for each thread.
template <class A, int tile, class Block>
PMX_HD void column_sums_body(Block& block, const ContrastTerms<A>& terms, const Contrast<A>& contrast,
                             int64_t stretches, ColumnSum<A>* partial) {
  const int64_t longest = terms.forget.terms > terms.retain.terms ? terms.forget.terms : terms.retain.terms;
  const int64_t stretch = block.index() % stretches, lanes = block.threads() / tile;
  const int64_t column = (block.index() / stretches) * tile + block.thread() % tile;
  const int64_t first = stretch * device_stretch;
  const int64_t last = longest < first + device_stretch ? longest : first + device_stretch;
  ColumnSum<A> sum = ColumnSum<A>::empty();
  if (column < contrast.columns) {
    for (int64_t i = first + block.thread() / tile; i < last; i += lanes) sum.add(terms, contrast, i, column);
  }
  ColumnSum<A>* slots = reinterpret_cast<ColumnSum<A>*>(block.shared());
  slots[block.thread()] = sum;
  block.sync();
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    if (block.thread() / tile < half) slots[block.thread()].merge(slots[block.thread() + half * tile]);
    block.sync();
  }
  if (block.thread() < tile && column < contrast.columns) partial[column * stretches + stretch] = slots[block.thread()];
}

// One block. Shared memory: one A for each thread.
template <class T, class Block>
PMX_HD void column_losses_body(Block& block, const Contrast<Acc<T>>& contrast, int64_t stretches,
                               const ColumnSum<Acc<T>>* partial, Acc<T>* lse, T* loss) {
  using A = Acc<T>;
  A mine = 0;
  for (int64_t column = block.thread(); column < contrast.columns; column += block.threads()) {
    ColumnSum<A> total = ColumnSum<A>::empty();
    for (int64_t s = 0; s < stretches; ++s) total.merge(partial[column * stretches + s]);
    lse[column] = total.forget.value();
    mine += total.loss(contrast);
  }
  A* slots = reinterpret_cast<A*>(block.shared());
  slots[block.thread()] = mine;
  block.sync();
  for (int half = block.threads() / 2; half > 0; half /= 2) {
    if (block.thread() < half) slots[block.thread()] += slots[block.thread() + half];
    block.sync();
  }
  if (block.thread() == 0) *loss = narrow<T>(slots[0]);
}

}  // namespace pmx
