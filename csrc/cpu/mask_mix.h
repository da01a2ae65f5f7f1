// How mask_mix is cut into tasks on the CPU. A task is a chunk of rows of an image (forward, gradients of the images)
// or a block of rows of a mask (gradient of the mask logits). No task reads what another one writes, and what a task
// computes does not depend on the cut, so neither threads nor sizes change a bit of the result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../core/mask_mix.h"

namespace pmx {

// Elements that a task handles at a time. Long stretches of each image keep the processor fetching ahead, which is
// worth more than shares in the first-level cache: these go through the second. Fewer where there would be few tasks.
constexpr int64_t most_chunk_elements = 16384;
constexpr int64_t least_chunk_elements = 2048;
constexpr int64_t wanted_mask_mix_tasks = 64;

// Room behind every row buffer, so that vectors may run over its end.
constexpr int64_t mask_mix_padding = 16;

struct MaskMixPlan {
  MaskMixShape shape;
  MaskMixOperands operands;
  bool retain_side;  // of the images' gradients: which one
  int64_t rows_per_chunk;
  int64_t chunks;  // per image
  int64_t mask_rows_per_block;
  int64_t blocks;  // per mask
  // Column taps, [W]; the weights are in the type that the kernels compute in.
  const int32_t* first;
  const int32_t* second;
  const void* near;
  const void* far;

  int64_t forward_tasks() const { return chunks * (shape.grid ? shape.n_forget : shape.pairs()); }
  int64_t mask_gradient_tasks() const { return shape.pairs() * blocks; }
  int64_t image_gradient_tasks() const { return chunks * (retain_side ? shape.n_retain : shape.n_forget); }
  int64_t elements_per_chunk() const { return rows_per_chunk * shape.width * (shape.interleaved ? shape.channels : 1); }
  // Numbers of workspace that one thread needs; the kernels lay it out (MaskMixWorkspace).
  int64_t workspace() const {
    const int64_t chunk = rows_per_chunk * shape.width + mask_mix_padding, row = shape.width + mask_mix_padding;
    const int64_t wide = elements_per_chunk() + mask_mix_padding;
    const int64_t all_channels = rows_per_chunk * shape.width * shape.channels + mask_mix_padding;
    return 4 * row + shape.mask_width + 3 * chunk + (shape.interleaved ? 5 * wide : 0) + all_channels;
  }
};

// Owns the column taps of a plan.
template <class A>
class MaskMixTaps {
 public:
  MaskMixTaps(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side) {
    const int64_t width = shape.width, per_row = std::max<int64_t>(1, width * (shape.interleaved ? shape.channels : 1));
    index_.resize(static_cast<size_t>(2 * width));
    weight_.resize(static_cast<size_t>(2 * width));
    for (int64_t x = 0; x < width; ++x) {
      const Tap<A> tap = tap_of<A>(x, shape.mask_width, width);
      index_[x] = static_cast<int32_t>(tap.first);
      index_[width + x] = static_cast<int32_t>(tap.second);
      weight_[x] = A(1) - tap.t;
      weight_[width + x] = tap.t;
    }
    plan_ = {shape,
             operands,
             retain_side,
             0,
             0,
             0,
             0,
             index_.data(),
             index_.data() + width,
             weight_.data(),
             weight_.data() + width};
    // In grid pairing a task is a chunk of one image with all partners of the other side.
    const int64_t images = shape.grid ? std::min(shape.n_forget, shape.n_retain) : shape.pairs();
    const int64_t share = images * shape.height * per_row / wanted_mask_mix_tasks;
    const int64_t elements = std::min(most_chunk_elements, std::max(least_chunk_elements, share));
    plan_.rows_per_chunk = std::min(std::max<int64_t>(1, elements / per_row), std::max<int64_t>(1, shape.height));
    plan_.chunks = (shape.height + plan_.rows_per_chunk - 1) / plan_.rows_per_chunk;
    // A block computes the rows above it once more, so masks are only cut up where there are few of them.
    const int64_t wanted = shape.pairs() > 0 ? (16 + shape.pairs() - 1) / shape.pairs() : 1;
    plan_.mask_rows_per_block = std::max<int64_t>(4, (shape.mask_height + wanted - 1) / wanted);
    plan_.blocks = (shape.mask_height + plan_.mask_rows_per_block - 1) / plan_.mask_rows_per_block;
  }
  MaskMixTaps(const MaskMixTaps&) = delete;

  const MaskMixPlan& plan() const { return plan_; }

 private:
  std::vector<int32_t> index_;
  std::vector<A> weight_;
  MaskMixPlan plan_;
};

}  // namespace pmx
