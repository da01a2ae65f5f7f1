// softmax(z / T) and its gradient; a group of threads shares a row.
#pragma once

#include "losses_rows.cuh"

namespace pmx {

// Sums of exp, and of gradient times exp for the backward, relative to the maximum seen so far.
template <class A>
struct OnlineSoftmax {
  A max = -INFINITY;
  A sum = 0;
  A inner = 0;

  PMX_HD void add(A z, A gradient, A inverse_T) {
    if (z > max) {
      const A shrink = OnlineRow<A>::rescale(max, z, inverse_T);
      sum *= shrink;
      inner *= shrink;
      max = z;
    }
    const A e = OnlineRow<A>::rescale(z, max, inverse_T);
    sum += e;
    inner += e * gradient;
  }
  PMX_HD void merge(const OnlineSoftmax& other, A inverse_T) {
    const A top = other.max > max ? other.max : max;
    const A mine = OnlineRow<A>::rescale(max, top, inverse_T);
    const A theirs = OnlineRow<A>::rescale(other.max, top, inverse_T);
    sum = sum * mine + other.sum * theirs;
    inner = inner * mine + other.inner * theirs;
    max = top;
  }
  template <class Block>
  PMX_HD OnlineSoftmax exchange(Block& block, int mask) const {
    OnlineSoftmax other;
    other.max = block.shuffle_xor(max, mask);
    other.sum = block.shuffle_xor(sum, mask);
    other.inner = block.shuffle_xor(inner, mask);
    return other;
  }
};

// Shared memory: one OnlineSoftmax for each warp when the group is the block.
template <class T, int group, class Block>
PMX_HD void sharpen_forward_body(Block& block, const T* logits, int64_t rows, int64_t classes, Acc<T> inverse_T,
                                 T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;
  const int64_t offset = (live ? row : 0) * classes;
  OnlineSoftmax<A> softmax;
  over_lane<group, 1>(block, live ? classes : 0,
                      [&](int64_t j) { softmax.add(widen(logits[offset + j]), A(0), inverse_T); });
  combine_group<group>(block, softmax, inverse_T);
  if (!live) return;
  const A scale = A(1) / softmax.sum;
  over_lane<group, 1>(block, classes, [&](int64_t j) {
    out[offset + j] = narrow<T>(std::exp((widen(logits[offset + j]) - softmax.max) * inverse_T) * scale);
  });
}

// From the logits rather than the probabilities: a half-precision output would bring its rounding into the gradient.
template <class T, int group, class Block>
PMX_HD void sharpen_backward_body(Block& block, const T* grad, const T* logits, int64_t rows, int64_t classes,
                                  Acc<T> inverse_T, T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;
  const int64_t offset = (live ? row : 0) * classes;
  OnlineSoftmax<A> softmax;
  over_lane<group, 1>(block, live ? classes : 0, [&](int64_t j) {
    softmax.add(widen(logits[offset + j]), static_cast<A>(widen(grad[offset + j])), inverse_T);
  });
  combine_group<group>(block, softmax, inverse_T);
  if (!live) return;
  const A scale = A(1) / softmax.sum, mean = softmax.inner * scale;
  over_lane<group, 1>(block, classes, [&](int64_t j) {
    const A e = std::exp((widen(logits[offset + j]) - softmax.max) * inverse_T);
    out[offset + j] = narrow<T>((static_cast<A>(widen(grad[offset + j])) - mean) * e * (scale * inverse_T));
  });
}

}  // namespace pmx
