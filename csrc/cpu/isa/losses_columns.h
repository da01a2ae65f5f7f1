// The terms of a contrastive loss, summed over stretches of a column; compiled for each instruction set.
#pragma once

#include <algorithm>

#include "../../core/losses.h"
#include "row_loops.h"

namespace pmx {
inline namespace PMX_ISA {

// Writes the weighted terms [begin, end) of one side to `x` and says how many there are.
template <class A, class Term>
PMX_INLINE int64_t gather_terms(const Side<A>& side, int64_t begin, int64_t end, int64_t column, A* x, Term&& term) {
  const int64_t count = std::max<int64_t>(0, std::min(end, side.terms) - begin);
  const A* loss = side.states + side.row(begin, column) * side.width + side.slot;
  const int64_t step = side.row_step * side.width;
  for (int64_t i = 0; i < count; ++i) x[i] = term(side.row(begin + i, column), loss[i * step]);
  return count;
}

// What the terms [begin, end) of a column contribute.
template <class A>
static ColumnSum<A> column_sum(const ContrastTerms<A>& terms, const Contrast<A>& contrast, int64_t column,
                               int64_t begin, int64_t end) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  constexpr int64_t chunk = 256;
  const A inverse_tau = A(1) / contrast.tau.at(0);
  A x[chunk];
  ColumnSum<A> total = ColumnSum<A>::empty();
  for (int64_t first = begin; first < end; first += chunk) {
    const int64_t last = std::min(end, first + chunk);
    const int64_t forget = gather_terms(terms.forget, first, last, column, x, [&](int64_t row, A loss) {
      return (terms.mixed ? contrast.lam.at(row) : A(1)) * inverse_tau * loss;
    });
    if (forget > 0) {
      const A max = row_max(x, forget);
      V sums{};
      over_row<lanes>(forget, [&](int64_t j, auto count) { sums += exp(load_at(x + j, count, A(-INFINITY)) - max); });
      total.forget.merge({max, sum(sums)});
    }
    const int64_t retain = gather_terms(terms.retain, first, last, column, x, [&](int64_t row, A loss) {
      return (terms.mixed ? A(1) - contrast.lam.at(row) : A(1)) * loss;
    });
    V sums{};
    over_row<lanes>(retain, [&](int64_t j, auto count) { sums += load_at(x + j, count, A(0)); });
    total.retain += sum(sums);
  }
  return total;
}

}  // namespace PMX_ISA
}  // namespace pmx
