// softmax(z / T) and its gradient; a group of threads shares a row.
#pragma once

#include "cosine_rows.cuh"

namespace pmx {

template <class A>
struct OnlineSoftmax {
  A max = -INFINITY;
  A sum = 0;

  PMX_HD void add(A z) {
    if (z > max) {
      sum *= OnlineRow<A>::rescale(max, z);
      max = z;
    }
    sum += OnlineRow<A>::rescale(z, max);
  }
  PMX_HD void merge(const OnlineSoftmax& other) {
    const A top = other.max > max ? other.max : max;
    sum = sum * OnlineRow<A>::rescale(max, top) + other.sum * OnlineRow<A>::rescale(other.max, top);
    max = top;
  }
  template <class Block>
  PMX_HD OnlineSoftmax exchange(Block& block, int mask) const {
    OnlineSoftmax other;
    other.max = block.shuffle_xor(max, mask);
    other.sum = block.shuffle_xor(sum, mask);
    return other;
  }
};

template <class A>
struct Sum {
  A value = 0;

  PMX_HD void merge(const Sum& other) { value += other.value; }
  template <class Block>
  PMX_HD Sum exchange(Block& block, int mask) const {
    Sum other;
    other.value = block.shuffle_xor(value, mask);
    return other;
  }
};

template <class T, int group, class Block>
PMX_HD void sharpen_forward_body(Block& block, const T* logits, int64_t rows, int64_t classes, Acc<T> inverse_T,
                                 T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;
  const T* z = logits + (live ? row : 0) * classes;
  OnlineSoftmax<A> softmax;
  over_lane<group, 1>(block, live ? classes : 0, [&](int64_t j) { softmax.add(widen(z[j]) * inverse_T); });
  combine_group<group>(block, softmax);
  if (!live) return;
  const A scale = A(1) / softmax.sum;
  over_lane<group, 1>(block, classes, [&](int64_t j) {
    out[row * classes + j] = narrow<T>(std::exp(widen(z[j]) * inverse_T - softmax.max) * scale);
  });
}

template <class T, int group, class Block>
PMX_HD void sharpen_backward_body(Block& block, const T* grad, const T* probabilities, int64_t rows, int64_t classes,
                                  Acc<T> inverse_T, T* out) {
  using A = Acc<T>;
  const int64_t row = row_of<group>(block);
  const bool live = row < rows;
  const int64_t offset = (live ? row : 0) * classes;
  Sum<A> inner;
  over_lane<group, 1>(block, live ? classes : 0, [&](int64_t j) {
    inner.value += static_cast<A>(widen(grad[offset + j])) * static_cast<A>(widen(probabilities[offset + j]));
  });
  combine_group<group>(block, inner);
  if (!live) return;
  over_lane<group, 1>(block, classes, [&](int64_t j) {
    const A p = widen(probabilities[offset + j]);
    out[offset + j] = narrow<T>((static_cast<A>(widen(grad[offset + j])) - inner.value) * p * inverse_T);
  });
}

}  // namespace pmx
