// Neighbouring elements that a thread loads and stores in one go.
#pragma once

#include <cstring>
#include <type_traits>

#include "../core/scalar.h"

namespace pmx {

// `pack` neighbouring elements, loaded in one go.
template <class T, int pack>
struct alignas(sizeof(T) * pack < 16 ? sizeof(T) * pack : 16) Pack {
  T at[pack];
};

template <class T, int pack>
PMX_HD Pack<T, pack> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, pack>*>(from);
}

// Two elements in a register, the first in the lower half.
template <class T>
PMX_HD uint32_t pack_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  uint32_t packed;
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  }
  return packed;
#else
  return narrow<T>(first).bits | static_cast<uint32_t>(narrow<T>(second).bits) << 16;
#endif
}

// Stores a pack in one go, or in pieces of 16 bytes. The compiler takes the stores of a structure apart and need not
// put them together again.
template <class T, int pack>
PMX_HD void store_whole(T* to, const Pack<T, pack>& values) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof values % 16 == 0) {
    uint4 pieces[sizeof values / 16];
    memcpy(pieces, &values, sizeof values);
    for (int i = 0; i < static_cast<int>(sizeof values / 16); ++i) reinterpret_cast<uint4*>(to)[i] = pieces[i];
    return;
  }
#endif
  *reinterpret_cast<Pack<T, pack>*>(to) = values;
}

// Stores every element rounded to T; halves are rounded two at a time.
template <class T, class A, int pack>
PMX_HD void store_pack(T* to, const Pack<A, pack>& values) {
  Pack<T, pack> result;
  if constexpr (sizeof(T) == 2 && pack % 2 == 0 && std::is_same_v<A, float>) {
    uint32_t pairs[pack / 2];
    for (int i = 0; i < pack / 2; ++i) pairs[i] = pack_pair<T>(values.at[2 * i], values.at[2 * i + 1]);
    memcpy(&result, pairs, sizeof result);
  } else {
    for (int e = 0; e < pack; ++e) result.at[e] = narrow<T>(values.at[e]);
  }
  store_whole(to, result);
}

}  // namespace pmx
