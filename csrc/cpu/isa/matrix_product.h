// Small dense matrices in accumulation type: their register-blocked product and their transposition.
#pragma once

#include "simd.h"

namespace pmx {
inline namespace PMX_ISA {

// Wide enough to hide the latency of a multiply-add, small enough for 16 (or 32) registers.
constexpr int max_vectors = 3;
constexpr int tile_rows(int vectors) {
  return PMX_VECTOR_BYTES == 64 ? (vectors == 3 ? 8 : 12) : (vectors == 3 ? 4 : vectors == 2 ? 6 : 8);
}

// c[i][j] (+)= sum_k a[i * row + k * step] b[k][j], where the rows of b and of c are whole vectors.
template <class A>
struct Product {
  const A* a;
  int64_t row;
  int64_t step;
  const A* b;
  int64_t b_pitch;
  A* c;
  int64_t c_pitch;
  int64_t depth;
  bool add;
};

template <int rows, int vectors, class A>
static inline void product_tile(const Product<A>& p, int64_t i, int64_t j) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A* a = p.a + i * p.row;
  const A* b = p.b + j;
  A* c = p.c + i * p.c_pitch + j;
  V sum[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    for (int w = 0; w < vectors; ++w) sum[r][w] = V{};
  }
  for (int64_t k = 0; k < p.depth; ++k, a += p.step, b += p.b_pitch) {
    V right[vectors];
    for (int w = 0; w < vectors; ++w) right[w] = load(b + w * lanes);
    for (int r = 0; r < rows; ++r) {
      const V left = broadcast<V>(a[r * p.row]);
      for (int w = 0; w < vectors; ++w) sum[r][w] += left * right[w];
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int w = 0; w < vectors; ++w) {
      A* to = c + r * p.c_pitch + w * lanes;
      store(to, p.add ? load(to) + sum[r][w] : sum[r][w]);
    }
  }
}

// The last rows, fewer than a tile's.
template <int rows, int vectors, class A>
static inline void product_rest(const Product<A>& p, int64_t i, int64_t j, int64_t left) {
  if constexpr (rows > 0) {
    if (left == rows) return product_tile<rows, vectors>(p, i, j);
    product_rest<rows - 1, vectors>(p, i, j, left);
  }
}

template <int vectors, class A>
static void product_columns(const Product<A>& p, int64_t rows, int64_t j) {
  constexpr int step = tile_rows(vectors);
  int64_t i = 0;
  for (; i + step <= rows; i += step) product_tile<step, vectors>(p, i, j);
  product_rest<step - 1, vectors>(p, i, j, rows - i);
}

// How many of the next `left` vectors one tile takes: four are two and two, because one alone is slow.
static inline int next_vectors(int64_t left) {
  return left == 4 ? 2 : left < max_vectors ? static_cast<int>(left) : max_vectors;
}

// Calls `body` with the number of vectors as a constant.
template <class Body>
static inline void with_vectors(int vectors, Body&& body) {
  if (vectors == 1) return body(std::integral_constant<int, 1>{});
  if (vectors == 2) return body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, max_vectors>{});
}

template <class A>
static void product(const Product<A>& p, int64_t rows, int64_t vectors) {
  for (int64_t done = 0; done < vectors;) {
    const int width = next_vectors(vectors - done);
    const int64_t j = done * Simd<A>::lanes;
    with_vectors(width, [&](auto count) { product_columns<count()>(p, rows, j); });
    done += width;
  }
}

template <class A>
static inline int64_t whole_vectors(int64_t count) {
  return (count + Simd<A>::lanes - 1) / Simd<A>::lanes;
}

// Swaps the lanes of a and b that change places when a square of vectors is transposed.
template <int half, class V, int... lane>
static inline void exchange_lanes(V& a, V& b, std::integer_sequence<int, lane...>) {
  constexpr int lanes = sizeof...(lane);
#if defined(__clang__)
  const V first = __builtin_shufflevector(a, b, ((lane & half) ? lanes + (lane ^ half) : lane)...);
  b = __builtin_shufflevector(a, b, ((lane & half) ? lanes + lane : (lane ^ half))...);
#else
  using Index = decltype(a == b);
  const V first = __builtin_shuffle(a, b, Index{((lane & half) ? lanes + (lane ^ half) : lane)...});
  b = __builtin_shuffle(a, b, Index{((lane & half) ? lanes + lane : (lane ^ half))...});
#endif
  a = first;
}

template <int half, int lanes, class V>
static inline void transpose_square(V (&rows)[lanes]) {
  for (int i = 0; i < lanes; ++i) {
    if ((i & half) == 0) exchange_lanes<half>(rows[i], rows[i + half], std::make_integer_sequence<int, lanes>{});
  }
  if constexpr (half > 1) transpose_square<half / 2>(rows);
}

// [rows, columns] to [columns, rows], both in whole vectors.
template <class A>
static void transpose(const A* from, int64_t from_pitch, int64_t row_vectors, int64_t column_vectors, A* to,
                      int64_t to_pitch) {
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  for (int64_t i = 0; i < row_vectors * lanes; i += lanes) {
    for (int64_t j = 0; j < column_vectors * lanes; j += lanes) {
      V square[lanes];
      for (int r = 0; r < lanes; ++r) square[r] = load(from + (i + r) * from_pitch + j);
      transpose_square<lanes / 2>(square);
      for (int r = 0; r < lanes; ++r) store(to + (j + r) * to_pitch + i, square[r]);
    }
  }
}

}  // namespace PMX_ISA
}  // namespace pmx
