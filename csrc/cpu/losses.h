// How rows are shared out to threads, and what couples them: the log-sum-exp of every column and the loss, from the
// rows' cosines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../core/losses.h"

namespace pmx {

// Rows given to one thread at the least: about 10 microseconds of work, several times what waking a thread costs.
inline int64_t row_grain(int64_t classes) { return std::max<int64_t>(1, 16384 / (classes + 16)); }

// Columns are cut into stretches of this many terms. The cut is fixed, so the result does not depend on the threads.
constexpr int64_t stretch_terms = 4096;

// `parallel_for(count, grain, body)` calls body(begin, end) over [0, count), from as many threads as it likes.
template <class A, class ParallelFor>
A reduce_columns(ColumnKernel<A> column_sum, const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* lse,
                 ParallelFor&& parallel_for) {
  const int64_t longest = std::max(terms.forget.terms, terms.retain.terms);
  const int64_t stretches = std::max<int64_t>(1, (longest + stretch_terms - 1) / stretch_terms);
  const int64_t count = contrast.columns * stretches;
  std::vector<ColumnSum<A>> sums(count, ColumnSum<A>::empty());
  const int64_t grain = std::max<int64_t>(1, 2048 / std::max<int64_t>(1, std::min(longest, stretch_terms)));
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = k / stretches, first = (k % stretches) * stretch_terms;
      sums[k] = column_sum(terms, contrast, column, first, std::min(longest, first + stretch_terms));
    }
  });
  A loss = A(0);
  for (int64_t column = 0; column < contrast.columns; ++column) {
    ColumnSum<A> total = ColumnSum<A>::empty();
    for (int64_t s = 0; s < stretches; ++s) total.merge(sums[column * stretches + s]);
    lse[column] = total.forget.value();
    loss += total.loss(contrast);
  }
  return loss;
}

}  // namespace pmx
