// How a launch is planned: how many threads share a row and how wide they read, from sizes and alignment alone, so that
// the tests can ask for the plan of a shape without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../core/losses.h"
#include "block.cuh"

namespace pmx {

enum class RowGroup : int { part_of_warp, warp, block };

constexpr int part_of_warp_threads = 8;

// A row of up to 64 classes keeps 8 lanes busy; beyond 8192 a warp would take too long over one row.
constexpr RowGroup row_group(int64_t classes) {
  return classes <= 64 ? RowGroup::part_of_warp : classes <= 8192 ? RowGroup::warp : RowGroup::block;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Division by a number that only the host knows, of numbers below 2^31: a multiplication and two shifts.
struct Divisor {
  uint32_t value = 1, factor = 1u << 31, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t divisor) : value(static_cast<uint32_t>(divisor)) {
    while ((int64_t{1} << shift) < divisor) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + value - 1) / value);
  }
  PMX_HD uint32_t quotient(uint32_t number) const {
    return static_cast<uint32_t>((static_cast<uint64_t>(2 * number) * factor) >> 32) >> shift;
  }
};

// Elements in a 16-byte load of `size`-byte elements.
constexpr int pack_of(size_t size) { return static_cast<int>(16 / size); }

PMX_HD bool aligned(const void* data, int64_t stride, size_t size, int pack) {
  const auto bytes = static_cast<int64_t>(size) * pack;
  const int64_t wanted = bytes < 16 ? bytes : 16;
  return reinterpret_cast<uintptr_t>(data) % wanted == 0 && (stride * static_cast<int64_t>(size)) % wanted == 0;
}

// Whether every row of the logits, the targets and the output can be read and written in packs of the logits' width.
inline bool rows_packable(const CosineRows& in, int targets, size_t size, size_t target_size, bool labels,
                          const void* out) {
  const int pack = pack_of(size);
  if (in.classes % pack != 0 || !aligned(in.logits, in.stride, size, pack)) return false;
  if (out != nullptr && !aligned(out, in.classes, size, pack)) return false;
  for (int k = 0; k < targets && !labels; ++k) {
    if (!aligned(in.targets[k].data, in.targets[k].stride, target_size, pack)) return false;
  }
  return true;
}

// A type as an argument, for the choice of a kernel's template arguments at run time.
template <class T>
struct TypeTag {
  using type = T;
};

}  // namespace pmx
