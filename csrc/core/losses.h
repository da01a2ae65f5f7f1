// From sizes to the structures of contrastive.h: the pairs of a loss, its weights (math.md, section 3) and where its
// terms lie. Shared by everything that runs the losses.
#pragma once

#include "contrastive.h"

namespace pmx {

// The rows of a mixed loss. In grid pairing every retain image is a column of its own.
struct Pairs {
  int64_t forget;
  int64_t retain;
  bool grid;

  int64_t rows() const { return grid ? forget * retain : forget; }
  int64_t columns() const { return grid ? retain : 1; }
  // Divisors of TargetRows; its modulus is the number of images.
  int64_t forget_divisor() const { return grid ? retain : 1; }
  int64_t retain_divisor() const { return 1; }
};

template <class A>
Contrast<A> mix_contrast(const Pairs& pairs, const RowScalar<A>& lam, const RowScalar<A>& tau, bool mean,
                         const A* lse) {
  const A scale = mean && pairs.retain > 0 ? A(1) / pairs.retain : A(1);
  const A per_column = pairs.grid ? A(1) : static_cast<A>(pairs.retain);
  const A averaged = pairs.grid && pairs.forget > 0 ? A(1) / pairs.forget : A(1);
  return {pairs.columns(), lam, tau, scale * per_column, scale * averaged, lse};
}

template <class A>
ContrastTerms<A> mix_terms(const Pairs& pairs, const A* states) {
  const int64_t columns = pairs.columns(), terms = columns > 0 ? pairs.rows() / columns : 0;
  const int width = state_width(2);
  return {{states, width, sim_slot(0), terms, columns}, {states, width, sim_slot(1), terms, columns}, true};
}

template <class A>
Contrast<A> real_contrast(int64_t n_retain, const RowScalar<A>& tau, bool mean, const A* lse) {
  const A scale = mean && n_retain > 0 ? A(1) / n_retain : A(1);
  return {1, {nullptr, 0, A(1)}, tau, scale * n_retain, scale, lse};
}

template <class A>
ContrastTerms<A> real_terms(const A* forget_states, int64_t n_forget, const A* retain_states, int64_t n_retain) {
  const int width = state_width(1);
  return {{forget_states, width, sim_slot(0), n_forget, 1}, {retain_states, width, sim_slot(0), n_retain, 1}, false};
}

}  // namespace pmx
