// The bodies of mask_mix. A block has a tile of an image: it interpolates the mask rows that the tile reads
// horizontally into shared memory, and then each thread finds the shares of its pixels from two of these rows and mixes
// all channels. The gradient of the mask is summed over the tile in shared memory, first vertically, then horizontally,
// into a small patch for each tile; a second launch gathers the patches of each mask element. No atomics: the order is
// fixed.
#pragma once

#include "block.cuh"
#include "mask_mix_tiles.h"
#include "pack.cuh"

namespace pmx {

template <class A>
PMX_HD A load_any(const void* data, int64_t index, Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return static_cast<A>(static_cast<const float*>(data)[index]);
    case Dtype::f64:
      return static_cast<A>(static_cast<const double*>(data)[index]);
    case Dtype::bf16:
      return static_cast<A>(widen(static_cast<const BFloat16*>(data)[index]));
    default:
      return static_cast<A>(widen(static_cast<const Half*>(data)[index]));
  }
}

template <class A>
PMX_HD void store_any(void* data, int64_t index, Dtype dtype, A value) {
  switch (dtype) {
    case Dtype::f32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    case Dtype::f64:
      static_cast<double*>(data)[index] = static_cast<double>(value);
      break;
    case Dtype::bf16:
      static_cast<BFloat16*>(data)[index] = narrow<BFloat16>(static_cast<float>(value));
      break;
    case Dtype::f16:
      static_cast<Half*>(data)[index] = narrow<Half>(static_cast<float>(value));
      break;
  }
}

PMX_HD float wide(uint8_t value) { return static_cast<float>(value); }
template <class T>
PMX_HD Acc<T> wide(T value) {
  return widen(value);
}

// Elements of known types. A thread handles the channels in rounds of `packs` packs; element e of pack q belongs to
// pixel(q, e) of the thread's pixels and to channel(round, q, e).
template <class In, class Out, bool colour, int width>
struct TypedAccess {
  using A = Acc<Out>;
  using Image = Pack<In, width>;  // as loaded: widened, half types would take twice the registers
  using Grad = Pack<Out, width>;
  static constexpr bool may_be_bytes = std::is_same_v<In, uint8_t>;
  static constexpr bool may_be_floating = !may_be_bytes;
  static constexpr int pack = width;
  static constexpr int packs = 3;  // more would cost registers that the usual images have no use for

  static PMX_HD int64_t rounds(const MaskMixShape& shape) { return colour ? 1 : (shape.channels + packs - 1) / packs; }
  static PMX_HD bool live(const MaskMixShape& shape, int64_t round, int q) {
    return colour || round * packs + q < shape.channels;
  }
  static PMX_HD int64_t offset(const MaskMixShape& shape, int64_t round, int q, int64_t pixel) {
    return colour ? pixel * 3 + q * pack : (round * packs + q) * shape.pixels() + pixel;
  }
  static PMX_HD int pixel(int q, int e) { return colour ? (q * pack + e) / 3 : e; }
  static PMX_HD int64_t channel(int64_t round, int q, int e) { return colour ? (q * pack + e) % 3 : round * packs + q; }
  static PMX_HD Image image(const MaskMixShape&, const void* data, int64_t index) {
    return load_pack<In, pack>(static_cast<const In*>(data) + index);
  }
  static PMX_HD Grad grad(const MaskMixShape&, const void* data, int64_t index) {
    return load_pack<Out, pack>(static_cast<const Out*>(data) + index);
  }
  static PMX_HD void store(const MaskMixShape&, void* data, int64_t index, const Pack<A, pack>& values) {
    Pack<Out, pack> out;
    for (int e = 0; e < pack; ++e) out.at[e] = narrow<Out>(values.at[e]);
    *reinterpret_cast<Pack<Out, pack>*>(static_cast<Out*>(data) + index) = out;
  }
  // A gradient of the images: only where these have the type of the mixes.
  static PMX_HD void store_image(const MaskMixShape& shape, void* data, int64_t index, const Pack<A, pack>& values) {
    store(shape, data, index, values);
  }
};

// Elements of any type and layout, one at a time.
template <class Accumulator>
struct AnyAccess {
  using A = Accumulator;
  using Image = Pack<A, 1>;
  using Grad = Pack<A, 1>;
  static constexpr bool may_be_bytes = true, may_be_floating = true;
  static constexpr int pack = 1;
  static constexpr int packs = 1;

  static PMX_HD int64_t rounds(const MaskMixShape& shape) { return shape.channels; }
  static PMX_HD bool live(const MaskMixShape&, int64_t, int) { return true; }
  static PMX_HD int64_t offset(const MaskMixShape& shape, int64_t round, int, int64_t pixel) {
    return shape.interleaved ? pixel * shape.channels + round : round * shape.pixels() + pixel;
  }
  static PMX_HD int pixel(int, int) { return 0; }
  static PMX_HD int64_t channel(int64_t round, int, int) { return round; }
  static PMX_HD Image image(const MaskMixShape& shape, const void* data, int64_t index) {
    if (shape.bytes) return {{static_cast<A>(static_cast<const uint8_t*>(data)[index])}};
    return {{load_any<A>(data, index, shape.image)}};
  }
  static PMX_HD Grad grad(const MaskMixShape& shape, const void* data, int64_t index) {
    return {{load_any<A>(data, index, shape.out)}};
  }
  static PMX_HD void store(const MaskMixShape& shape, void* data, int64_t index, const Pack<A, 1>& values) {
    store_any(data, index, shape.out, values.at[0]);
  }
  static PMX_HD void store_image(const MaskMixShape& shape, void* data, int64_t index, const Pack<A, 1>& values) {
    store_any(data, index, shape.image, values.at[0]);
  }
};

PMX_HD const void* image_at(const void* images, int64_t index, int64_t stride, Dtype dtype, bool bytes) {
  const int64_t size = bytes ? 1 : dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2;
  return static_cast<const char*>(images) + index * stride * size;
}

// A block's part of an image.
struct Tile {
  int64_t top, left, rows, columns;
  int64_t first_source_row, source_rows;

  PMX_HD Tile(const MaskMixShape& shape, const MaskMixTiles& tiles, int64_t index) {
    top = index / tiles.across * tiles.rows;
    left = index % tiles.across * tiles.columns;
    rows = shape.height - top < tiles.rows ? shape.height - top : tiles.rows;
    columns = shape.width - left < tiles.columns ? shape.width - left : tiles.columns;
    first_source_row = tap_of<float>(top, shape.mask_height, shape.height).first;
    source_rows = tap_of<float>(top + rows - 1, shape.mask_height, shape.height).second - first_source_row + 1;
  }
};

// The mask rows of a pair that the tile reads, at image width: [source_rows, tiles.columns]. Ends without a barrier.
template <class A, class Block>
PMX_HD void expand_mask(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles, const Tile& tile,
                        const void* mask_logits, int64_t pair, A* expanded) {
  const int width = static_cast<int>(tile.columns), count = static_cast<int>(tile.source_rows) * width;
  for (int i = block.thread(); i < count; i += block.threads()) {
    const int k = i / width, x = i % width;
    const Tap<A> tap = tap_of<A>(tile.left + x, shape.mask_width, shape.width);
    const int64_t row = (pair * shape.mask_height + tile.first_source_row + k) * shape.mask_width;
    const A near = finite_logit(load_any<A>(mask_logits, row + tap.first, shape.mask));
    const A far = finite_logit(load_any<A>(mask_logits, row + tap.second, shape.mask));
    expanded[k * tiles.columns + x] = near * (A(1) - tap.t) + far * tap.t;
  }
}

// The place of a thread's pixels in the tile; dead if there are none.
template <int pack, class Block>
struct PixelPlace {
  int y, x;
  bool live;

  PMX_HD PixelPlace(const Block& block, const Tile& tile) {
    const int per_row = static_cast<int>(tile.columns + pack - 1) / pack;
    y = block.thread() / per_row;
    x = block.thread() % per_row * pack;
    live = y < tile.rows;
  }
  PMX_HD int64_t pixel(const MaskMixShape& shape, const Tile& tile) const {
    return (tile.top + y) * shape.width + tile.left + x;
  }
};

// Shares of a thread's pixels.
template <class A, int pack>
struct PixelShares {
  A forget[pack], retain[pack];

  PMX_HD PixelShares(const MaskMixTiles& tiles, const Tile& tile, const Tap<A>& tap, const A* expanded, int x) {
    const Pack<A, pack>*upper, *lower;
    const A* row = expanded + (tap.first - tile.first_source_row) * tiles.columns + x;
    upper = reinterpret_cast<const Pack<A, pack>*>(row);
    lower = reinterpret_cast<const Pack<A, pack>*>(row + (tap.second - tap.first) * tiles.columns);
    for (int e = 0; e < pack; ++e) {
      const Shares<A> shares = shares_of<A>(upper->at[e] * (A(1) - tap.t) + lower->at[e] * tap.t);
      forget[e] = shares.forget;
      retain[e] = shares.retain;
    }
  }
};

// Blocks: (forget image, group of partners) x tiles. Shared memory: partners x tiles.mask_values().
template <class Access, class Block>
PMX_HD void mask_mix_forward_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                  const MaskMixOperands& operands) {
  using A = typename Access::A;
  constexpr int pack = Access::pack, packs = Access::packs;
  const Tile tile(shape, tiles, block.index() % tiles.per_image());
  const int64_t group = block.index() / tiles.per_image();
  const int64_t partners = shape.grid ? shape.n_retain : 1, groups = (partners + tiles.partners - 1) / tiles.partners;
  const int64_t forget = group / groups, begin = group % groups * tiles.partners;
  const int count = static_cast<int>(partners - begin < tiles.partners ? partners - begin : tiles.partners);
  const int64_t first_pair = forget * partners + begin;
  A* expanded = reinterpret_cast<A*>(block.shared());
  for (int g = 0; g < count; ++g) {
    expand_mask(block, shape, tiles, tile, operands.mask_logits, first_pair + g, expanded + g * tiles.mask_values());
  }
  block.sync();
  const PixelPlace<pack, Block> place(block, tile);
  if (!place.live) return;
  const int64_t pixel = place.pixel(shape, tile);
  const Tap<A> tap = tap_of<A>(tile.top + place.y, shape.mask_height, shape.height);
  const void* x_forget = image_at(operands.forget, forget, operands.forget_stride, shape.image, shape.bytes);
  for (int64_t round = 0; round < Access::rounds(shape); ++round) {
    typename Access::Image f[packs];
    for (int q = 0; q < packs; ++q) {
      if (Access::live(shape, round, q)) {
        f[q] = Access::image(shape, x_forget, Access::offset(shape, round, q, pixel));
      }
    }
    for (int g = 0; g < count; ++g) {
      const int64_t pair = first_pair + g;
      const void* x_retain =
          image_at(operands.retain, shape.retain_of(pair), operands.retain_stride, shape.image, shape.bytes);
      typename Access::Image r[packs];
      for (int q = 0; q < packs; ++q) {  // all loads before the first store, which the compiler may not pass
        if (Access::live(shape, round, q)) {
          r[q] = Access::image(shape, x_retain, Access::offset(shape, round, q, pixel));
        }
      }
      const PixelShares<A, pack> shares(tiles, tile, tap, expanded + g * tiles.mask_values(), place.x);
      void* out = const_cast<void*>(image_at(operands.result, pair, shape.image_size(), shape.out, false));
      for (int q = 0; q < packs; ++q) {
        if (!Access::live(shape, round, q)) continue;
        Pack<A, pack> mixed;
        for (int e = 0; e < pack; ++e) {
          const int n = Access::pixel(q, e);
          mixed.at[e] = wide(f[q].at[e]) * shares.forget[n] + wide(r[q].at[e]) * shares.retain[n];
          if (Access::may_be_bytes && shape.bytes) {
            const int64_t channel = Access::channel(round, q, e);
            mixed.at[e] = mixed.at[e] * static_cast<A>(operands.normalisation.scale(channel)) +
                          static_cast<A>(operands.normalisation.shift(channel));
          }
        }
        Access::store(shape, out, Access::offset(shape, round, q, pixel), mixed);
      }
    }
  }
}

// Lanes that sum one element of a patch.
constexpr int patch_lanes = 8;

// Blocks: pairs x tiles. Shared memory: tiles.mask_values() and tiles.rows x tiles.columns. `patches` is
// [pairs, tiles, source_rows, source_columns].
template <class Access, class Block>
PMX_HD void mask_mix_patches_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                  const MaskMixOperands& operands, typename Access::A* patches) {
  using A = typename Access::A;
  constexpr int pack = Access::pack, packs = Access::packs;
  const Tile tile(shape, tiles, block.index() % tiles.per_image());
  const int64_t pair = block.index() / tiles.per_image();
  A* expanded = reinterpret_cast<A*>(block.shared());
  A* by_logit = expanded + tiles.mask_values();  // dL / d upsampled logit
  expand_mask(block, shape, tiles, tile, operands.mask_logits, pair, expanded);
  block.sync();
  const PixelPlace<pack, Block> place(block, tile);
  if (place.live) {
    const int64_t pixel = place.pixel(shape, tile);
    const Tap<A> tap = tap_of<A>(tile.top + place.y, shape.mask_height, shape.height);
    const void* x_forget =
        image_at(operands.forget, shape.forget_of(pair), operands.forget_stride, shape.image, shape.bytes);
    const void* x_retain =
        image_at(operands.retain, shape.retain_of(pair), operands.retain_stride, shape.image, shape.bytes);
    const void* grad = image_at(operands.grad, pair, operands.grad_stride, shape.out, false);
    A difference[pack] = {};
    for (int64_t round = 0; round < Access::rounds(shape); ++round) {
      typename Access::Image f[packs], r[packs];
      typename Access::Grad g[packs];
      for (int q = 0; q < packs; ++q) {
        if (!Access::live(shape, round, q)) continue;
        const int64_t offset = Access::offset(shape, round, q, pixel);
        f[q] = Access::image(shape, x_forget, offset);
        r[q] = Access::image(shape, x_retain, offset);
        g[q] = Access::grad(shape, grad, offset);
      }
      for (int q = 0; q < packs; ++q) {
        if (!Access::live(shape, round, q)) continue;
        for (int e = 0; e < pack; ++e) {
          A term = wide(g[q].at[e]) * (wide(f[q].at[e]) - wide(r[q].at[e]));
          if (Access::may_be_bytes && shape.bytes) {
            term *= static_cast<A>(operands.normalisation.scale(Access::channel(round, q, e)));
          }
          difference[Access::pixel(q, e)] += term;
        }
      }
    }
    const PixelShares<A, pack> shares(tiles, tile, tap, expanded, place.x);
    for (int e = 0; e < pack; ++e) {
      by_logit[place.y * tiles.columns + place.x + e] = difference[e] * (shares.forget[e] * shares.retain[e]);
    }
  }
  block.sync();
  // Vertically: the mask rows are not needed any more, their place takes the sums.
  const int width = static_cast<int>(tile.columns), sources = static_cast<int>(tile.source_rows);
  for (int i = block.thread(); i < sources * width; i += block.threads()) {
    const int x = i % width;
    const int64_t k = tile.first_source_row + i / width, bottom = tile.top + tile.rows;
    const int64_t first = first_reader(k - 1, shape.mask_height, shape.height);
    const int64_t last = first_reader(k + 1, shape.mask_height, shape.height);
    A sum = 0;
    for (int64_t y = first > tile.top ? first : tile.top; y < last && y < bottom; ++y) {
      const Tap<A> tap = tap_of<A>(y, shape.mask_height, shape.height);
      sum += by_logit[(y - tile.top) * tiles.columns + x] * (tap.first == k ? A(1) - tap.t : tap.t);
    }
    expanded[i / width * tiles.columns + x] = sum;
  }
  block.sync();
  // Horizontally, some lanes for each element of the patch.
  const int64_t first_column = tap_of<A>(tile.left, shape.mask_width, shape.width).first;
  const int64_t last_column = tap_of<A>(tile.left + tile.columns - 1, shape.mask_width, shape.width).second;
  const int patch_width = static_cast<int>(last_column - first_column + 1), elements = sources * patch_width;
  const int groups = block.threads() / patch_lanes, lane = block.thread() % patch_lanes;
  for (int base = 0; base < elements; base += groups) {  // idle groups still take part in the exchanges
    const int i = base + block.thread() / patch_lanes;
    A sum = 0;
    if (i < elements) {
      const int64_t k = first_column + i % patch_width, right = tile.left + tile.columns;
      const int64_t first = first_reader(k - 1, shape.mask_width, shape.width);
      const int64_t last = first_reader(k + 1, shape.mask_width, shape.width);
      const A* row = expanded + i / patch_width * tiles.columns;
      for (int64_t x = (first > tile.left ? first : tile.left) + lane; x < last && x < right; x += patch_lanes) {
        const Tap<A> tap = tap_of<A>(x, shape.mask_width, shape.width);
        sum += row[x - tile.left] * (tap.first == k ? A(1) - tap.t : tap.t);
      }
    }
    for (int mask = patch_lanes / 2; mask > 0; mask /= 2) sum += block.shuffle_xor(sum, mask);
    if (i < elements && lane == 0) {
      patches[(block.index() * tiles.source_rows + i / patch_width) * tiles.source_columns + i % patch_width] = sum;
    }
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

// Blocks: images of one side x tiles. Shared memory: tiles.mask_values().
template <class Access, class Block>
PMX_HD void mask_mix_image_gradient_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                         const MaskMixOperands& operands, bool retain_side) {
  using A = typename Access::A;
  constexpr int pack = Access::pack, packs = Access::packs;
  const Tile tile(shape, tiles, block.index() % tiles.per_image());
  const int64_t image = block.index() / tiles.per_image();
  const int64_t partners = !shape.grid ? 1 : retain_side ? shape.n_forget : shape.n_retain;
  A* expanded = reinterpret_cast<A*>(block.shared());
  const PixelPlace<pack, Block> place(block, tile);
  const int64_t pixel = place.pixel(shape, tile);
  const Tap<A> tap = tap_of<A>(tile.top + (place.live ? place.y : 0), shape.mask_height, shape.height);
  for (int64_t round = 0; round < Access::rounds(shape); ++round) {
    Pack<A, pack> total[packs] = {};
    for (int64_t partner = 0; partner < partners; ++partner) {
      const int64_t pair = !shape.grid   ? image
                           : retain_side ? partner * shape.n_retain + image
                                         : image * shape.n_retain + partner;
      block.sync();  // the mask rows of the partner before may still be read
      expand_mask(block, shape, tiles, tile, operands.mask_logits, pair, expanded);
      block.sync();
      if (!place.live) continue;
      const void* grad = image_at(operands.grad, pair, operands.grad_stride, shape.out, false);
      const PixelShares<A, pack> shares(tiles, tile, tap, expanded, place.x);
      for (int q = 0; q < packs; ++q) {
        if (!Access::live(shape, round, q)) continue;
        const typename Access::Grad g = Access::grad(shape, grad, Access::offset(shape, round, q, pixel));
        for (int e = 0; e < pack; ++e) {
          const int n = Access::pixel(q, e);
          total[q].at[e] += wide(g.at[e]) * (retain_side ? shares.retain[n] : shares.forget[n]);
        }
      }
    }
    if (!place.live) continue;
    void* out = const_cast<void*>(image_at(operands.result, image, shape.image_size(), shape.image, false));
    for (int q = 0; q < packs; ++q) {
      if (Access::live(shape, round, q)) {
        Access::store_image(shape, out, Access::offset(shape, round, q, pixel), total[q]);
      }
    }
  }
}

}  // namespace pmx
