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
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Pack<T, pack>) == 16) {  // as words, so that halves are not taken apart
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    Pack<T, pack> values;
    memcpy(&values, &words, sizeof values);
    return values;
  }
#endif
  return *reinterpret_cast<const Pack<T, pack>*>(from);
}

// Whether the elements of a pack lie in pairs in registers.
template <class T, int pack>
constexpr bool in_pairs = sizeof(T) == 2 && pack % 2 == 0;

// The pairs of a pack, the first element of each in the lower half.
template <int count>
struct Pairs32 {
  uint32_t at[count];
};
template <class T, int pack>
PMX_HD Pairs32<pack / 2> pairs_of(const Pack<T, pack>& values) {
  Pairs32<pack / 2> pairs;
  memcpy(&pairs, &values, sizeof pairs);
  return pairs;
}

// The elements of a pack in the type that sums run in. Either bfloat16 of a pair is one operation on the register.
template <class T, int pack>
PMX_HD Pack<Acc<T>, pack> widen_pack(const Pack<T, pack>& values) {
  Pack<Acc<T>, pack> wide;
  if constexpr (in_pairs<T, pack> && std::is_same_v<T, BFloat16>) {
    const Pairs32<pack / 2> pairs = pairs_of(values);
    for (int i = 0; i < pack / 2; ++i) {
      wide.at[2 * i] = detail::bits_to_float(pairs.at[i] << 16);
      wide.at[2 * i + 1] = detail::bits_to_float(pairs.at[i] & 0xffff0000u);
    }
  } else {
    for (int i = 0; i < pack; ++i) wide.at[i] = widen(values.at[i]);
  }
  return wide;
}

// The larger elements of two pairs; a NaN gives way to a number.
template <class T>
PMX_HD uint32_t larger_pair(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint32_t larger;
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("max.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  } else {
    asm("max.f16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  }
  return larger;
#else
  const auto half = [](uint32_t pair) { return widen(T{static_cast<uint16_t>(pair)}); };
  const uint32_t lower = std::fmax(half(a), half(b)) == half(a) ? a : b;
  const uint32_t upper = std::fmax(half(a >> 16), half(b >> 16)) == half(a >> 16) ? a : b;
  return (lower & 0xffffu) | (upper & 0xffff0000u);
#endif
}

// The largest element of some packs. A NaN is skipped unless there is nothing else.
template <class T, int pack, int count>
PMX_HD Acc<T> largest(const Pack<T, pack> (&packs)[count]) {
  Acc<T> top;
  if constexpr (in_pairs<T, pack>) {
    uint32_t tops = pairs_of(packs[0]).at[0];
    for (int q = 0; q < count; ++q) {
      const Pairs32<pack / 2> pairs = pairs_of(packs[q]);
      for (int i = q == 0; i < pack / 2; ++i) tops = larger_pair<T>(tops, pairs.at[i]);
    }
    Pack<T, 2> both;
    memcpy(&both, &tops, sizeof both);
    const Pack<Acc<T>, 2> wide = widen_pack(both);
    top = std::fmax(wide.at[0], wide.at[1]);
  } else {
    top = widen(packs[0].at[0]);
    for (int q = 0; q < count; ++q) {
      for (int i = q == 0; i < pack; ++i) top = std::fmax(top, static_cast<Acc<T>>(widen(packs[q].at[i])));
    }
  }
  return top;
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
