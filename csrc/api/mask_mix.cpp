#include "pymixunlearn/mask_mix.h"

#include "../cpu/mask_mix_run.h"
#include "arguments.h"

namespace pymixunlearn {
namespace {

template <class T>
void require_images(const char* name, const Images<T>& images) {
  require(images.count >= 0, name, " must have 0 images or more, got ", images.count);
  require(images.channels > 0 && images.height > 0 && images.width > 0, name,
          " must have channels, height and width above 0, got [", images.channels, ", ", images.height, ", ",
          images.width, "]");
}

template <class T>
pmx::MaskMixShape shape_of(const MaskMix<T>& mix) {
  const Images<T>&forget = mix.forget, &retain = mix.retain;
  const Masks<T>& masks = mix.mask_logits;
  require_images("forget", forget);
  require_images("retain", retain);
  require(forget.channels == retain.channels && forget.height == retain.height && forget.width == retain.width,
          "retain must have images like those of forget, [", forget.channels, ", ", forget.height, ", ", forget.width,
          "], got [", retain.channels, ", ", retain.height, ", ", retain.width, "]");
  const bool grid = mix.pairing == Pairing::grid;
  require(grid || forget.count == retain.count, "retain must have as many images as forget in zip pairing, ",
          forget.count, ", got ", retain.count);
  const pmx::Dtype type = dtype<T>;
  const pmx::MaskMixShape shape = {forget.count, retain.count, grid,        forget.channels, forget.height,
                                   forget.width, masks.height, masks.width, false,           false,
                                   type,         type,         type};
  require(masks.count == shape.pairs(), "mask_logits must have one mask for each of the ", shape.pairs(),
          " pairs, got ", masks.count);
  require(masks.height > 0 && masks.width > 0, "mask_logits must have height and width above 0, got [", masks.height,
          ", ", masks.width, "]");
  return shape;
}

template <class T>
pmx::MaskMixOperands operands_of(const MaskMix<T>& mix, const pmx::MaskMixShape& shape, const T* grad, T* result) {
  const int64_t step = shape.image_size();
  return {mix.forget.data, mix.retain.data, step, step, mix.mask_logits.data, grad, step, result, {}};
}

}  // namespace

template <class T>
void MaskMix<T>::forward(T* mixed, const ParallelFor& parallel_for) const {
  const pmx::MaskMixShape shape = shape_of(*this);
  if (shape.pairs() > 0) pmx::mask_mix_forward(shape, operands_of<T>(*this, shape, nullptr, mixed), parallel_for);
}

template <class T>
void MaskMix<T>::backward(const T* grad, T* grad_mask_logits, T* grad_forget, T* grad_retain,
                          const ParallelFor& parallel_for) const {
  const pmx::MaskMixShape shape = shape_of(*this);
  if (grad_mask_logits != nullptr && shape.pairs() > 0) {
    pmx::mask_mix_mask_gradient(shape, operands_of(*this, shape, grad, grad_mask_logits), parallel_for);
  }
  // Images without a partner still have a gradient, of zeros.
  if (grad_forget != nullptr && shape.n_forget > 0) {
    pmx::mask_mix_image_gradient(shape, operands_of(*this, shape, grad, grad_forget), false, parallel_for);
  }
  if (grad_retain != nullptr && shape.n_retain > 0) {
    pmx::mask_mix_image_gradient(shape, operands_of(*this, shape, grad, grad_retain), true, parallel_for);
  }
}

template struct MaskMix<float>;
template struct MaskMix<double>;

}  // namespace pymixunlearn
