// MixBlock's attention on the CPU, compiled for each instruction set.
//
// Queries lie across the lanes of a vector: a panel of up to three vectors of queries meets a chunk of keys in a tile
// of scores [keys, panel] that stays in the first-level cache. Maximum, sum and weighted sum are then vertical, and the
// three products (scores, dq, dk) are the same register-blocked kernel with other strides. Inputs are packed as they
// are read, in accumulation type: strides and element types end there.
#pragma once

#include "../../core/attention.h"
#include "matrix_product.h"
#include "simd.h"

namespace pmx {
inline namespace PMX_ISA {

// --- packing -------------------------------------------------------------------------------------------------------

// Columns [first, first + count) of a map in accumulation type, rows `pitch` apart, zeros up to `padded` columns.
template <class T>
static void pack(const Maps& maps, int64_t image, int64_t rows, int64_t first, int64_t count, int64_t padded,
                 int64_t pitch, Acc<T>* to) {
  using A = Acc<T>;
  constexpr int lanes = Simd<A>::lanes;
  for (int64_t r = 0; r < rows; ++r, to += pitch) {
    const T* from = static_cast<const T*>(maps.data) + image * maps.image + r * maps.channel + first * maps.position;
    int64_t j = 0;
    if (maps.position == 1) {
      for (; j + lanes <= count; j += lanes) store(to + j, load(from + j));
    }
    for (; j < count; ++j) to[j] = widen(from[j * maps.position]);
    for (; j < padded; ++j) to[j] = A(0);
  }
}

// Asks for columns that will be packed next, while there is something else to do: they are pieces of rows, which the
// processor does not foresee.
template <class T>
static inline void prefetch(const Maps& maps, int64_t image, int64_t rows, int64_t first, int64_t count) {
  if (maps.position != 1) return;
  const T* from = static_cast<const T*>(maps.data) + image * maps.image + first;
  for (int64_t r = 0; r < rows; ++r, from += maps.channel) {
    for (int64_t j = 0; j < count; j += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + j);
    __builtin_prefetch(from + count - 1);
  }
}

// Rows 2^k bytes apart would fall into a few sets of the cache; an odd number of lines apart they use all of them.
template <class A>
static inline int64_t row_pitch(int64_t count) {
  constexpr int64_t line = 64 / sizeof(A);
  return ((count + line - 1) / line | 1) * line;
}

// --- sizes -----------------------------------------------------------------------------------------------------------

constexpr int64_t query_segment = 384;  // queries of a pair that one unit of the forward takes
constexpr int64_t sum_stretch = 16;     // keys whose weights are summed on their own
constexpr int block_panels = 2;         // panels that the backward takes between two updates of dk

// How a problem is cut, and where its scratch memory lies.
template <class A>
struct Layout {
  static constexpr int lanes = Simd<A>::lanes;
  static constexpr int64_t panel = max_vectors * lanes;
  static constexpr int64_t block = block_panels * panel;
  int64_t chunk;  // keys at a time: fewer with more channels, so that they stay in the second-level cache
  int64_t key_pitch;

  explicit Layout(const Attention& in) {
    const int64_t fitting = 32768 / in.dim;
    const int64_t largest = fitting > 256 ? 256 : fitting < 32 ? 32 : fitting;
    chunk = in.tokens < largest ? in.tokens : largest;
    key_pitch = row_pitch<A>(chunk);
  }
  int64_t keys(const Attention& in) const { return in.dim * key_pitch; }
  int64_t queries(const Attention& in) const { return in.dim * panel; }
  int64_t forward_scratch(const Attention& in) const {
    return keys(in) + queries(in) + chunk * panel + chunk + state_parts * (query_segment + panel);
  }
  // Keys, dk, queries, dq, scores, their transpose, dv, values.
  int64_t backward_scratch(const Attention& in) const {
    return 2 * keys(in) + in.dim * block + queries(in) + padded_chunk() * (panel + lanes + 1) + block * key_pitch;
  }
  int64_t padded_chunk() const { return whole_vectors<A>(chunk) * lanes; }
};

static inline int64_t segments_of(const Attention& in) { return (in.tokens + query_segment - 1) / query_segment; }

template <class T>
static int64_t attention_scratch(const Attention& in, bool backward) {
  const Layout<Acc<T>> layout(in);
  const int64_t elements = backward ? layout.backward_scratch(in) : layout.forward_scratch(in);
  return elements * static_cast<int64_t>(sizeof(Acc<T>));
}

static int64_t attention_forward_units(const Attention& in) { return in.pairs() * segments_of(in); }

// --- forward ---------------------------------------------------------------------------------------------------------

// Continues the running maximum, sum and weighted sum of a panel over a tile of scores.
template <int vectors, class A>
static void online_softmax(const A* scores, const A* value, int64_t keys, A scale, A* top, A* sum, A* weighted) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes, pitch = vectors * lanes;
  V max[vectors], base[vectors], total[vectors], with_value[vectors];
  for (int w = 0; w < vectors; ++w) max[w] = load(top + w * lanes);
  for (int64_t m = 0; m < keys; ++m) {
    for (int w = 0; w < vectors; ++w) max[w] = maximum(load(scores + m * pitch + w * lanes), max[w]);
  }
  for (int w = 0; w < vectors; ++w) {
    // Nothing but -inf so far: any finite base gives weights of 0, while -inf - -inf has no value.
    base[w] = max[w] == broadcast<V>(A(-INFINITY)) ? V{} : max[w];
    const V shrink = exp((load(top + w * lanes) - base[w]) * scale);
    total[w] = load(sum + w * lanes) * shrink;
    with_value[w] = load(weighted + w * lanes) * shrink;
  }
  // In short stretches: the error of one long sum would enter every gradient through l.
  for (int64_t first = 0; first < keys; first += sum_stretch) {
    const int64_t end = first + sum_stretch < keys ? first + sum_stretch : keys;
    V part[vectors] = {}, part_with_value[vectors] = {};
    for (int64_t m = first; m < end; ++m) {
      for (int w = 0; w < vectors; ++w) {
        const V e = exp((load(scores + m * pitch + w * lanes) - base[w]) * scale);
        part[w] += e;
        part_with_value[w] += e * value[m];
      }
    }
    for (int w = 0; w < vectors; ++w) total[w] += part[w], with_value[w] += part_with_value[w];
  }
  for (int w = 0; w < vectors; ++w) {
    store(top + w * lanes, max[w]);
    store(sum + w * lanes, total[w]);
    store(weighted + w * lanes, with_value[w]);
  }
}

// Scores [keys, panel] of the packed keys and queries.
template <class A>
static void scores_of(const Attention& in, const A* keys, int64_t key_pitch, int64_t count, const A* queries,
                      int64_t vectors, A* scores) {
  const int64_t panel = vectors * Simd<A>::lanes;
  product<A>({keys, 1, key_pitch, queries, panel, scores, panel, in.dim, false}, count, vectors);
}

// The state of queries [begin, end) of one direction of a pair.
template <class T>
static void attend(const Attention& in, int64_t pair, int k, int64_t begin, int64_t end, Acc<T>* scratch,
                   Acc<T>* states) {
  using A = Acc<T>;
  constexpr int lanes = Simd<A>::lanes;
  const Layout<A> layout(in);
  const Direction& maps = in.direction[k];
  const int64_t mine = in.image_of(k, pair), other = in.image_of(1 - k, pair);
  const A scale = static_cast<A>(in.scale);
  A* keys = scratch;
  A* queries = keys + layout.keys(in);
  A* scores = queries + layout.queries(in);
  A* value = scores + layout.chunk * layout.panel;
  A* top = value + layout.chunk;
  A* sum = top + query_segment + layout.panel;
  A* weighted = sum + query_segment + layout.panel;
  const int64_t padded = whole_vectors<A>(end - begin) * lanes;
  for (int64_t n = 0; n < padded; ++n) top[n] = A(-INFINITY), sum[n] = weighted[n] = A(0);
  for (int64_t first = 0; first < in.tokens; first += layout.chunk) {
    const int64_t count = in.tokens - first < layout.chunk ? in.tokens - first : layout.chunk;
    pack<T>(maps.key, other, in.dim, first, count, count, layout.key_pitch, keys);
    pack<T>(maps.value, mine, 1, first, count, count, count, value);
    for (int64_t n = 0; n < padded;) {
      const int vectors = next_vectors((padded - n) / lanes);
      const int64_t panel = vectors * lanes, left = end - begin - n;
      pack<T>(maps.query, mine, in.dim, begin + n, left < panel ? left : panel, panel, panel, queries);
      if (left > panel) {
        prefetch<T>(maps.query, mine, in.dim, begin + n + panel, left - panel < panel ? left - panel : panel);
      }
      scores_of(in, keys, layout.key_pitch, count, queries, vectors, scores);
      with_vectors(vectors, [&](auto width) {
        online_softmax<width()>(scores, value, count, scale, top + n, sum + n, weighted + n);
      });
      n += panel;
    }
  }
  A* out = states + in.state_at(pair, k, 0) + begin;
  for (int64_t n = 0; n < end - begin; ++n) {
    const A inverse = A(1) / sum[n];
    out[n] = top[n];
    out[in.tokens + n] = inverse;
    out[2 * in.tokens + n] = weighted[n] * inverse;
  }
}

template <class T>
static void attention_forward(const Attention& in, int64_t begin, int64_t end, void* scratch, void* states, void* out) {
  using A = Acc<T>;
  const int64_t segments = segments_of(in), length = (in.tokens + segments - 1) / segments;
  auto* state = static_cast<A*>(states);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t pair = unit / segments, first = unit % segments * length;
    const int64_t last = first + length < in.tokens ? first + length : in.tokens;
    for (int k = 0; k < 2; ++k) attend<T>(in, pair, k, first, last, static_cast<A*>(scratch), state);
    const A* forget = state + in.state_at(pair, 0, 2);
    const A* retain = state + in.state_at(pair, 1, 2);
    T* to = static_cast<T*>(out) + pair * in.tokens;
    for (int64_t n = first; n < last; ++n) to[n] = narrow<T>(forget[n] - retain[n]);
  }
}

// --- backward --------------------------------------------------------------------------------------------------------

// What the backward knows of the queries of a panel; lanes without a query have a gradient of 0.
template <class A>
struct PanelState {
  A base[Layout<A>::panel];
  A out[Layout<A>::panel];
  A weight[Layout<A>::panel];  // g / sum

  template <class T>
  PanelState(const Attention& in, int64_t pair, int k, int64_t first, int64_t count, int64_t padded, const A* states,
             const T* grad) {
    const A* state = states + in.state_at(pair, k, 0) + first;
    const T* g = grad + pair * in.tokens + first;
    for (int64_t n = 0; n < padded; ++n) {
      const bool live = n < count;
      const A top = live ? state[n] : A(0);
      base[n] = top == A(-INFINITY) ? A(0) : top;
      out[n] = live ? state[2 * in.tokens + n] : A(0);
      weight[n] = live ? (k == 0 ? A(widen(g[n])) : -A(widen(g[n]))) * state[in.tokens + n] : A(0);
    }
  }
};

// Scores become their gradients; dv collects, lane by lane, the gradient of the values.
template <int vectors, class A>
static void score_gradients(A* scores, const A* value, int64_t keys, A scale, const PanelState<A>& state, A* dv) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes, pitch = vectors * lanes;
  V base[vectors], out[vectors], weight[vectors];
  for (int w = 0; w < vectors; ++w) {
    base[w] = load(state.base + w * lanes);
    out[w] = load(state.out + w * lanes);
    weight[w] = load(state.weight + w * lanes);
  }
  for (int64_t m = 0; m < keys; ++m) {
    V of_value = load(dv + m * lanes);
    for (int w = 0; w < vectors; ++w) {
      A* at = scores + m * pitch + w * lanes;
      const V gp = exp((load(at) - base[w]) * scale) * weight[w];
      of_value += gp;
      store(at, gp * ((value[m] - out[w]) * scale));
    }
    store(dv + m * lanes, of_value);
  }
}

// to (+)= from, rows of `count` elements.
template <class A>
static void deliver(const A* from, int64_t from_pitch, int64_t rows, int64_t count, A* to, int64_t to_pitch, bool add) {
  constexpr int lanes = Simd<A>::lanes;
  for (int64_t r = 0; r < rows; ++r, from += from_pitch, to += to_pitch) {
    int64_t j = 0;
    for (; j + lanes <= count; j += lanes) store(to + j, add ? load(to + j) + load(from + j) : load(from + j));
    for (; j < count; ++j) to[j] = add ? to[j] + from[j] : from[j];
  }
}

// The gradients that one direction of a pair contributes. `add`: to what is there already.
template <class T>
static void attend_backward(const Attention& in, int64_t pair, int k, const T* grad, const Acc<T>* states, bool add,
                            Acc<T>* scratch, const AttentionGradients& to) {
  using A = Acc<T>;
  constexpr int lanes = Simd<A>::lanes;
  const Layout<A> layout(in);
  const Direction& maps = in.direction[k];
  const int64_t mine = in.image_of(k, pair), other = in.image_of(1 - k, pair), map = in.dim * in.tokens;
  const A scale = static_cast<A>(in.scale);
  A* const to_query = to.query[k] == nullptr ? nullptr : static_cast<A*>(to.query[k]) + mine * map;
  A* const to_key = to.key[k] == nullptr ? nullptr : static_cast<A*>(to.key[k]) + other * map;
  A* const to_value = to.value[k] == nullptr ? nullptr : static_cast<A*>(to.value[k]) + mine * in.tokens;
  A* keys = scratch;
  A* dk = keys + layout.keys(in);
  A* queries = dk + layout.keys(in);
  A* dq = queries + in.dim * layout.block;
  A* scores = dq + layout.queries(in);
  A* transposed = scores + layout.padded_chunk() * layout.panel;
  A* dv = transposed + layout.block * layout.key_pitch;
  A* value = dv + layout.padded_chunk() * lanes;
  const int64_t padded = whole_vectors<A>(in.tokens) * lanes;
  for (int64_t first = 0; first < in.tokens; first += layout.chunk) {
    const int64_t count = in.tokens - first < layout.chunk ? in.tokens - first : layout.chunk;
    const int64_t key_vectors = whole_vectors<A>(count);
    pack<T>(maps.key, other, in.dim, first, count, count, layout.key_pitch, keys);
    pack<T>(maps.value, mine, 1, first, count, count, count, value);
    for (int64_t m = 0; m < count * lanes; ++m) dv[m] = A(0);
    for (int64_t n = 0; n < padded; n += layout.block) {
      const int64_t block = padded - n < layout.block ? padded - n : layout.block;
      pack<T>(maps.query, mine, in.dim, n, in.tokens - n < block ? in.tokens - n : block, block, block, queries);
      if (const int64_t next = in.tokens - n - block; next > 0) {
        prefetch<T>(maps.query, mine, in.dim, n + block, next < block ? next : block);
      }
      for (int64_t at = 0; at < block;) {
        const int vectors = next_vectors((block - at) / lanes);
        const int64_t panel = vectors * lanes, left = in.tokens - n - at, live = left < panel ? left : panel;
        product<A>({keys, 1, layout.key_pitch, queries + at, block, scores, panel, in.dim, false}, count, vectors);
        const PanelState<A> state(in, pair, k, n + at, live, panel, states, grad);
        with_vectors(vectors, [&](auto width) { score_gradients<width()>(scores, value, count, scale, state, dv); });
        if (to_query != nullptr) {
          const bool more = add || first > 0, whole = live == panel;
          A* out = to_query + n + at;
          const int64_t pitch = whole ? in.tokens : panel;
          product<A>({keys, layout.key_pitch, 1, scores, panel, whole ? out : dq, pitch, count, whole && more}, in.dim,
                     vectors);
          if (!whole) deliver(dq, panel, in.dim, live, out, in.tokens, more);
        }
        if (to_key != nullptr) {
          transpose(scores, panel, key_vectors, vectors, transposed + at * layout.key_pitch, layout.key_pitch);
        }
        at += panel;
      }
      if (to_key != nullptr) {
        product<A>({queries, block, 1, transposed, layout.key_pitch, dk, layout.key_pitch, block, n > 0}, in.dim,
                   key_vectors);
      }
    }
    if (to_key != nullptr) deliver(dk, layout.key_pitch, in.dim, count, to_key + first, in.tokens, add);
    for (int64_t m = 0; to_value != nullptr && m < count; ++m) {
      const A total = sum(load(dv + m * lanes));
      to_value[first + m] = add ? to_value[first + m] + total : total;
    }
  }
}

// Units [begin, end) of a round: both directions of each of its pairs.
template <class T>
static void attention_backward(const Attention& in, int64_t round, int64_t begin, int64_t end, const void* grad,
                               const void* states, void* scratch, const AttentionGradients& to) {
  using A = Acc<T>;
  const GridRounds rounds(in);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int k = static_cast<int>(unit % 2);
    if (!to.wanted(k)) continue;
    attend_backward<T>(in, rounds.pair(round, unit / 2), k, static_cast<const T*>(grad), static_cast<const A*>(states),
                       in.grid, static_cast<A*>(scratch), to);
  }
}

// --- the table -------------------------------------------------------------------------------------------------------

template <class T>
static constexpr AttentionKernels attention_of() {
  return {attention_scratch<T>, attention_forward_units, attention_forward<T>, attention_backward<T>};
}

static AttentionKernels attention_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return attention_of<float>();
    case Dtype::f64:
      return attention_of<double>();
    case Dtype::bf16:
      return attention_of<BFloat16>();
    case Dtype::f16:
      return attention_of<Half>();
  }
  return {};
}

}  // namespace PMX_ISA
}  // namespace pmx
