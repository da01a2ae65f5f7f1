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

struct MaskMixTiles {
  int64_t rows, columns;                // of a tile
  int64_t down, across;                 // tiles of an image
  int64_t source_rows, source_columns;  // of the mask that a tile may read
  int64_t partners;                     // pairs of one forget image that a block mixes

  PMX_HD int64_t per_image() const { return down * across; }
  PMX_HD int64_t mask_values() const { return source_rows * columns; }
};

// A tile has at most `pack` pixels for each thread of its block.
inline MaskMixTiles mask_mix_tiles(const MaskMixShape& shape, int pack, int64_t partners, size_t accumulator) {
  MaskMixTiles tiles{};
  tiles.columns = shape.width < mask_mix_tile_columns ? ceil_div(shape.width, pack) * pack : mask_mix_tile_columns;
  tiles.rows = block_threads * pack / tiles.columns;
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
  return tiles;
}

// Forget images meet many retain images in grid pairing; a block that mixes several of them reads its own image once.
inline int64_t mask_mix_partners(const MaskMixShape& shape) { return shape.grid && shape.n_retain > 1 ? 4 : 1; }

// Whether every row of every operand can be read and written in packs.
inline bool mask_mix_packable(const MaskMixShape& shape, const MaskMixOperands& operands, size_t image, size_t out,
                              int pack) {
  if (shape.width % pack != 0) return false;
  const auto fits = [&](const void* data, int64_t stride, size_t size) {
    return data == nullptr || aligned(data, stride, size, pack);
  };
  return fits(operands.forget, operands.forget_stride, image) && fits(operands.retain, operands.retain_stride, image) &&
         fits(operands.grad, operands.grad_stride, out) && fits(operands.result, shape.image_size(), out);
}

}  // namespace pmx
