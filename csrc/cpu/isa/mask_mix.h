// The kernels of mask_mix, compiled for each instruction set.
//
// The mask rows are interpolated horizontally once per mask row, into two rows of image width (expanded); what is left
// per pixel is a blend of these two and one sigmoid, shared by all channels. The gradient of the mask mirrors this: it
// is summed over channels, then vertically into two rows of image width, and only these are folded horizontally.
#pragma once

#include "../mask_mix.h"
#include "mask_mix_loops.h"

namespace pmx {
inline namespace PMX_ISA {

// --- shares of the pixels --------------------------------------------------------------------------------------------

// One thread's memory; see MaskMixPlan::workspace.
template <class A>
struct MaskMixWorkspace {
  A* expanded[2];                   // mask rows of even and of odd index at image width
  int64_t held[2] = {-1, -1};       // which mask rows these are, counted through all pairs
  A* mask_row;                      // [w]
  A* sums[2];                       // [W]
  A *forget, *retain, *pixel;       // shares, and a gradient, of the pixels of a chunk
  A *wide_forget, *wide_retain;     // the shares once for every channel, if interleaved
  A *wide_product, *scale, *shift;  // likewise
  A* total;                         // [C, pixels of a chunk]

  MaskMixWorkspace(const MaskMixPlan& plan, void* memory) {
    const MaskMixShape& shape = plan.shape;
    A* next = static_cast<A*>(memory);
    const auto take = [&](int64_t count) {
      A* taken = next;
      next += count;
      return taken;
    };
    const int64_t row = shape.width + mask_mix_padding, chunk = plan.rows_per_chunk * shape.width + mask_mix_padding;
    for (A*& to : expanded) {
      to = take(row);
      for (int64_t x = shape.width; x < row; ++x) to[x] = A(0);
    }
    for (A*& to : sums) to = take(row);
    mask_row = take(shape.mask_width);
    forget = take(chunk);
    retain = take(chunk);
    pixel = take(chunk);
    if (shape.interleaved) {
      const int64_t elements = plan.elements_per_chunk();
      for (A** to : {&wide_forget, &wide_retain, &wide_product, &scale, &shift})
        *to = take(elements + mask_mix_padding);
      for (int64_t i = 0; shape.bytes && i < elements; ++i) {
        scale[i] = static_cast<A>(plan.operands.normalisation.scale(i % shape.channels));
        shift[i] = static_cast<A>(plan.operands.normalisation.shift(i % shape.channels));
      }
    }
    total = next;
  }
};

// Mask row k of a pair at image width; its neighbours stay in the workspace, so that going down an image expands every
// mask row once.
template <class A>
static const A* expanded_row(const MaskMixPlan& plan, MaskMixWorkspace<A>& work, int64_t pair, int64_t k) {
  const int64_t row = pair * plan.shape.mask_height + k, slot = k & 1, mask_width = plan.shape.mask_width;
  A* to = work.expanded[slot];
  if (work.held[slot] == row) return to;
  work.held[slot] = row;
  const void* logits = at(plan.operands.mask_logits, row * mask_width, size_of(plan.shape.mask));
  switch (plan.shape.mask) {
    case Dtype::f32:
      mask_logits<float>(logits, work.mask_row, mask_width);
      break;
    case Dtype::f64:
      mask_logits<double>(logits, work.mask_row, mask_width);
      break;
    case Dtype::bf16:
      mask_logits<BFloat16>(logits, work.mask_row, mask_width);
      break;
    case Dtype::f16:
      mask_logits<Half>(logits, work.mask_row, mask_width);
      break;
  }
  const A *near = static_cast<const A*>(plan.near), *far = static_cast<const A*>(plan.far), *from = work.mask_row;
  for (int64_t x = 0; x < plan.shape.width; ++x) to[x] = from[plan.first[x]] * near[x] + from[plan.second[x]] * far[x];
  return to;
}

// The shares of rows [top, bottom) of a pair, one row after the other.
template <class A>
static void find_shares(const MaskMixPlan& plan, MaskMixWorkspace<A>& work, int64_t pair, int64_t top, int64_t bottom) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const int64_t width = plan.shape.width;
  for (int64_t y = top; y < bottom; ++y) {
    const Tap<A> tap = tap_of<A>(y, plan.shape.mask_height, plan.shape.height);
    const A* upper = expanded_row(plan, work, pair, tap.first);
    const A* lower = tap.second == tap.first ? upper : expanded_row(plan, work, pair, tap.second);
    const A near = A(1) - tap.t, far = tap.t;
    A *forget = work.forget + (y - top) * width, *retain = work.retain + (y - top) * width;
    for (int64_t x = 0; x < width; x += lanes) {  // the next row overwrites what runs over the end
      const V logit = load(upper + x) * near + load(lower + x) * far;
      const auto negative = logit < A(0);
      const V e = exp(negative ? logit : -logit), larger = A(1) / (A(1) + e), smaller = e * larger;
      store(forget + x, negative ? smaller : larger);
      store(retain + x, negative ? larger : smaller);
    }
  }
}

// --- the three kernels -----------------------------------------------------------------------------------------------

// Where the planes of a chunk lie: one for each channel, or a single one when channels are interleaved.
template <class A>
struct Planes {
  int64_t count, size;  // planes, and elements of the chunk in each
  int64_t start, step;  // elements from the image to the chunk in the first plane, and from plane to plane
  const MaskMixPlan& plan;
  const MaskMixWorkspace<A>& work;

  Planes(const MaskMixPlan& plan_, const MaskMixWorkspace<A>& work_, int64_t top, int64_t bottom)
      : plan(plan_), work(work_) {
    const MaskMixShape& shape = plan.shape;
    const int64_t per_pixel = shape.interleaved ? shape.channels : 1;
    count = shape.interleaved ? 1 : shape.channels;
    size = (bottom - top) * shape.width * per_pixel;
    start = top * shape.width * per_pixel;
    step = shape.pixels();
  }

  // Calls body(offset, affine) for each plane.
  template <class Body>
  void each(Body&& body) const {
    for (int64_t c = 0; c < count; ++c) {
      const A scale = static_cast<A>(plan.operands.normalisation.scale(c));
      const A shift = static_cast<A>(plan.operands.normalisation.shift(c));
      body(start + c * step, plan.shape.interleaved ? Affine<A>{work.scale, work.shift} : Affine<A>{&scale, &shift});
    }
  }
};

template <class A>
static void mask_mix_forward(const MaskMixPlan& plan, int64_t begin, int64_t end, void* memory) {
  const MaskMixShape& shape = plan.shape;
  const MaskMixOperands& operands = plan.operands;
  const MaskMixLoops<A> loops = loops_for<A>(shape);
  const int64_t image_bytes = shape.bytes ? 1 : size_of(shape.image), out_bytes = size_of(shape.out);
  MaskMixWorkspace<A> work(plan, memory);
  const auto mix = [&](int64_t pair, int64_t chunk) {
    const int64_t top = chunk * plan.rows_per_chunk;
    const int64_t bottom = top + plan.rows_per_chunk < shape.height ? top + plan.rows_per_chunk : shape.height;
    const int64_t pixels = (bottom - top) * shape.width;
    find_shares(plan, work, pair, top, bottom);
    if (shape.interleaved) {
      repeat(work.forget, work.wide_forget, pixels, shape.channels);
      repeat(work.retain, work.wide_retain, pixels, shape.channels);
    }
    const A* forget_share = shape.interleaved ? work.wide_forget : work.forget;
    const A* retain_share = shape.interleaved ? work.wide_retain : work.retain;
    const void* forget = at(operands.forget, shape.forget_of(pair) * operands.forget_stride, image_bytes);
    const void* retain = at(operands.retain, shape.retain_of(pair) * operands.retain_stride, image_bytes);
    char* out = static_cast<char*>(operands.result) + pair * shape.image_size() * out_bytes;
    const Planes<A> planes(plan, work, top, bottom);
    planes.each([&](int64_t offset, Affine<A> affine) {
      loops.blend(at(forget, offset, image_bytes), at(retain, offset, image_bytes), forget_share, retain_share,
                  out + offset * out_bytes, planes.size, affine);
    });
  };
  for (int64_t task = begin; task < end; ++task) {
    if (!shape.grid) {
      mix(task / plan.chunks, task % plan.chunks);
      continue;
    }
    // Chunk by chunk: the same part of all retain images then stays in the cache for every forget image.
    for (int64_t j = 0; j < shape.n_retain; ++j) {
      mix((task % shape.n_forget) * shape.n_retain + j, task / shape.n_forget);
    }
  }
}

// Row sums of image width into a mask row: each mask column gathers from the columns that read it, from left to right.
template <class A>
static void fold_columns(const MaskMixPlan& plan, const A* sums, A* row) {
  const A *near = static_cast<const A*>(plan.near), *far = static_cast<const A*>(plan.far);
  const int64_t mask_width = plan.shape.mask_width;
  A here = 0, next = 0;
  int64_t k = 0;
  const auto advance = [&](int64_t to) {
    for (; k < to; ++k) {
      row[k] = here;
      here = next;
      next = 0;
    }
  };
  for (int64_t x = 0; x < plan.shape.width; ++x) {
    advance(plan.first[x]);
    here += near[x] * sums[x];
    next += far[x] * sums[x];
  }
  advance(mask_width);
}

template <class A>
static void put_as(Dtype dtype, const A* row, void* to, int64_t n) {
  switch (dtype) {
    case Dtype::f32:
      return put<float>(row, to, n);
    case Dtype::f64:
      return put<double>(row, to, n);
    case Dtype::bf16:
      return put<BFloat16>(row, to, n);
    case Dtype::f16:
      return put<Half>(row, to, n);
  }
}

template <class A>
static void mask_mix_mask_gradient(const MaskMixPlan& plan, int64_t begin, int64_t end, void* memory) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const MaskMixShape& shape = plan.shape;
  const MaskMixOperands& operands = plan.operands;
  const MaskMixLoops<A> loops = loops_for<A>(shape);
  const int64_t image_bytes = shape.bytes ? 1 : size_of(shape.image), out_bytes = size_of(shape.out);
  MaskMixWorkspace<A> work(plan, memory);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t pair = task / plan.blocks, first_row = task % plan.blocks * plan.mask_rows_per_block;
    const int64_t last_row = first_row + plan.mask_rows_per_block < shape.mask_height
                                 ? first_row + plan.mask_rows_per_block
                                 : shape.mask_height;
    const void* forget = at(operands.forget, shape.forget_of(pair) * operands.forget_stride, image_bytes);
    const void* retain = at(operands.retain, shape.retain_of(pair) * operands.retain_stride, image_bytes);
    const void* grad = at(operands.grad, pair * operands.grad_stride, out_bytes);
    // sums[current & 1] belongs to mask row `current`, the other one to the row below.
    int64_t current = first_row > 0 ? first_row - 1 : 0;
    for (A* sums : work.sums) memset(sums, 0, sizeof(A) * shape.width);
    const auto advance = [&](int64_t to) {
      for (; current < to; ++current) {
        A* sums = work.sums[current & 1];
        if (current >= first_row) {
          fold_columns(plan, sums, work.mask_row);
          char* row = static_cast<char*>(operands.result) +
                      (pair * shape.mask_height + current) * shape.mask_width * size_of(shape.mask);
          put_as(shape.mask, work.mask_row, row, shape.mask_width);
        }
        memset(sums, 0, sizeof(A) * shape.width);
      }
    };
    const int64_t end_row = first_reader(last_row, shape.mask_height, shape.height);
    for (int64_t top = first_reader(current, shape.mask_height, shape.height); top < end_row;
         top += plan.rows_per_chunk) {
      const int64_t bottom = top + plan.rows_per_chunk < end_row ? top + plan.rows_per_chunk : end_row;
      find_shares(plan, work, pair, top, bottom);
      const Planes<A> planes(plan, work, top, bottom);
      A* difference = shape.interleaved ? work.wide_product : work.pixel;
      bool first = true;
      planes.each([&](int64_t offset, Affine<A> affine) {
        loops.weigh_difference(at(grad, offset, out_bytes), at(forget, offset, image_bytes),
                               at(retain, offset, image_bytes), difference, planes.size, first, affine);
        first = false;
      });
      if (shape.interleaved) sum_channels(difference, work.pixel, (bottom - top) * shape.width, shape.channels);
      for (int64_t y = top; y < bottom; ++y) {
        const Tap<A> tap = tap_of<A>(y, shape.mask_height, shape.height);
        advance(tap.first);
        const int64_t row = (y - top) * shape.width;
        A *upper = work.sums[tap.first & 1], *lower = work.sums[(tap.first + 1) & 1];
        for (int64_t x = 0; x < shape.width; x += lanes) {
          const V d = load(work.pixel + row + x) * (load(work.forget + row + x) * load(work.retain + row + x));
          store(upper + x, load(upper + x) + d * (A(1) - tap.t));
          store(lower + x, load(lower + x) + d * tap.t);
        }
      }
    }
    advance(last_row);
  }
}

template <class A>
static void mask_mix_image_gradient(const MaskMixPlan& plan, int64_t begin, int64_t end, void* memory) {
  const MaskMixShape& shape = plan.shape;
  const MaskMixOperands& operands = plan.operands;
  const int64_t out_bytes = size_of(shape.out), image_bytes = size_of(shape.image);
  const int64_t partners = !shape.grid ? 1 : plan.retain_side ? shape.n_forget : shape.n_retain;
  MaskMixWorkspace<A> work(plan, memory);
  const A* share = plan.retain_side ? work.retain : work.forget;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / plan.chunks, top = task % plan.chunks * plan.rows_per_chunk;
    const int64_t bottom = top + plan.rows_per_chunk < shape.height ? top + plan.rows_per_chunk : shape.height;
    const Planes<A> planes(plan, work, top, bottom);
    memset(work.total, 0, sizeof(A) * planes.count * planes.size);
    for (int64_t partner = 0; partner < partners; ++partner) {
      const int64_t pair = !shape.grid        ? image
                           : plan.retain_side ? partner * shape.n_retain + image
                                              : image * shape.n_retain + partner;
      find_shares(plan, work, pair, top, bottom);
      const A* of_element = share;
      if (shape.interleaved) {
        repeat(share, work.wide_forget, (bottom - top) * shape.width, shape.channels);
        of_element = work.wide_forget;
      }
      const void* grad = at(operands.grad, pair * operands.grad_stride, out_bytes);
      A* total = work.total;
      planes.each([&](int64_t offset, Affine<A>) {
        const void* g = at(grad, offset, out_bytes);
        switch (shape.out) {
          case Dtype::f32:
            add_share<float>(g, of_element, total, planes.size);
            break;
          case Dtype::f64:
            add_share<double>(g, of_element, total, planes.size);
            break;
          case Dtype::bf16:
            add_share<BFloat16>(g, of_element, total, planes.size);
            break;
          case Dtype::f16:
            add_share<Half>(g, of_element, total, planes.size);
            break;
        }
        total += planes.size;
      });
    }
    const A* total = work.total;
    planes.each([&](int64_t offset, Affine<A>) {
      char* to = static_cast<char*>(operands.result) + (image * shape.image_size() + offset) * image_bytes;
      put_as(shape.image, total, to, planes.size);
      total += planes.size;
    });
  }
}

static MaskMixKernels mask_mix_kernels(bool in_double) {
  if (in_double) return {mask_mix_forward<double>, mask_mix_mask_gradient<double>, mask_mix_image_gradient<double>};
  return {mask_mix_forward<float>, mask_mix_mask_gradient<float>, mask_mix_image_gradient<float>};
}

}  // namespace PMX_ISA
}  // namespace pmx
