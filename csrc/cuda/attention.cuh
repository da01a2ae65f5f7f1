// MixBlock's attention on the GPU. A block of four warps owns a tile of positions of one image, 16 to a warp, and walks
// over the tiles of the other side: forward over keys; backward once over keys (dq) and once over queries (dk, dv). An
// owner sums over the partners of its image by itself, in order: no atomics, and nothing of the size of all pairs but
// the outputs. Scores never leave the registers.
#pragma once

#include "../core/attention.h"
#include "launch_plan.h"
#include "mma.cuh"

namespace pmx {

constexpr int attention_threads = tile_size / warp_rows * warp_size;

// Channels [first, first + count) in the tile, rounded up to whole steps of the product.
template <class Math>
PMX_HD int chunk_depth(int64_t dim, int64_t first) {
  const int64_t left = dim - first < Math::channels ? dim - first : Math::channels;
  return static_cast<int>(ceil_div(left, Math::depth_step)) * Math::depth_step;
}

// Shared memory of every body: two tiles of maps, four vectors of a tile's length, and the stage of PlainMath.
template <class Math>
struct SharedTiles {
  using T = typename Math::Element;
  using A = Acc<T>;
  T* own;
  T* other;
  A* vectors;
  A* stage;

  PMX_HD SharedTiles(unsigned char* memory, int64_t dim) {
    const int64_t map = static_cast<int64_t>(chunk_depth<Math>(dim, 0)) * tile_pitch;
    own = reinterpret_cast<T*>(memory);
    other = own + map;
    vectors = reinterpret_cast<A*>(other + map);
    stage = vectors + 4 * tile_size;
  }
  static size_t bytes(int64_t dim, bool backward) {
    const size_t map = sizeof(T) * chunk_depth<Math>(dim, 0) * tile_pitch;
    const size_t staged = backward && Math::stages ? sizeof(A) * tile_size * tile_pitch : 0;
    return 2 * map + sizeof(A) * 4 * tile_size + staged;
  }
};

// Copies 4, 8 or 16 bytes into shared memory without passing through registers; complete after wait_for_copies().
template <int bytes>
PMX_HD void copy_async(void* to, const void* from) {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "n"(bytes)
               : "memory");
#else
  memcpy(to, from, bytes);
#endif
}
PMX_HD void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

template <int pack, class T, class Block>
PMX_HD void load_packed(Block& block, const T* from, int64_t channel, int channels, int depth, int64_t positions,
                        T* to) {
  constexpr int packs = tile_size / pack, step = attention_threads / packs;
  const int p = block.thread() % packs * pack, first = block.thread() / packs;
  const bool whole = p + pack <= positions;
  const T* there = from + first * channel + p;
  T* here = to + first * tile_pitch + p;
  PMX_UNROLL_BY(2)
  for (int c = first; c < depth; c += step, there += step * channel, here += step * tile_pitch) {
    if constexpr (pack * sizeof(T) >= 4) {
      if (whole && c < channels) {
        copy_async<pack * sizeof(T)>(here, there);
        continue;
      }
    }
    for (int e = 0; e < pack; ++e) here[e] = c < channels && p + e < positions ? there[e] : T{};
  }
}

// A tile of an image's map into shared memory, zeros beyond its channels and positions.
template <class Math, class Block>
PMX_HD void load_map(Block& block, const Attention& in, const Maps& maps, int64_t image, int64_t first_channel,
                     int64_t first_position, typename Math::Element* to) {
  using T = typename Math::Element;
  const T* from = static_cast<const T*>(maps.data) + image * maps.image + first_channel * maps.channel + first_position;
  const int depth = chunk_depth<Math>(in.dim, first_channel);
  const int64_t left = in.dim - first_channel;
  const int channels = static_cast<int>(left < depth ? left : depth);
  const int64_t positions = in.tokens - first_position;
  constexpr int pack = 8 / sizeof(T);  // 14 x 14 positions of 2 bytes are a multiple of 8 bytes, and no more
  if (aligned(from, maps.channel, sizeof(T), pack)) {
    load_packed<pack>(block, from, maps.channel, channels, depth, positions, to);
  } else {
    load_packed<1>(block, from, maps.channel, channels, depth, positions, to);
  }
}

// exp((s - base) scale): to the last digits where the scores are, by the fast instruction where they are not.
template <class Math, class A>
PMX_HD A weight_of(A s, A base, A scale) {
  if constexpr (Math::exact) {
    return std::exp((s - base) * scale);
  } else {
    return exp2f((s - base) * (scale * 1.44269504f));
  }
}

// The sum (or the larger) over the four lanes that share a row.
template <class Block, class A>
PMX_HD A row_sum(Block& block, A value) {
  value += block.shuffle_xor(value, 1);
  return value + block.shuffle_xor(value, 2);
}
template <class Block, class A>
PMX_HD A row_maximum(Block& block, A value) {
  A other = block.shuffle_xor(value, 1);
  value = other > value ? other : value;
  other = block.shuffle_xor(value, 2);
  return other > value ? other : value;
}

// Where a thread is in its block's tile.
template <class Block>
struct WarpPlace {
  int warp, g, t;
  explicit PMX_HD WarpPlace(Block& block)
      : warp(block.thread() / warp_size), g(block.thread() % warp_size / 4), t(block.thread() % 4) {}
  PMX_HD int row(int half) const { return warp * warp_rows + g + 8 * half; }
};

// Scores of the own tile against another, the channels in chunks.
template <class Math, class Block>
PMX_HD void tile_scores(Block& block, const Attention& in, const SharedTiles<Math>& tiles, const Maps& own,
                        int64_t own_image, int64_t own_first, bool own_is_loaded, const Maps& other,
                        int64_t other_image, int64_t other_first, bool live,
                        Part<Acc<typename Math::Element>> (&s)[tile_parts]) {
  const WarpPlace<Block> place(block);
  PMX_UNROLL
  for (int j = 0; j < tile_parts; ++j) s[j] = {};
  for (int64_t channel = 0; channel < in.dim; channel += Math::channels) {
    block.sync();  // the tiles of the step before have been used
    if (!own_is_loaded || in.dim > Math::channels) {
      load_map<Math>(block, in, own, own_image, channel, own_first, tiles.own);
    }
    load_map<Math>(block, in, other, other_image, channel, other_first, tiles.other);
    wait_for_copies();
    block.sync();
    if (live) {
      Math::scores(block, tiles.own + place.warp * warp_rows, tiles.other, chunk_depth<Math>(in.dim, channel), s);
    }
  }
}

// Both directions of a tile of queries of a pair. Grid: pairs x tiles.
template <class Math, class Block>
PMX_HD void attention_forward_body(Block& block, const Attention& in, Acc<typename Math::Element>* states,
                                   typename Math::Element* out) {
  using T = typename Math::Element;
  using A = Acc<T>;
  const SharedTiles<Math> tiles(block.shared(), in.dim);
  const WarpPlace<Block> place(block);
  const int64_t count = ceil_div(in.tokens, tile_size), pair = block.index() / count;
  const int64_t first = block.index() % count * tile_size;
  const bool live = first + place.warp * warp_rows < in.tokens;
  const A scale = static_cast<A>(in.scale);
  A difference[2] = {0, 0};
  for (int k = 0; k < 2; ++k) {
    const Direction& maps = in.direction[k];
    const int64_t mine = in.image_of(k, pair), partner = in.image_of(1 - k, pair);
    const T* values = static_cast<const T*>(maps.value.data) + mine * maps.value.image;
    A top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, weighted[2] = {0, 0};
    for (int64_t key = 0; key < in.tokens; key += tile_size) {
      if (key > 0 || k > 0) block.sync();  // the values of the step before have been used
      for (int m = block.thread(); m < tile_size; m += attention_threads) {
        tiles.vectors[m] = key + m < in.tokens ? static_cast<A>(widen(values[key + m])) : A(0);
      }
      Part<A> s[tile_parts];
      tile_scores<Math>(block, in, tiles, maps.query, mine, first, key > 0, maps.key, partner, key, live, s);
      if (!live) continue;
      PMX_UNROLL
      for (int j = 0; j < tile_parts; ++j) {
        for (int e = 0; e < 4; ++e) {
          if (key + j * 8 + 2 * place.t + e % 2 >= in.tokens) s[j].at[e] = -INFINITY;
        }
      }
      PMX_UNROLL
      for (int half = 0; half < 2; ++half) {
        A max = top[half];
        PMX_UNROLL
        for (int j = 0; j < tile_parts; ++j) {
          for (int e = 2 * half; e < 2 * half + 2; ++e) max = s[j].at[e] > max ? s[j].at[e] : max;
        }
        max = row_maximum(block, max);
        // Nothing but -inf so far: any finite base gives weights of 0, while -inf - -inf has no value.
        const A base = max == -INFINITY ? A(0) : max;
        const A shrink = weight_of<Math>(top[half], base, scale);
        A part = 0, part_weighted = 0;
        PMX_UNROLL
        for (int j = 0; j < tile_parts; ++j) {
          for (int e = 0; e < 2; ++e) {
            const A weight = weight_of<Math>(s[j].at[2 * half + e], base, scale);
            part += weight;
            part_weighted += weight * tiles.vectors[j * 8 + 2 * place.t + e];
          }
        }
        sum[half] = sum[half] * shrink + part;
        weighted[half] = weighted[half] * shrink + part_weighted;
        top[half] = max;
      }
    }
    if (!live) continue;
    PMX_UNROLL
    for (int half = 0; half < 2; ++half) {
      const A inverse = A(1) / row_sum(block, sum[half]);
      const A l = row_sum(block, weighted[half]) * inverse;
      difference[half] += k == 0 ? l : -l;
      const int64_t n = first + place.row(half);
      if (place.t == 0 && n < in.tokens) {
        A* state = states + in.state_at(pair, k, 0) + n;
        state[0] = top[half];
        state[in.tokens] = inverse;
        state[2 * in.tokens] = l;
      }
    }
  }
  for (int half = 0; half < 2; ++half) {
    const int64_t n = first + place.row(half);
    if (place.t == 0 && n < in.tokens) out[pair * in.tokens + n] = narrow<T>(difference[half]);
  }
}

// One side of the backward: which direction, image, tile and output channels a block owns.
struct Owner {
  int direction;
  int64_t image;
  int64_t first;
  int64_t channel;

  static PMX_HD int64_t blocks(const Attention& in, int64_t channels) {
    return (in.images[0] + in.images[1]) * ceil_div(in.tokens, tile_size) * ceil_div(in.dim, channels);
  }
  // `keys`: the owners are key tiles, whose images are of the other side of their direction.
  PMX_HD Owner(const Attention& in, int64_t channels, bool keys, int64_t index) {
    const int64_t tiles = ceil_div(in.tokens, tile_size), chunks = ceil_div(in.dim, channels);
    channel = index % chunks * channels;
    first = index / chunks % tiles * tile_size;
    image = index / (chunks * tiles);
    const int64_t owned = in.images[keys ? 1 : 0];
    direction = image < owned ? 0 : 1;
    if (direction == 1) image -= owned;
  }
};

// What the backward knows of the query, and of the key, at a position of the tile.
template <class A>
struct alignas(16) PositionNumbers {
  A base;
  A weight;  // g / sum
  A l;
  A value;
};

// Gradient of the queries (`keys` false) or of the keys, and with the keys what each pair adds to the gradient of the
// values, `of_values` [pairs, 2, tokens]. Grid: Owner::blocks.
template <class Math, bool keys, class Block>
PMX_HD void attention_backward_body(Block& block, const Attention& in, const typename Math::Element* grad,
                                    const Acc<typename Math::Element>* states, const AttentionGradients& to,
                                    Acc<typename Math::Element>* of_values) {
  using T = typename Math::Element;
  using A = Acc<T>;
  const Owner owner(in, Math::channels, keys, block.index());
  const int k = owner.direction;
  T* const result = static_cast<T*>(keys ? to.key[k] : to.query[k]);
  const bool values_wanted = keys && to.value[k] != nullptr && owner.channel == 0;
  if (result == nullptr && !values_wanted) return;
  const SharedTiles<Math> tiles(block.shared(), in.dim);
  auto* const vectors = reinterpret_cast<PositionNumbers<A>*>(tiles.vectors);
  const WarpPlace<Block> place(block);
  const bool live = owner.first + place.warp * warp_rows < in.tokens;
  const A scale = static_cast<A>(in.scale);
  const Direction& maps = in.direction[k];
  const Maps &own = keys ? maps.key : maps.query, &other = keys ? maps.query : maps.key;
  const int own_side = keys ? 1 - k : k;
  const int64_t partners = in.grid ? in.images[1 - own_side] : 1;
  Part<A> sum[Math::channels / 8];
  PMX_UNROLL
  for (int j = 0; j < Math::channels / 8; ++j) sum[j] = {};
  for (int64_t p = 0; p < partners; ++p) {
    const int64_t partner = in.grid ? p : owner.image;
    const int64_t pair = !in.grid        ? p + owner.image
                         : own_side == 0 ? owner.image * in.images[1] + p
                                         : p * in.images[1] + owner.image;
    const T* values = static_cast<const T*>(maps.value.data) + (keys ? partner : owner.image) * maps.value.image;
    A of_value[2] = {0, 0};
    for (int64_t first = 0; first < in.tokens; first += tile_size) {
      const int64_t query = keys ? first : owner.first, key = keys ? owner.first : first;
      if (p > 0 || first > 0) block.sync();  // the vectors of the step before have been used
      for (int i = block.thread(); i < tile_size; i += attention_threads) {
        const int64_t n = query + i;
        const A* state = states + in.state_at(pair, k, 0) + n;
        const bool there = n < in.tokens;
        const A top = there ? state[0] : A(0), g = there ? static_cast<A>(widen(grad[pair * in.tokens + n])) : A(0);
        vectors[i] = {top == -INFINITY ? A(0) : top, there ? (k == 0 ? g : -g) * state[in.tokens] : A(0),
                      there ? state[2 * in.tokens] : A(0),
                      key + i < in.tokens ? static_cast<A>(widen(values[key + i])) : A(0)};
      }
      Part<A> s[tile_parts];
      tile_scores<Math>(block, in, tiles, own, owner.image, owner.first, p > 0 || first > 0, other, partner, first,
                        live, s);
      if (live) {
        PMX_UNROLL
        for (int j = 0; j < tile_parts; ++j) {
          PMX_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int row = place.row(e / 2), column = j * 8 + 2 * place.t + e % 2;
            const int m = keys ? row : column;
            const PositionNumbers<A> query_numbers = vectors[keys ? column : row];
            const A weight = weight_of<Math>(s[j].at[e], query_numbers.base, scale);
            const A gp = key + m < in.tokens ? weight * query_numbers.weight : A(0);
            of_value[e / 2] += gp;
            s[j].at[e] = gp * ((vectors[m].value - query_numbers.l) * scale);
          }
        }
      }
      if (result == nullptr) continue;
      if (in.dim > Math::channels) {
        block.sync();
        load_map<Math>(block, in, other, partner, owner.channel, first, tiles.other);
        wait_for_copies();
        block.sync();
      }
      A* stage = tiles.stage + place.warp * warp_rows * tile_pitch;
      if constexpr (Math::stages) {
        PMX_UNROLL
        for (int j = 0; j < tile_parts; ++j) {
          for (int e = 0; e < 4; ++e) {
            stage[(place.g + e / 2 * 8) * tile_pitch + j * 8 + 2 * place.t + e % 2] = live ? s[j].at[e] : A(0);
          }
        }
        block.sync();
      }
      if (live) Math::gradients(block, s, stage, tiles.other, chunk_depth<Math>(in.dim, owner.channel), sum);
    }
    if (values_wanted && live) {
      for (int half = 0; half < 2; ++half) {
        const A total = row_sum(block, of_value[half]);
        const int64_t m = owner.first + place.row(half);
        if (place.t == 0 && m < in.tokens) of_values[(pair * 2 + k) * in.tokens + m] = total;
      }
    }
  }
  if (result == nullptr) return;
  PMX_UNROLL
  for (int j = 0; j < Math::channels / 8; ++j) {
    PMX_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int64_t channel = owner.channel + j * 8 + 2 * place.t + e % 2, position = owner.first + place.row(e / 2);
      if (channel < in.dim && position < in.tokens) {
        result[(owner.image * in.dim + channel) * in.tokens + position] = narrow<T>(sum[j].at[e]);
      }
    }
  }
}

// Sums what the pairs of an image add to the gradient of its values, partner by partner. One thread for each value.
template <class T, class Block>
PMX_HD void value_gradients_body(Block& block, const Attention& in, const Acc<T>* of_values,
                                 const AttentionGradients& to) {
  int64_t i = block.index() * block.threads() + block.thread();
  const int64_t of_forget = in.images[0] * in.tokens;
  const int k = i < of_forget ? 0 : 1;
  if (k == 1) i -= of_forget;
  if (i >= in.images[k] * in.tokens || to.value[k] == nullptr) return;
  const int64_t image = i / in.tokens, m = i % in.tokens;
  const int64_t partners = in.grid ? in.images[1 - k] : 1;
  Acc<T> total = 0;
  for (int64_t p = 0; p < partners; ++p) {
    const int64_t pair = !in.grid ? image : k == 0 ? image * in.images[1] + p : p * in.images[1] + image;
    total += of_values[(pair * 2 + k) * in.tokens + m];
  }
  static_cast<T*>(to.value[k])[i] = narrow<T>(total);
}

}  // namespace pmx
