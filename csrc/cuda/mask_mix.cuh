// The bodies of mask_mix, forward and gradients of the images. A block has a tile of an image: it interpolates the mask
// rows that the tile reads horizontally into shared memory, and then each thread finds the shares of its pixels from
// two of these rows and mixes all channels.
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

PMX_HD int64_t bytes_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

// The elements of a pack in the type A.
template <class A, class T, int pack>
PMX_HD Pack<A, pack> wide(const Pack<T, pack>& values) {
  if constexpr (std::is_same_v<T, uint8_t>) {
    Pack<A, pack> result;
    for (int e = 0; e < pack; ++e) result.at[e] = static_cast<A>(values.at[e]);
    return result;
  } else {
    return widen_pack(values);
  }
}

// Elements of known types. A thread handles the channels in rounds of `packs` packs; element e of pack q belongs to
// pixel(q, e) of the thread's pixels and to channel(round, q, e).
template <class In, class Out, bool colour, int width>
struct TypedAccess {
  using A = Acc<Out>;
  using Element = Out;
  using Image = Pack<In, width>;  // as loaded: widened, half types would take twice the registers
  using Grad = Pack<Out, width>;
  static constexpr bool may_be_bytes = std::is_same_v<In, uint8_t>;
  static constexpr bool may_be_floating = !may_be_bytes;
  static constexpr bool narrow = true;  // 32 bits hold every position within an image
  using Index = int;
  static constexpr int pack = width;
  static constexpr int packs = 3;  // more would cost registers that the usual images have no use for

  static PMX_HD int rounds(const MaskMixTiles& tiles) { return colour ? 1 : (tiles.channels + packs - 1) / packs; }
  static PMX_HD bool live(const MaskMixTiles& tiles, int round, int q) {
    return colour || round * packs + q < tiles.channels;
  }
  static PMX_HD int offset(const MaskMixShape&, const MaskMixTiles& tiles, int round, int q, int pixel) {
    return colour ? pixel * 3 + q * pack : (round * packs + q) * tiles.pixels + pixel;
  }
  static PMX_HD int pixel(int q, int e) { return colour ? (q * pack + e) / 3 : e; }
  static PMX_HD int channel(int round, int q, int e) { return colour ? (q * pack + e) % 3 : round * packs + q; }
  static PMX_HD const void* image_at(const MaskMixShape&, const void* images, int64_t index, int64_t stride) {
    int64_t first = index * stride;
    compute_once(first);
    return static_cast<const In*>(images) + first;
  }
  static PMX_HD const void* mix_at(const MaskMixShape&, const void* mixes, int64_t index, int64_t stride) {
    int64_t first = index * stride;
    compute_once(first);
    return static_cast<const Out*>(mixes) + first;
  }
  static PMX_HD Image image(const MaskMixShape&, const void* data, int index) {
    return load_pack<In, pack>(static_cast<const In*>(data) + index);
  }
  static PMX_HD Grad grad(const MaskMixShape&, const void* data, int index) {
    return load_pack<Out, pack>(static_cast<const Out*>(data) + index);
  }
  static PMX_HD void store(const MaskMixShape&, void* data, int index, const Pack<A, pack>& values) {
    store_pack(static_cast<Out*>(data) + index, values);
  }
  // A gradient of the images: only where these have the type of the mixes.
  static PMX_HD void store_image(const MaskMixShape& shape, void* data, int index, const Pack<A, pack>& values) {
    store(shape, data, index, values);
  }
};

// Calls body(round, live) for the channels of a thread's pixels; live(q) says whether the round has pack q. Rounds of
// floating images that have all of them, as usual, do without asking; of bytes, all at once would take too many
// registers.
template <class Access, class Body>
PMX_HD void over_rounds(const MaskMixTiles& tiles, Body&& body) {
  using Index = typename Access::Index;
  const Index rounds = Access::rounds(tiles);
  for (Index round = 0; round < rounds; ++round) {
    if (!Access::may_be_bytes && Access::live(tiles, round, Access::packs - 1)) {
      body(round, [](int) { return true; });
    } else {
      body(round, [&](int q) { return Access::live(tiles, round, q); });
    }
  }
}

// Elements of any type and layout, one at a time.
template <class Accumulator>
struct AnyAccess {
  using A = Accumulator;
  using Element = A;
  using Image = Pack<A, 1>;
  using Grad = Pack<A, 1>;
  static constexpr bool may_be_bytes = true, may_be_floating = true, narrow = false;
  using Index = int64_t;
  static constexpr int pack = 1;
  static constexpr int packs = 1;

  static PMX_HD int64_t rounds(const MaskMixTiles& tiles) { return tiles.channels; }
  static PMX_HD bool live(const MaskMixTiles&, int64_t, int) { return true; }
  static PMX_HD const void* image_at(const MaskMixShape& shape, const void* images, int64_t index, int64_t stride) {
    return static_cast<const char*>(images) + index * stride * (shape.bytes ? 1 : bytes_of(shape.image));
  }
  static PMX_HD const void* mix_at(const MaskMixShape& shape, const void* mixes, int64_t index, int64_t stride) {
    return static_cast<const char*>(mixes) + index * stride * bytes_of(shape.out);
  }
  static PMX_HD int64_t offset(const MaskMixShape& shape, const MaskMixTiles&, int64_t round, int, int64_t pixel) {
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

// A block's part of an image.
template <class Access>
struct Tile {
  using Index = typename Access::Index;
  Index top, left, rows, columns;
  Index first_source_row, first_source_column;
  int source_rows;

  PMX_HD Tile(const MaskMixShape& shape, const MaskMixTiles& tiles, uint32_t index) {
    const uint32_t down = tiles.by_across.quotient(index);
    top = static_cast<Index>(down) * static_cast<Index>(tiles.rows);
    left = static_cast<Index>(index - down * tiles.by_across.value) * static_cast<Index>(tiles.columns);
    rows = least(static_cast<Index>(shape.height) - top, static_cast<Index>(tiles.rows));
    columns = least(static_cast<Index>(shape.width) - left, static_cast<Index>(tiles.columns));
    first_source_row = first_of(tiles.row_axis, top);
    first_source_column = first_of(tiles.column_axis, left);
    source_rows = 1 + static_cast<int>(second_of(tiles.row_axis, top + rows - 1) - first_source_row);
  }

  static PMX_HD Index first_of(const MaskMixAxis& axis, Index at) {
    return axis.template first_source<Access::narrow>(at);
  }
  static PMX_HD Index second_of(const MaskMixAxis& axis, Index at) { return axis.second_source(first_of(axis, at)); }
  // `step` is the distance of neighbouring sources.
  template <class A>
  static PMX_HD MaskMixTap<A> tap(const MaskMixAxis& axis, Index at, Index begin, int step) {
    const Index first = first_of(axis, at);
    const A weight = axis.template weight<A, Access::narrow>(at, first);
    return {A(1) - weight, weight, static_cast<int>(first - begin) * step,
            static_cast<int>(axis.second_source(first) - begin) * step};
  }

 private:
  static PMX_HD Index least(Index a, Index b) { return a < b ? a : b; }
};

// The rows `first_row` and following of a mask at the column of one thread, every `step`-th of `count`.
template <class M, class A>
PMX_HD void expand_column(const void* mask_logits, int64_t first, int64_t width, const MaskMixTap<A>& tap, int begin,
                          int step, int count, A* expanded, int pitch) {
  const M* near = static_cast<const M*>(mask_logits) + first + tap.first + begin * width;
  const int ahead = tap.second - tap.first;
  for (int k = begin; k < count; k += step, near += step * width) {
    const A a = finite_logit(static_cast<A>(widen(near[0])));
    const A b = finite_logit(static_cast<A>(widen(near[ahead])));
    expanded[k * pitch] = a * tap.near + b * tap.far;
  }
}

// The mask rows of `count` pairs that the tile reads, at image width: [count, tiles.source_rows, tiles.columns], and
// the taps of the tile's rows. A thread has one column, and `weights`, unless null, receives that of its tap. Ends
// without a barrier.
template <class Access, class Block, class A = typename Access::A>
PMX_HD void expand_masks(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles, const Tile<Access>& tile,
                         const void* mask_logits, int64_t pair, int count, A* expanded, MaskMixTap<A>* rows,
                         A* weights) {
  using Index = typename Access::Index;
  const int thread = block.thread();
  const int pitch = static_cast<int>(tiles.columns);
  for (int y = thread; y < tile.rows; y += block.threads()) {
    rows[y] = Tile<Access>::template tap<A>(tiles.row_axis, tile.top + y, tile.first_source_row, pitch);
  }
  const int step = static_cast<int>(tiles.by_columns.quotient(static_cast<uint32_t>(block.threads())));
  const int begin = static_cast<int>(tiles.by_columns.quotient(static_cast<uint32_t>(thread)));
  const int x = thread - begin * pitch;
  if (begin >= step || x >= tile.columns) return;
  const MaskMixTap<A> tap =
      Tile<Access>::template tap<A>(tiles.column_axis, tile.left + static_cast<Index>(x), tile.first_source_column, 1);
  if (weights != nullptr && begin == 0) weights[x] = tap.far;
  const int64_t size = shape.mask_height * shape.mask_width;
  int64_t first = pair * size + tile.first_source_row * shape.mask_width + tile.first_source_column;
  for (int g = 0; g < count; ++g, first += size, expanded += tiles.mask_values()) {
    const auto expand = [&](auto element) {
      expand_column<decltype(element)>(mask_logits, first, shape.mask_width, tap, begin, step, tile.source_rows,
                                       expanded + x, pitch);
    };
    switch (shape.mask) {
      case Dtype::f32:
        expand(float{});
        break;
      case Dtype::f64:
        expand(double{});
        break;
      case Dtype::bf16:
        expand(BFloat16{});
        break;
      case Dtype::f16:
        expand(Half{});
        break;
    }
  }
}

// The place of a thread's pixels in the rows of the tile's first pass; the next passes are tiles.pass_rows further
// down.
template <class Access>
struct PixelPlace {
  using Index = typename Access::Index;
  int y, x;

  template <class Block>
  PMX_HD PixelPlace(const Block& block, const MaskMixTiles& tiles, const Tile<Access>& tile) {
    const auto thread = static_cast<uint32_t>(block.thread());
    y = static_cast<int>(tiles.by_packs.quotient(thread));
    x = static_cast<int>(thread - static_cast<uint32_t>(y) * tiles.by_packs.value) * Access::pack;
    if (x >= tile.columns || y >= tiles.pass_rows) y = static_cast<int>(tile.rows);  // none
    compute_once(x);
    compute_once(y);
  }
  static PMX_HD Index pixel(const MaskMixShape& shape, const Tile<Access>& tile, int y, int x) {
    return (tile.top + y) * static_cast<Index>(shape.width) + tile.left + x;
  }
};

// Mask logits of a thread's pixels, from the mask rows at its first column.
template <class A, int pack>
PMX_HD Pack<A, pack> expanded_logits(const MaskMixTap<A>& tap, const A* expanded) {
  const Pack<A, pack> upper = load_pack<A, pack>(expanded + tap.first);
  const Pack<A, pack> lower = load_pack<A, pack>(expanded + tap.second);
  Pack<A, pack> logits;
  for (int e = 0; e < pack; ++e) logits.at[e] = upper.at[e] * tap.near + lower.at[e] * tap.far;
  return logits;
}

// Shares of a thread's pixels for elements of type T, from the mask rows at its first column.
template <class T, class A, int pack>
struct PixelShares {
  A forget[pack], retain[pack];

  PMX_HD PixelShares(const MaskMixTap<A>& tap, const A* expanded) {
    const Pack<A, pack> logits = expanded_logits<A, pack>(tap, expanded);
    for (int e = 0; e < pack; ++e) {
      const Shares<A> shares = shares_of<A, T>(logits.at[e]);
      forget[e] = shares.forget;
      retain[e] = shares.retain;
    }
  }
};

// Blocks: (forget image, group of partners) x tiles. Shared memory: tiles.shared<A>(tiles.partners).
template <class Access, class Block>
PMX_HD void mask_mix_forward_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                  const MaskMixOperands& operands) {
  using A = typename Access::A;
  using Index = typename Access::Index;
  constexpr int pack = Access::pack, packs = Access::packs;
  const auto index = static_cast<uint32_t>(block.index()), group = tiles.by_image.quotient(index);
  const Tile<Access> tile(shape, tiles, index - group * tiles.by_image.value);
  const uint32_t forget = tiles.by_groups.quotient(group);
  const int begin = static_cast<int>(group - forget * tiles.by_groups.value) * static_cast<int>(tiles.partners);
  const int partners = shape.grid ? static_cast<int>(shape.n_retain) : 1;
  const int count = partners - begin < tiles.partners ? partners - begin : static_cast<int>(tiles.partners);
  const int64_t first_pair = static_cast<int64_t>(forget) * partners + begin;
  auto* taps = reinterpret_cast<MaskMixTap<A>*>(block.shared());
  A* expanded = reinterpret_cast<A*>(taps + tiles.rows);
  expand_masks<Access>(block, shape, tiles, tile, operands.mask_logits, first_pair, count, expanded, taps,
                       static_cast<A*>(nullptr));
  block.sync();
  const PixelPlace<Access> place(block, tiles, tile);
  const void* x_forget = Access::image_at(shape, operands.forget, forget, operands.forget_stride);
  for (int y = place.y; y < tile.rows; y += static_cast<int>(tiles.pass_rows)) {
    const Index pixel = PixelPlace<Access>::pixel(shape, tile, y, place.x);
    const MaskMixTap<A> tap = taps[y];
    over_rounds<Access>(tiles, [&](Index round, auto live) {
      typename Access::Image f[packs];
      for (int q = 0; q < packs; ++q) {
        if (live(q)) f[q] = Access::image(shape, x_forget, Access::offset(shape, tiles, round, q, pixel));
      }
      const A* mask = expanded + place.x;
      for (int g = 0; g < count; ++g, mask += tiles.mask_values()) {
        const int64_t retain = shape.grid ? begin + g : static_cast<int64_t>(forget);
        const void* x_retain = Access::image_at(shape, operands.retain, retain, operands.retain_stride);
        typename Access::Image r[packs];
        for (int q = 0; q < packs; ++q) {  // all loads before the first store, which the compiler may not pass
          if (live(q)) r[q] = Access::image(shape, x_retain, Access::offset(shape, tiles, round, q, pixel));
        }
        const PixelShares<typename Access::Element, A, pack> shares(tap, mask);
        void* out = const_cast<void*>(Access::mix_at(shape, operands.result, first_pair + g, shape.image_size()));
        for (int q = 0; q < packs; ++q) {
          if (!live(q)) continue;
          const Pack<A, pack> of_forget = wide<A>(f[q]), of_retain = wide<A>(r[q]);
          Pack<A, pack> mixed;
          for (int e = 0; e < pack; ++e) {
            const int n = Access::pixel(q, e);
            mixed.at[e] = of_forget.at[e] * shares.forget[n] + of_retain.at[e] * shares.retain[n];
            if (Access::may_be_bytes && shape.bytes) {
              const Index channel = Access::channel(round, q, e);
              mixed.at[e] = mixed.at[e] * static_cast<A>(operands.normalisation.scale(channel)) +
                            static_cast<A>(operands.normalisation.shift(channel));
            }
          }
          Access::store(shape, out, Access::offset(shape, tiles, round, q, pixel), mixed);
        }
      }
    });
  }
}

// Blocks: images of one side x tiles. Shared memory: tiles.shared<A>(1).
template <class Access, class Block>
PMX_HD void mask_mix_image_gradient_body(Block& block, const MaskMixShape& shape, const MaskMixTiles& tiles,
                                         const MaskMixOperands& operands, bool retain_side) {
  using A = typename Access::A;
  using Index = typename Access::Index;
  constexpr int pack = Access::pack, packs = Access::packs;
  const auto index = static_cast<uint32_t>(block.index()), image = tiles.by_image.quotient(index);
  const Tile<Access> tile(shape, tiles, index - image * tiles.by_image.value);
  const int64_t partners = !shape.grid ? 1 : retain_side ? shape.n_forget : shape.n_retain;
  // From one partner to the next.
  const int64_t step = retain_side ? shape.n_retain : 1;
  const int64_t first_pair = shape.grid && !retain_side ? image * shape.n_retain : static_cast<int64_t>(image);
  auto* taps = reinterpret_cast<MaskMixTap<A>*>(block.shared());
  A* expanded = reinterpret_cast<A*>(taps + tiles.rows);
  const PixelPlace<Access> place(block, tiles, tile);
  const Index rounds = Access::rounds(tiles),
              passes = static_cast<Index>((tile.rows + tiles.pass_rows - 1) / tiles.pass_rows);
  for (Index turn = 0; turn < rounds * passes; ++turn) {
    const Index round = turn % rounds;
    const int y = place.y + static_cast<int>(turn / rounds) * static_cast<int>(tiles.pass_rows);
    const bool live = y < tile.rows;
    const Index pixel = PixelPlace<Access>::pixel(shape, tile, y, place.x);
    Pack<A, pack> total[packs] = {};
    int64_t pair = first_pair;
    for (int64_t partner = 0; partner < partners; ++partner, pair += step) {
      block.sync();  // the mask rows of the partner before may still be read
      expand_masks<Access>(block, shape, tiles, tile, operands.mask_logits, pair, 1, expanded, taps,
                           static_cast<A*>(nullptr));
      block.sync();
      if (!live) continue;
      const void* grad = Access::mix_at(shape, operands.grad, pair, operands.grad_stride);
      const PixelShares<typename Access::Element, A, pack> shares(taps[y], expanded + place.x);
      for (int q = 0; q < packs; ++q) {
        if (!Access::live(tiles, round, q)) continue;
        const Pack<A, pack> g = wide<A>(Access::grad(shape, grad, Access::offset(shape, tiles, round, q, pixel)));
        for (int e = 0; e < pack; ++e) {
          const int n = Access::pixel(q, e);
          total[q].at[e] += g.at[e] * (retain_side ? shares.retain[n] : shares.forget[n]);
        }
      }
    }
    if (!live) continue;
    void* out = const_cast<void*>(Access::image_at(shape, operands.result, image, shape.image_size()));
    for (int q = 0; q < packs; ++q) {
      if (Access::live(tiles, round, q)) {
        Access::store_image(shape, out, Access::offset(shape, tiles, round, q, pixel), total[q]);
      }
    }
  }
}

}  // namespace pmx
