// softmax(z / T) and its gradient; a group of threads shares a row.
#pragma once

#include "losses_rows.cuh"

namespace pmx {

// Sums of exp, and of gradient times exp for the backward, relative to the maximum seen so far.
template <class T>
struct OnlineSoftmax {
  using A = Acc<T>;
  A max = -INFINITY;
  A sum = 0;
  A inner = 0;

  // Makes the sums relative to `top` if it is the largest logit so far.
  PMX_HD void raise(A top, A inverse_T) {
    if (!(top > max)) return;
    scale(OnlineRow<T>::rescale(max, top, inverse_T));
    max = top;
  }
  PMX_HD void scale(A factor) {
    sum *= factor;
    inner *= factor;
  }
  // All threads of a block merge the same sums, so that they agree on the larger maximum.
  PMX_HD void merge(const OnlineSoftmax& other, A inverse_T) {
    A theirs = A(1);
    if (other.max > max) {
      scale(OnlineRow<T>::rescale(max, other.max, inverse_T));
      max = other.max;
    } else {
      theirs = OnlineRow<T>::rescale(other.max, max, inverse_T);
    }
    sum += other.sum * theirs;
    inner += other.inner * theirs;
  }
  // Sums of all lanes of a group within a warp, in each of them.
  template <int group, bool weighted, class Block>
  PMX_HD void combine_lanes(Block& block, A inverse_T) {
    A top = max;
    for (int mask = group / 2; mask > 0; mask /= 2) top = OnlineRow<T>::larger(top, block.shuffle_xor(top, mask));
    scale(OnlineRow<T>::rescale(max, top, inverse_T));
    max = top;
    for (int mask = group / 2; mask > 0; mask /= 2) {
      sum += block.shuffle_xor(sum, mask);
      if constexpr (weighted) inner += block.shuffle_xor(inner, mask);
    }
  }
};

// The sums of a row by its group of threads, each of which has them; `grad` is null where `inner` is not wanted.
template <class T, int group, int pack, bool weighted, class Block>
PMX_HD OnlineSoftmax<T> sum_row(Block& block, const T* row, const T* grad, int64_t classes, Acc<T> inverse_T) {
  using A = Acc<T>;
  OnlineSoftmax<T> softmax;
  over_lane<group, pack>(block, classes, [&](auto j) {
    const Pack<T, pack> logits[] = {load_pack<T, pack>(row + j)};
    [[maybe_unused]] Pack<T, pack> incoming;
    if constexpr (weighted) incoming = load_pack<T, pack>(grad + j);
    softmax.raise(largest(logits), inverse_T);
    const RelativeExp<T> exponential(OnlineRow<T>::base_of(softmax.max), inverse_T);
    const Pack<A, pack> wide = widen_pack(logits[0]);
    [[maybe_unused]] Pack<A, pack> weights;
    if constexpr (weighted) weights = widen_pack(incoming);
    for (int i = 0; i < pack; ++i) {
      const A e = exponential(wide.at[i]);
      softmax.sum += e;
      if constexpr (weighted) softmax.inner += e * weights.at[i];
    }
  });
  softmax.template combine_lanes<(group < warp_size ? group : warp_size), weighted>(block, inverse_T);
  combine_warps<group>(block, softmax, inverse_T);
  return softmax;
}

// Shared memory: one OnlineSoftmax for each warp when the group is the block.
template <class T, int group, int pack, class Block>
PMX_HD void sharpen_forward_body(Block& block, const T* logits, int64_t rows, int64_t classes, Acc<T> inverse_T,
                                 T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;  // idle groups still take part in the exchanges
  const T* z = logits + (live ? row : 0) * classes;
  const OnlineSoftmax<T> softmax =
      sum_row<T, group, pack, false>(block, z, static_cast<const T*>(nullptr), live ? classes : 0, inverse_T);
  if (!live) return;
  const A scale = A(1) / softmax.sum;
  T* to = out + row * classes;
  const RelativeExp<T> exponential(softmax.max, inverse_T);
  over_lane<group, pack>(block, classes, [&](auto j) {
    Pack<A, pack> result = widen_pack(load_pack<T, pack>(z + j));
    for (int i = 0; i < pack; ++i) result.at[i] = exponential(result.at[i]) * scale;
    store_pack(to + j, result);
  });
}

// From the logits rather than the probabilities: a half-precision output would bring its rounding into the gradient.
template <class T, int group, int pack, class Block>
PMX_HD void sharpen_backward_body(Block& block, const T* grad, const T* logits, int64_t rows, int64_t classes,
                                  Acc<T> inverse_T, T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;
  const T *z = logits + (live ? row : 0) * classes, *g = grad + (live ? row : 0) * classes;
  const OnlineSoftmax<T> softmax = sum_row<T, group, pack, true>(block, z, g, live ? classes : 0, inverse_T);
  if (!live) return;
  const A scale = A(1) / softmax.sum, mean = softmax.inner * scale, factor = scale * inverse_T;
  T* to = out + row * classes;
  const RelativeExp<T> exponential(softmax.max, inverse_T);
  over_lane<group, pack>(block, classes, [&](auto j) {
    const Pack<T, pack> values = load_pack<T, pack>(z + j), incoming = load_pack<T, pack>(g + j);
    const Pack<A, pack> wide = widen_pack(values), weights = widen_pack(incoming);
    Pack<A, pack> result;
    for (int i = 0; i < pack; ++i) result.at[i] = (weights.at[i] - mean) * exponential(wide.at[i]) * factor;
    store_pack(to + j, result);
  });
}

}  // namespace pmx
