// Loops over a row in vectors, whose remainder is loaded and stored in part; compiled for each instruction set.
#pragma once

#include <utility>

#include "simd.h"

namespace pmx {
inline namespace PMX_ISA {

// Calls `body(offset, count)` for whole vectors, then once for the remainder. `count` is a constant in the first case.
template <int lanes, class Body>
PMX_INLINE void over_row(int64_t n, Body&& body) {
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) body(j, std::integral_constant<int, lanes>{});
  if (j < n) body(j, static_cast<int>(n - j));
}

template <class T, int lanes>
PMX_INLINE auto load_at(const T* from, std::integral_constant<int, lanes>, Acc<T>) {
  return load(from);
}
template <class T>
PMX_INLINE auto load_at(const T* from, int count, Acc<T> fill) {
  return load_part(from, count, fill);
}
template <class T, class V, int lanes>
PMX_INLINE void store_at(T* to, V v, std::integral_constant<int, lanes>) {
  store(to, v);
}
template <class T, class V>
PMX_INLINE void store_at(T* to, V v, int count) {
  store_part(to, v, count);
}

// A NaN compares false and is skipped here; it comes back through exp(z - max) and ends in every sum.
template <class T>
PMX_INLINE Acc<T> row_max(const T* row, int64_t classes) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  V top = broadcast<V>(A(-INFINITY));
  over_row<lanes>(classes, [&](int64_t j, auto count) { top = maximum(load_at(row + j, count, A(-INFINITY)), top); });
  return largest(top);
}

}  // namespace PMX_ISA
}  // namespace pmx
