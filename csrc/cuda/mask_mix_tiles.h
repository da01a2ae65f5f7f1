// How mask_mix is cut into tiles on the GPU, one block to a tile: decided from sizes and alignment alone, so that the
// tests can ask for the plan of a shape without a GPU.
#pragma once

#include "../core/mask_mix.h"
#include "launch_plan.h"

namespace pmx {

// How a thread finds its elements: `pack` neighbours of one channel, `pack` pixels of three interleaved channels, or
// one element at a time of any type and layout.
enum class MaskMixAccess : int { planar, colour, any };

constexpr int64_t mask_mix_tile_columns = 256;
constexpr int64_t mask_mix_shared_bytes = 32 * 1024;  // of mask rows: several blocks must fit on a multiprocessor

// Most mask rows (columns) that `count` neighbouring output rows (columns) read, wherever they begin.
constexpr int64_t sources_of(int64_t count, int64_t in, int64_t out) {
  const int64_t most = (count - 1) * in / out + 3;
  return most < in ? most : in;
}

// Interpolation along rows or along columns, from `in` source positions to `out` positions. Where it is `narrow`, as
// for all images but huge ones, 32 bits hold whatever it computes, and it divides by multiplying.
struct MaskMixAxis {
  int64_t in, out;
  Divisor twice_in, twice_out;

  MaskMixAxis() = default;
  MaskMixAxis(int64_t in_, int64_t out_) : in(in_), out(out_) {
    if (!fits()) return;
    twice_in = Divisor(2 * in);
    twice_out = Divisor(2 * out);
  }
  // Whether 32 bits are enough: (2 at + 1) in and (2 k + 1) out stay below 2^31.
  bool fits() const { return in < 1 << 29 && out < 1 << 29 && (2 * out + 1) * in + (2 * in + 1) * out < INT32_MAX; }

  template <bool narrow, class Index>
  PMX_HD Index first_source(Index at) const {
    if constexpr (narrow) {
      const int numerator = (2 * at + 1) * static_cast<int>(in) - static_cast<int>(out),
                last = static_cast<int>(in) - 1;
      if (numerator <= 0) return 0;
      const int first = static_cast<int>(twice_out.quotient(static_cast<uint32_t>(numerator)));
      return first < last ? first : last;
    } else {
      return tap_of<float>(at, in, out).first;
    }
  }
  // The position after the first source, or the same one at the end.
  template <class Index>
  PMX_HD Index second_source(Index first) const {
    return first + 1 < in ? first + 1 : first;
  }
  // The weight of the second source, as in tap_of.
  template <class A, bool narrow, class Index>
  PMX_HD A weight(Index at, Index first) const {
    if constexpr (narrow) {
      const int numerator = (2 * at + 1) * static_cast<int>(in) - static_cast<int>(out),
                twice = 2 * static_cast<int>(out);
      if (numerator <= 0 || first == static_cast<int>(in) - 1) return A(0);
      return static_cast<A>(numerator - first * twice) / static_cast<A>(twice);
    } else {
      return tap_of<A>(at, in, out).t;
    }
  }
  // As first_reader of core/mask_mix.h.
  template <bool narrow, class Index>
  PMX_HD Index reader(Index k) const {
    if constexpr (narrow) {
      if (k <= 0) return 0;
      const int sources = static_cast<int>(in), last = static_cast<int>(out);
      const int numerator = (2 * k + 1) * last - sources;
      if (k >= sources) return last;
      if (numerator <= 0) return 0;
      const int at = static_cast<int>(twice_in.quotient(static_cast<uint32_t>(numerator + 2 * sources - 1)));
      return at < last ? at : last;
    } else {
      return first_reader(k, in, out);
    }
  }
};

// Where an output row or column of a tile reads: places of its two sources, counted from the first source of the tile,
// and their weights.
template <class A>
struct alignas(16) MaskMixTap {
  A near, far;
  int first, second;
};

struct MaskMixTiles {
  int64_t rows, columns;                // of a tile
  int64_t pass_rows;                    // that the threads of a block handle at a time
  int64_t down, across;                 // tiles of an image
  int64_t source_rows, source_columns;  // of the mask that a tile may read
  int64_t partners;                     // pairs of one forget image that a block mixes
  int groups;                           // of partners for each forget image
  int channels, pixels;                 // of an image, where 32 bits hold them
  MaskMixAxis row_axis, column_axis;
  Divisor by_image, by_across, by_groups, by_partners, by_columns, by_packs;

  PMX_HD int64_t per_image() const { return down * across; }
  PMX_HD int64_t mask_values() const { return source_rows * columns; }
  PMX_HD int64_t patch_values() const { return source_rows * source_columns; }

  // Shared memory of a block, in bytes: taps of the tile's rows and mask rows; for a patch also a gradient for each
  // pixel, the weights of the tile's columns and the first readers of its source columns and rows.
  template <class A>
  size_t shared(int64_t pairs) const {
    return sizeof(MaskMixTap<A>) * rows + sizeof(A) * mask_values() * pairs;
  }
  template <class A>
  size_t patch_shared() const {
    return shared<A>(1) + sizeof(A) * (rows * columns + columns) + sizeof(int) * (source_columns + 2 + source_rows);
  }
};

// Whether 32 bits hold every position within an image.
inline bool mask_mix_narrow(const MaskMixShape& shape) {
  return shape.image_size() < INT32_MAX / 2 && MaskMixAxis(shape.mask_height, shape.height).fits() &&
         MaskMixAxis(shape.mask_width, shape.width).fits();
}

// What a block does once, however many pixels it has, is worth so many passes over its tile: more of them in grid
// pairing, which has many pairs, so that every multiprocessor has several blocks all the same.
constexpr int64_t mask_mix_passes(bool grid) { return grid ? 4 : 2; }

// A tile has at most `pack` pixels in each pass for each thread of its block.
inline MaskMixTiles mask_mix_tiles(const MaskMixShape& shape, int pack, int64_t partners, size_t accumulator) {
  MaskMixTiles tiles{};
  tiles.columns = shape.width < mask_mix_tile_columns ? ceil_div(shape.width, pack) * pack : mask_mix_tile_columns;
  tiles.pass_rows = block_threads * pack / tiles.columns;
  tiles.rows = tiles.pass_rows * mask_mix_passes(shape.grid);
  if (tiles.rows > shape.height) tiles.rows = shape.height;
  const auto bytes = [&](int64_t rows, int64_t pairs) {
    return sources_of(rows, shape.mask_height, shape.height) * tiles.columns * pairs *
           static_cast<int64_t>(accumulator);
  };
  while (tiles.rows > 1 && bytes(tiles.rows, partners) > mask_mix_shared_bytes) tiles.rows = (tiles.rows + 1) / 2;
  while (partners > 1 && bytes(tiles.rows, partners) > mask_mix_shared_bytes) partners /= 2;
  tiles.partners = partners;
  tiles.down = ceil_div(shape.height, tiles.rows);
  tiles.across = ceil_div(shape.width, tiles.columns);
  tiles.source_rows = sources_of(tiles.rows, shape.mask_height, shape.height);
  tiles.source_columns = sources_of(tiles.columns, shape.mask_width, shape.width);
  tiles.groups = shape.grid ? static_cast<int>(ceil_div(shape.n_retain, partners)) : 1;
  tiles.channels = static_cast<int>(shape.channels);
  tiles.pixels = static_cast<int>(shape.pixels());
  tiles.row_axis = MaskMixAxis(shape.mask_height, shape.height);
  tiles.column_axis = MaskMixAxis(shape.mask_width, shape.width);
  tiles.by_image = Divisor(tiles.per_image());
  tiles.by_across = Divisor(tiles.across);
  tiles.by_groups = Divisor(tiles.groups > 0 ? tiles.groups : 1);
  tiles.by_partners = Divisor(shape.grid && shape.n_retain > 0 ? shape.n_retain : 1);
  tiles.by_columns = Divisor(tiles.columns);
  tiles.by_packs = Divisor(tiles.columns / pack);
  return tiles;
}

// Forget images meet many retain images in grid pairing; a block that mixes several of them reads its own image once.
inline int64_t mask_mix_partners(const MaskMixShape& shape) { return shape.grid && shape.n_retain > 1 ? 4 : 1; }

// Whether every row of every operand can be read and written in packs.
inline bool mask_mix_packable(const MaskMixShape& shape, const MaskMixOperands& operands, size_t image, size_t out,
                              int pack) {
  if (shape.width % pack != 0 || !mask_mix_narrow(shape)) return false;
  const auto fits = [&](const void* data, int64_t stride, size_t size) {
    return data == nullptr || aligned(data, stride, size, pack);
  };
  return fits(operands.forget, operands.forget_stride, image) && fits(operands.retain, operands.retain_stride, image) &&
         fits(operands.grad, operands.grad_stride, out) && fits(operands.result, shape.image_size(), out);
}

}  // namespace pmx
