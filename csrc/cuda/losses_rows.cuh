// Row kernels of the losses: the state of each row in one pass over its logits and targets (online softmax), and the
// gradient row from that state. A group of `group` threads shares a row: part of a warp for few classes, a warp for
// many, the whole block for very many.
#pragma once

#include "../core/losses.h"
#include "block.cuh"
#include "pack.cuh"

namespace pmx {

// Sums of a row (or of a lane's share of it) of elements of type T, relative to the maxima seen so far.
template <class T>
struct OnlineRow {
  using A = Acc<T>;
  A max = -INFINITY;
  A e2 = 0;
  A target_max[2] = {-INFINITY, -INFINITY};
  A dot[2] = {0, 0};
  A norm2[2] = {0, 0};

  // exp((x - top) / T), and 0 where nothing was seen yet: -inf - -inf has no value.
  static PMX_HD A rescale(A x, A top, A inverse_T = A(1)) {
    return x == -INFINITY ? A(0) : exp_for<T>((x - top) * inverse_T);
  }

  // Makes the sums relative to `top` if it is the largest logit so far. Once for a pack of elements: the chain of
  // dependent operations per element is then a multiplication and an addition.
  PMX_HD void raise(A top) {
    if (!(top > max)) return;
    const A shrink = exp_for<T>(max - top);  // 0 the first time: top is not -inf
    e2 *= shrink * shrink;
    for (int k = 0; k < 2; ++k) dot[k] *= shrink;
    max = top;
  }

  PMX_HD void raise_target(int k, A top, A inverse_T) {
    if (!(top > target_max[k])) return;
    const A shrink = exp_for<T>((target_max[k] - top) * inverse_T);
    norm2[k] *= shrink * shrink;
    dot[k] *= shrink;
    target_max[k] = top;
  }

  // What logits are relative to: 0 while all were -inf, for -inf - -inf has no value.
  static PMX_HD A base_of(A top) { return top == -INFINITY ? A(0) : top; }

  // e is exp of an element relative to the largest so far.
  PMX_HD void add_logit(A e) { e2 += e * e; }

  PMX_HD void add_target(int k, A e, A t) {
    dot[k] += e * t;
    norm2[k] += t * t;
  }

  // Sums of all lanes of a group within a warp, in each of them: relative to the same maxima first, so that nothing but
  // additions is left. Targets of which there are none, and maxima of probabilities, are left out.
  template <int group, TargetKind kind, class Block>
  PMX_HD void combine_lanes(Block& block, int targets, A inverse_T) {
    A top = max;
    for (int mask = group / 2; mask > 0; mask /= 2) top = larger(top, block.shuffle_xor(top, mask));
    const A shrink = rescale(max, top);
    e2 = e2 * (shrink * shrink);
    max = top;
    for (int mask = group / 2; mask > 0; mask /= 2) e2 += block.shuffle_xor(e2, mask);
    if constexpr (kind == TargetKind::labels) return;
    for (int k = 0; k < 2; ++k) {
      if (k >= targets) break;
      A own = shrink;
      if constexpr (kind == TargetKind::teacher_logits) {
        top = target_max[k];
        for (int mask = group / 2; mask > 0; mask /= 2) top = larger(top, block.shuffle_xor(top, mask));
        const A of_target = rescale(target_max[k], top, inverse_T);
        norm2[k] *= of_target * of_target;
        own *= of_target;
        target_max[k] = top;
      }
      dot[k] *= own;
      for (int mask = group / 2; mask > 0; mask /= 2) {
        dot[k] += block.shuffle_xor(dot[k], mask);
        norm2[k] += block.shuffle_xor(norm2[k], mask);
      }
    }
  }
  static PMX_HD A larger(A a, A b) { return b > a ? b : a; }

  PMX_HD void merge(const OnlineRow& other, A inverse_T) {
    const A top = other.max > max ? other.max : max;
    const A mine = rescale(max, top), theirs = rescale(other.max, top);
    e2 = e2 * mine * mine + other.e2 * theirs * theirs;
    max = top;
    for (int k = 0; k < 2; ++k) {
      // Probabilities keep target_max at -inf on both sides: their sums are not relative to anything.
      const A target_top = other.target_max[k] > target_max[k] ? other.target_max[k] : target_max[k];
      const bool relative = target_top != -INFINITY;
      const A my_target = relative ? rescale(target_max[k], target_top, inverse_T) : A(1);
      const A their_target = relative ? rescale(other.target_max[k], target_top, inverse_T) : A(1);
      dot[k] = dot[k] * mine * my_target + other.dot[k] * theirs * their_target;
      norm2[k] = norm2[k] * my_target * my_target + other.norm2[k] * their_target * their_target;
      target_max[k] = target_top;
    }
  }
};

// The set of row n of a pass. Copied field by field: kernel arguments that are indexed or pointed to would move to
// local memory.
PMX_HD CosineRows set_of(const RowSets& sets, bool second) {
  CosineRows in = sets.first;
  if (second) {
    in.logits = sets.second.logits;
    in.stride = sets.second.stride;
    in.targets[0] = sets.second.targets[0];
  }
  return in;
}

// Packs that a lane takes at a time: of halves two, which need one maximum and one rescaling together.
template <class T, int pack>
constexpr int packs_at_a_time = in_pairs<T, pack> ? 2 : 1;

// Adds a lane's share of a row with `targets` targets to its sums.
template <class T, class U, TargetKind kind, int group, int pack, int targets, class Block>
PMX_HD void add_lane(const Block& block, int64_t classes, const T* z, const U* const* target, Acc<T> inverse_T,
                     OnlineRow<T>& sums) {
  using A = Acc<T>;
  constexpr int packs = packs_at_a_time<T, pack>, step = group * pack;
  over_lane<group, pack, packs>(block, classes, [&](auto j) {
    // Where a row ends before the last pack, the first is read in its place, which does not change the maximum.
    decltype(j) at[packs];
    for (int q = 0; q < packs; ++q) at[q] = q == 0 || j + q * step < classes ? j + q * step : j;
    Pack<T, pack> logits[packs];
    for (int q = 0; q < packs; ++q) logits[q] = load_pack<T, pack>(z + at[q]);
    [[maybe_unused]] Pack<U, pack> values[targets][packs];
    if constexpr (kind != TargetKind::labels) {  // on their way while the logits are worked on
      for (int k = 0; k < targets; ++k) {
        for (int q = 0; q < packs; ++q) values[k][q] = load_pack<U, pack>(target[k] + at[q]);
      }
    }
    sums.raise(largest(logits));
    const RelativeExp<T> exponential(OnlineRow<T>::base_of(sums.max));
    A target_base[targets];
    for (int k = 0; k < targets; ++k) {
      if constexpr (kind == TargetKind::teacher_logits) sums.raise_target(k, largest(values[k]), inverse_T);
      target_base[k] = OnlineRow<T>::base_of(sums.target_max[k]);
    }
    for (int q = 0; q < packs; ++q) {
      if (q > 0 && at[q] == j) break;
      Pack<A, pack> e = widen_pack(logits[q]);
      for (int i = 0; i < pack; ++i) {
        e.at[i] = exponential(e.at[i]);
        sums.add_logit(e.at[i]);
      }
      if constexpr (kind != TargetKind::labels) {
        for (int k = 0; k < targets; ++k) {
          Pack<Acc<U>, pack> t = widen_pack(values[k][q]);
          if constexpr (kind == TargetKind::teacher_logits) {
            const RelativeExp<U> of_target(static_cast<Acc<U>>(target_base[k]), static_cast<Acc<U>>(inverse_T));
            for (int i = 0; i < pack; ++i) t.at[i] = of_target(t.at[i]);
          }
          for (int i = 0; i < pack; ++i) sums.add_target(k, e.at[i], t.at[i]);
        }
      }
    }
  });
}

// The state of row n of a pass, by its group of threads; n may lie behind the last row.
// Shared memory: one OnlineRow for each warp when the group is the block.
template <class T, class U, TargetKind kind, int group, int pack, class Block>
PMX_HD void cosine_forward_row(Block& block, const RowSets& sets, int targets, int64_t n, Acc<T>* states, T* sim) {
  using A = Acc<T>;
  const bool live = n < sets.rows();  // idle groups still take part in the exchanges
  const bool second = live && n >= sets.first.rows;
  const CosineRows in = set_of(sets, second);
  const int64_t row = second ? n - sets.first.rows : n;
  const T* z = static_cast<const T*>(in.logits) + (live ? row : 0) * in.stride;
  const A inverse_T = static_cast<A>(in.inverse_T);
  OnlineRow<T> sums;
  const U* target[2] = {nullptr, nullptr};
  int64_t label[2] = {-1, -1};
  for (int k = 0; k < 2; ++k) {
    if (k >= targets || !live) break;
    const int64_t at = in.targets[k].row(row);
    if constexpr (kind == TargetKind::labels) {
      label[k] = static_cast<const int64_t*>(in.targets[k].data)[at];
    } else {
      target[k] = static_cast<const U*>(in.targets[k].data) + at * in.targets[k].stride;
    }
  }
  const int64_t classes = live ? in.classes : 0;
  const auto sum = [&](auto count) {
    add_lane<T, U, kind, group, pack, count()>(block, classes, z, target, inverse_T, sums);
  };
  if (targets == 1 || kind == TargetKind::labels) {
    sum(std::integral_constant<int, 1>{});
  } else {
    sum(std::integral_constant<int, 2>{});
  }
  sums.template combine_lanes<(group < warp_size ? group : warp_size), kind>(block, targets, inverse_T);
  combine_warps<group>(block, sums, inverse_T);
  if (!live || block.thread() % group != 0) return;
  A lengths[2] = {0, 0};
  for (int k = 0; k < 2; ++k) {
    if (k >= targets) break;
    if constexpr (kind == TargetKind::labels) {
      // A label out of range makes its row NaN: visible in the loss, and without waiting for the device.
      const bool valid = label[k] >= 0 && label[k] < in.classes;
      lengths[k] = valid ? sqrt_for<T>(sums.e2) : A(NAN);
      sums.dot[k] = valid ? exp_for<T>(static_cast<A>(widen(z[label[k]])) - sums.max) : A(NAN);
    } else if constexpr (kind == TargetKind::probabilities) {
      lengths[k] = exact_square(sums.norm2[k]) ? sqrt_for<T>(sums.e2 * sums.norm2[k])
                                               : rescaled_length<T>(sums.e2, sums.norm2[k], target[k], in.classes);
    } else {
      lengths[k] = sqrt_for<T>(sums.e2 * sums.norm2[k]);
    }
  }
  A* state = states + n * state_width(targets);
  store_row_state<T>(state, sums.max, sums.e2, targets, sums.dot, lengths, sums.target_max);
  if (sim != nullptr) sim[n] = narrow<T>(state[sim_slot(0)]);
}

template <class T, class U, TargetKind kind, int group, int pack, class Block>
PMX_HD void cosine_forward_body(Block& block, const RowSets& sets, int targets, Acc<T>* states, T* sim) {
  cosine_forward_row<T, U, kind, group, pack>(block, sets, targets, row_of<group>(block), states, sim);
}

// The gradient of row n of a pass, by its group of threads; n may lie behind the last row.
template <class T, class U, TargetKind kind, int group, int pack, class Block>
PMX_HD void cosine_backward_row(Block& block, const RowSets& sets, int targets, int64_t n, const Acc<T>* states,
                                RowRole first_role, const Contrast<Acc<T>>& contrast, const RowScalar<Acc<T>>& grad,
                                T* out_first, T* out_second) {
  using A = Acc<T>;
  if (n >= sets.rows()) return;  // no exchange follows
  const bool second = n >= sets.first.rows;
  const CosineRows in = set_of(sets, second);
  const RowRole role = role_of(first_role, second);
  const int64_t row = second ? n - sets.first.rows : n;
  const T* z = static_cast<const T*>(in.logits) + row * in.stride;
  T* g = (second ? out_second : out_first) + row * in.classes;
  const A* state = states + n * state_width(targets);
  const A inverse_T = static_cast<A>(in.inverse_T);
  A weight[2] = {0, 0};
  row_weights(role, contrast, grad, row, state, weight);
  const GradientRow<A> gradient(targets, state, weight);
  const A max = state[0];
  const U* target[2] = {nullptr, nullptr};
  int64_t label[2] = {-1, -1};
  A target_max[2] = {0, 0};
  for (int k = 0; k < 2; ++k) {
    if (k >= targets) break;
    const int64_t at = in.targets[k].row(row);
    if constexpr (kind == TargetKind::labels) {
      label[k] = static_cast<const int64_t*>(in.targets[k].data)[at];
    } else {
      target[k] = static_cast<const U*>(in.targets[k].data) + at * in.targets[k].stride;
      target_max[k] = state[sim_slot(k) + 3];
    }
  }
  const RelativeExp<T> exponential(max);
  const auto differentiate = [&](auto count) {
    over_lane<group, pack>(block, in.classes, [&](auto j) {
      const Pack<T, pack> logits = load_pack<T, pack>(z + j);
      [[maybe_unused]] Pack<U, pack> values[count()];
      if constexpr (kind != TargetKind::labels) {
        for (int k = 0; k < count(); ++k) values[k] = load_pack<U, pack>(target[k] + j);
      }
      const Pack<A, pack> wide = widen_pack(logits);
      Pack<A, pack> e, toward = {};
      for (int i = 0; i < pack; ++i) e.at[i] = exponential(wide.at[i]);
      for (int k = 0; k < count(); ++k) {
        Pack<Acc<U>, pack> t;
        if constexpr (kind == TargetKind::labels) {
          for (int i = 0; i < pack; ++i) t.at[i] = j + i == label[k] ? 1 : 0;
        } else {
          t = widen_pack(values[k]);
        }
        if constexpr (kind == TargetKind::teacher_logits) {
          const RelativeExp<U> of_target(static_cast<Acc<U>>(target_max[k]), static_cast<Acc<U>>(inverse_T));
          for (int i = 0; i < pack; ++i) t.at[i] = of_target(t.at[i]);
        }
        for (int i = 0; i < pack; ++i) {
          toward.at[i] += gradient.pull[k] * (gradient.b[k] * e.at[i] - static_cast<A>(t.at[i]));
        }
      }
      for (int i = 0; i < pack; ++i) toward.at[i] *= e.at[i];
      store_pack(g + j, toward);
    });
  };
  if (targets == 1) {
    differentiate(std::integral_constant<int, 1>{});
  } else {
    differentiate(std::integral_constant<int, 2>{});
  }
}

template <class T, class U, TargetKind kind, int group, int pack, class Block>
PMX_HD void cosine_backward_body(Block& block, const RowSets& sets, int targets, const Acc<T>* states, RowRole role,
                                 const Contrast<Acc<T>>& contrast, const RowScalar<Acc<T>>& grad, T* out_first,
                                 T* out_second) {
  cosine_backward_row<T, U, kind, group, pack>(block, sets, targets, row_of<group>(block), states, role, contrast, grad,
                                               out_first, out_second);
}

}  // namespace pmx
