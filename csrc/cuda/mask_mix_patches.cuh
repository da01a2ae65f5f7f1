// The gradient of the mask logits. It is summed over the tile of a block in shared memory, first vertically, then
// horizontally, into a small patch for each tile; a second launch gathers the patches of each mask element. No atomics:
// the order is fixed.
#pragma once

#include "mask_mix.cuh"

namespace pmx {

// Lanes that sum one element of a patch.
constexpr int patch_lanes = 8;

// dL / d upsampled logit of the tile's pixels, [tiles.rows, tiles.columns].
template <class Access, class Block, class A = typename Access::A>
PMX_HD void differentiate_pixels(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                 const Tile<Access>& tile, const MaskMixOperands& operands, uint32_t pair,
                                 const A* expanded, const MaskMixTap<A>* rows, A* by_logit) {
  using Index = typename Access::Index;
  constexpr int pack = Access::pack, packs = Access::packs;
  const PixelPlace<Access> place(block, tiles, tile);
  const uint32_t row = tiles.by_partners.quotient(pair);  // in grid pairing the forget image
  const int64_t forget = shape.grid ? row : pair, retain = shape.grid ? pair - row * tiles.by_partners.value : pair;
  const void* x_forget = Access::image_at(shape, operands.forget, forget, operands.forget_stride);
  const void* x_retain = Access::image_at(shape, operands.retain, retain, operands.retain_stride);
  const void* grad = Access::mix_at(shape, operands.grad, pair, operands.grad_stride);
  const int pitch = static_cast<int>(tiles.columns);
  for (int y = place.y; y < tile.rows; y += static_cast<int>(tiles.pass_rows)) {
    const Index pixel = PixelPlace<Access>::pixel(shape, tile, y, place.x);
    A difference[pack] = {};
    over_rounds<Access>(tiles, [&](Index round, auto live) {
      typename Access::Image f[packs], r[packs];
      typename Access::Grad g[packs];
      for (int q = 0; q < packs; ++q) {
        if (!live(q)) continue;
        const Index offset = Access::offset(shape, tiles, round, q, pixel);
        f[q] = Access::image(shape, x_forget, offset);
        r[q] = Access::image(shape, x_retain, offset);
        g[q] = Access::grad(shape, grad, offset);
      }
      for (int q = 0; q < packs; ++q) {
        if (!live(q)) continue;
        const Pack<A, pack> of_forget = wide<A>(f[q]), of_retain = wide<A>(r[q]), incoming = wide<A>(g[q]);
        for (int e = 0; e < pack; ++e) {
          A term = incoming.at[e] * (of_forget.at[e] - of_retain.at[e]);
          if (Access::may_be_bytes && shape.bytes) {
            term *= static_cast<A>(operands.normalisation.scale(Access::channel(round, q, e)));
          }
          difference[Access::pixel(q, e)] += term;
        }
      }
    });
    const Pack<A, pack> logits = expanded_logits<A, pack>(rows[y], expanded + place.x);
    Pack<A, pack> result;
    for (int e = 0; e < pack; ++e) {
      result.at[e] = difference[e] * shares_product<A, typename Access::Element>(logits.at[e]);
    }
    store_whole(by_logit + y * pitch + place.x, result);
  }
}

// Sums a column of the tile into its `sources` sources, `to` being their first: a row adds to its two sources, and what
// the next source has so far is ready when the rows turn to it. `ends` has the first row that does not begin at a
// source.
template <class A>
PMX_HD void fold_column(const A* by_logit, const MaskMixTap<A>* rows, const int* ends, int pitch, int sources, A* to) {
  A own = 0;
  int y = 0;
  for (int source = 0; source < sources; ++source, to += pitch) {
    A next = 0;
    for (const int end = ends[source]; y < end; ++y, by_logit += pitch) {
      const MaskMixTap<A>& tap = rows[y];
      own += *by_logit * tap.near;
      next += *by_logit * tap.far;
    }
    *to = own;
    own = next;
  }
}

// Blocks: pairs x tiles. Shared memory: tiles.patch_shared<A>(). `patches` is
// [pairs, tiles, source_rows, source_columns].
template <class Access, class Block>
PMX_HD void mask_mix_patches_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                  const MaskMixOperands& operands, typename Access::A* patches) {
  using A = typename Access::A;
  using Index = typename Access::Index;
  const auto index = static_cast<uint32_t>(block.index()), pair = tiles.by_image.quotient(index);
  const Tile<Access> tile(shape, tiles, index - pair * tiles.by_image.value);
  auto* rows = reinterpret_cast<MaskMixTap<A>*>(block.shared());
  A* expanded = reinterpret_cast<A*>(rows + tiles.rows);
  A* by_logit = expanded + tiles.mask_values();
  A* weights = by_logit + tiles.rows * tiles.columns;
  // First readers of the source columns, from the one before the tile's first to the one after its last, and of the
  // source rows from the second on.
  int* readers = reinterpret_cast<int*>(weights + tiles.columns);
  int* row_readers = readers + tiles.source_columns + 2;
  expand_masks<Access>(block, shape, tiles, tile, operands.mask_logits, pair, 1, expanded, rows, weights);
  const Index last_column = Tile<Access>::second_of(tiles.column_axis, tile.left + tile.columns - 1);
  const int sources = tile.source_rows, width = static_cast<int>(last_column - tile.first_source_column) + 1;
  const auto reader = [](const MaskMixAxis& axis, Index source, Index begin, Index count) {
    const Index at = axis.template reader<Access::narrow>(source) - begin;
    return static_cast<int>(at < 0 ? 0 : at < count ? at : count);
  };
  for (int i = block.thread(); i < width + 2; i += block.threads()) {
    readers[i] = reader(tiles.column_axis, tile.first_source_column + i - 1, tile.left, tile.columns);
  }
  for (int i = block.thread(); i < sources; i += block.threads()) {
    row_readers[i] = reader(tiles.row_axis, tile.first_source_row + i + 1, tile.top, tile.rows);
  }
  block.sync();
  differentiate_pixels<Access>(block, shape, tiles, tile, operands, pair, expanded, rows, by_logit);
  block.sync();
  // Vertically: the mask rows are not needed any more, their place takes the sums. A thread has one column.
  const int pitch = static_cast<int>(tiles.columns);
  for (int x = block.thread(); x < tile.columns; x += block.threads()) {
    fold_column(by_logit + x, rows, row_readers, pitch, sources, expanded + x);
  }
  block.sync();
  // Horizontally, some lanes for each element of the patch: columns whose second source it is, then those whose first.
  const int groups = block.threads() / patch_lanes, lane = block.thread() % patch_lanes;
  A* patch = patches + static_cast<int64_t>(index) * tiles.patch_values();
  int k = 0, j = block.thread() / patch_lanes;                  // source row and column of the group's element
  for (int done = 0; done < sources * width; done += groups) {  // idle groups still take part in the exchanges
    while (j >= width) {
      j -= width;
      ++k;
    }
    A sum = 0;
    if (k < sources) {
      const int middle = readers[j + 1], end = readers[j + 2];
      const A* row = expanded + k * pitch;
      for (int x = readers[j] + lane; x < end; x += patch_lanes) {
        sum += row[x] * (x < middle ? weights[x] : A(1) - weights[x]);
      }
    }
    for (int mask = patch_lanes / 2; mask > 0; mask /= 2) sum += block.shuffle_xor(sum, mask);
    if (k < sources && lane == 0) patch[k * static_cast<int>(tiles.source_columns) + j] = sum;
    j += groups;
  }
}

// One thread for each mask element: the sum of what the tiles that read it have left in their patches.
template <class A, class Block>
PMX_HD void mask_mix_gather_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles, const A* patches,
                                 void* result) {
  const int64_t size = shape.mask_height * shape.mask_width;
  const int64_t element = block.index() * block.threads() + block.thread();
  if (element >= shape.pairs() * size) return;
  const int64_t pair = element / size, i = element % size / shape.mask_width, j = element % shape.mask_width;
  const int64_t top = first_reader(i - 1, shape.mask_height, shape.height);
  const int64_t bottom = first_reader(i + 1, shape.mask_height, shape.height);
  const int64_t left = first_reader(j - 1, shape.mask_width, shape.width);
  const int64_t right = first_reader(j + 1, shape.mask_width, shape.width);
  A sum = 0;
  for (int64_t down = top / tiles.rows; top < bottom && down <= (bottom - 1) / tiles.rows; ++down) {
    const int64_t row = i - tap_of<A>(down * tiles.rows, shape.mask_height, shape.height).first;
    for (int64_t across = left / tiles.columns; left < right && across <= (right - 1) / tiles.columns; ++across) {
      const int64_t column = j - tap_of<A>(across * tiles.columns, shape.mask_width, shape.width).first;
      const int64_t patch = pair * tiles.per_image() + down * tiles.across + across;
      sum += patches[(patch * tiles.source_rows + row) * tiles.source_columns + column];
    }
  }
  store_any(result, element, shape.mask, sum);
}

}  // namespace pmx
