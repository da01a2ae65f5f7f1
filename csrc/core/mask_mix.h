// What mask_mix computes (README.md, "mask_mix"), shared by the CPU and the CUDA kernels.
//
//     M = sigmoid(bilinear(mask logits)),   W = 1 - M,   out = x_f M + x_r W
//
// Bilinear interpolation is a product of two one-dimensional ones. The output position y reads the mask rows first and
// second with the weights 1 - t and t (Tap); seen from the mask, row k is read by the outputs first_reader(k - 1) up to
// first_reader(k + 1). The forward uses the one, the gradient of the mask gathers over the other, in a fixed order.
#pragma once

#include <cmath>
#include <cstdint>

#include "scalar.h"
#include "stream.h"

namespace pmx {

// Per-channel normalisation of 8-bit images: pixel v of channel c stands for v * scale + shift.
constexpr int max_normalised_channels = 64;

struct Normalisation {
  bool per_channel;  // otherwise only v / 255
  double scales[max_normalised_channels];
  double shifts[max_normalised_channels];

  PMX_HD double scale(int64_t channel) const { return per_channel ? scales[channel] : 1.0 / 255; }
  PMX_HD double shift(int64_t channel) const { return per_channel ? shifts[channel] : 0.0; }
};

// Shapes, layouts and element types of a call. Images are dense from their second dimension on, [C, H, W] or, when
// `interleaved`, [H, W, C]; mask logits are contiguous.
struct MaskMixShape {
  int64_t n_forget, n_retain;
  bool grid;
  int64_t channels, height, width;
  int64_t mask_height, mask_width;
  bool interleaved;
  bool bytes;  // images are uint8; otherwise of dtype `image`
  Dtype image;
  Dtype mask;
  Dtype out;

  PMX_HD int64_t pairs() const { return grid ? n_forget * n_retain : n_forget; }
  PMX_HD int64_t forget_of(int64_t pair) const { return grid ? pair / n_retain : pair; }
  PMX_HD int64_t retain_of(int64_t pair) const { return grid ? pair % n_retain : pair; }
  PMX_HD int64_t pixels() const { return height * width; }
  PMX_HD int64_t image_size() const { return channels * height * width; }
  // float64 wherever images or result are; a float64 mask alone does not widen everything.
  bool in_double() const { return (!bytes && image == Dtype::f64) || out == Dtype::f64; }
};

// The operands; which ones a kernel uses depends on its direction.
struct MaskMixOperands {
  const void* forget;
  const void* retain;
  int64_t forget_stride;  // elements between images
  int64_t retain_stride;
  const void* mask_logits;  // [P, h, w]
  const void* grad;         // [P, C, H, W] in the layout of the output, dtype `out`
  int64_t grad_stride;
  void* result;
  Normalisation normalisation;
};

template <class A>
struct Tap {
  int64_t first;
  int64_t second;
  A t;
};

// The source position (at + 1/2) in / out - 1/2 as an exact fraction, so that t carries a single rounding.
template <class A>
PMX_HD Tap<A> tap_of(int64_t at, int64_t in, int64_t out) {
  const int64_t numerator = (2 * at + 1) * in - out, denominator = 2 * out;
  if (numerator <= 0) return {0, in > 1 ? 1 : 0, A(0)};
  int64_t first = 0;
  if (numerator <= INT32_MAX && denominator <= INT32_MAX) {  // a division of 64 bits takes a GPU several times longer
    first = static_cast<int32_t>(numerator) / static_cast<int32_t>(denominator);
  } else {
    first = numerator / denominator;
  }
  if (first >= in - 1) return {in - 1, in - 1, A(0)};
  return {first, first + 1, static_cast<A>(numerator - first * denominator) / static_cast<A>(denominator)};
}

// The first output position whose tap begins at source k or later; `out` if there is none.
PMX_HD int64_t first_reader(int64_t k, int64_t in, int64_t out) {
  if (k <= 0) return 0;
  if (k >= in) return out;
  const int64_t numerator = (2 * k + 1) * out - in;
  if (numerator <= 0) return 0;
  const int64_t at = (numerator + 2 * in - 1) / (2 * in);
  return at < out ? at : out;
}

// A mask logit as it is interpolated: infinite ones count as ±1e30, which is as good for the sigmoid, and which a
// weight of 0 makes 0. NaN stays NaN.
template <class A>
PMX_HD A finite_logit(A logit) {
  constexpr A limit = A(1e30);
  return logit > limit ? limit : logit < -limit ? -limit : logit;
}

// sigmoid(l) and 1 - sigmoid(l), both to full relative precision; nothing overflows.
template <class A>
struct Shares {
  A forget;
  A retain;
};

// `T` is the type of the elements that the shares are for.
template <class A, class T = A>
PMX_HD Shares<A> shares_of(A logit) {
  const A e = exp_for<T>(-std::fabs(logit)), larger = reciprocal(A(1) + e), smaller = e * larger;
  return logit < A(0) ? Shares<A>{smaller, larger} : Shares<A>{larger, smaller};
}

// Their product, which is the slope of the sigmoid.
template <class A, class T = A>
PMX_HD A shares_product(A logit) {
  const A e = exp_for<T>(-std::fabs(logit)), larger = reciprocal(A(1) + e);
  return e * larger * larger;
}

struct MaskMixPlan;  // cpu/mask_mix.h

// The CPU kernels. Tasks [begin, end) of a plan, with its workspace in the type that the kernels compute in.
struct MaskMixKernels {
  void (*forward)(const MaskMixPlan& plan, int64_t begin, int64_t end, void* workspace);
  void (*mask_gradient)(const MaskMixPlan& plan, int64_t begin, int64_t end, void* workspace);
  void (*image_gradient)(const MaskMixPlan& plan, int64_t begin, int64_t end, void* workspace);
};

// The launchers of the CUDA kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
namespace cuda {

void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands, Stream stream);

// Bytes of scratch memory that `mask_mix_mask_gradient` needs.
int64_t mask_mix_mask_gradient_scratch(const MaskMixShape& shape, const MaskMixOperands& operands);
void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, void* scratch, Stream stream);

void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side,
                             Stream stream);

}  // namespace cuda

}  // namespace pmx
