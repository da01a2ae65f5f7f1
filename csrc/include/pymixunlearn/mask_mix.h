// mask_mix on raw buffers: the last step of MixBlock (Eq. 2), forward and backward, on the CPU.
//
//     M = sigmoid(bilinear upsampling of the mask logits),   mixed = forget M + retain (1 - M)
//
// The upsampling is that of torch's interpolate with align_corners=False. Buffers are contiguous and outlive the calls;
// T is float or double; arguments that do not fit together throw std::invalid_argument.
#pragma once

#include <cstdint>

#include "pairing.h"
#include "runtime.h"

namespace pymixunlearn {

// [count, channels, height, width]
template <class T>
struct Images {
  const T* data = nullptr;
  int64_t count = 0;
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
};

// [count, height, width], one mask for each pair of images.
template <class T>
struct Masks {
  const T* data = nullptr;
  int64_t count = 0;
  int64_t height = 0;
  int64_t width = 0;
};

template <class T>
struct MaskMix {
  Images<T> forget;
  Images<T> retain;
  Masks<T> mask_logits;
  Pairing pairing = Pairing::zip;

  // Writes `mixed` [pairs, channels, height, width].
  void forward(T* mixed, const ParallelFor& parallel_for = serial) const;
  // From `grad`, shaped like `mixed`, writes the gradients that are not null: of the mask logits, the forget and the
  // retain images, each shaped like what it belongs to.
  void backward(const T* grad, T* grad_mask_logits, T* grad_forget, T* grad_retain,
                const ParallelFor& parallel_for = serial) const;
};

}  // namespace pymixunlearn
