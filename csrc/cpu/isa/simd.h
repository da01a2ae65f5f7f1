// Fixed-width vectors on the compiler's vector extension: one source for every instruction set.
//
// A kernel source is compiled once per instruction set (table_*.cpp) inside its own inline namespace PMX_ISA, so
// that the linker can never mix the versions. PMX_VECTOR_BYTES is the register width of that version.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../core/scalar.h"

namespace pmx {
inline namespace PMX_ISA {

template <class A>
struct Simd {
  static constexpr int lanes = PMX_VECTOR_BYTES / sizeof(A);
  typedef A vector __attribute__((vector_size(PMX_VECTOR_BYTES)));
};

using FloatVector = Simd<float>::vector;
using DoubleVector = Simd<double>::vector;
typedef int32_t IntVector __attribute__((vector_size(PMX_VECTOR_BYTES)));
typedef int64_t LongVector __attribute__((vector_size(PMX_VECTOR_BYTES)));
typedef uint16_t HalfBits __attribute__((vector_size(PMX_VECTOR_BYTES / 2)));
typedef uint32_t WordVector __attribute__((vector_size(PMX_VECTOR_BYTES)));

// Always inlined: a function that is called keeps no vectors in registers, and a row of few classes is over in one or
// two vectors.
#define PMX_INLINE static inline __attribute__((always_inline))

template <class V, class A>
PMX_INLINE V broadcast(A value) {
  return value - V{};  // an addition would stay in the code: -0 + 0 is not -0
}

// --- loads and stores, widening to the accumulation type -------------------------------------------------------------

PMX_INLINE FloatVector load(const float* from) {
  FloatVector v;
  memcpy(&v, from, sizeof v);
  return v;
}
PMX_INLINE DoubleVector load(const double* from) {
  DoubleVector v;
  memcpy(&v, from, sizeof v);
  return v;
}
PMX_INLINE FloatVector load(const BFloat16* from) {
  HalfBits bits;
  memcpy(&bits, from, sizeof bits);
  const WordVector words = __builtin_convertvector(bits, WordVector) << 16;
  return (FloatVector)words;
}
PMX_INLINE void store(float* to, FloatVector v) { memcpy(to, &v, sizeof v); }
PMX_INLINE void store(double* to, DoubleVector v) { memcpy(to, &v, sizeof v); }
PMX_INLINE void store(BFloat16* to, FloatVector v) {
  const WordVector bits = (WordVector)v;
  const WordVector rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const WordVector words = v == v ? rounded : broadcast<WordVector>(0x7fc0u);
  const HalfBits half = __builtin_convertvector(words, HalfBits);
  memcpy(to, &half, sizeof half);
}
// Both of these sets have the conversions of IEEE halves as instructions. (GCC 12 warns of its own header in the forms
// without a mask.)
#if defined(__x86_64__) && PMX_VECTOR_BYTES == 64
PMX_INLINE FloatVector load(const Half* from) {
  return (FloatVector)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
PMX_INLINE void store(Half* to, FloatVector v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__x86_64__) && PMX_VECTOR_BYTES == 32
PMX_INLINE FloatVector load(const Half* from) {
  return (FloatVector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
PMX_INLINE void store(Half* to, FloatVector v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#else
PMX_INLINE FloatVector load(const Half* from) {
  HalfBits bits;
  memcpy(&bits, from, sizeof bits);
  const WordVector words = __builtin_convertvector(bits, WordVector);
  const WordVector magnitude = (words & 0x7fffu) << 13;
  const FloatVector scaled = (FloatVector)magnitude * 0x1p112f;
  // Comparisons are signed; both sides are below 2^31.
  const IntVector special = (IntVector)magnitude >= 0x0f800000;
  const WordVector value = special ? (magnitude | 0x7f800000u) : (WordVector)scaled;
  return (FloatVector)(value | ((words & 0x8000u) << 16));
}
PMX_INLINE void store(Half* to, FloatVector v) {
  for (int i = 0; i < Simd<float>::lanes; ++i) to[i] = narrow<Half>(v[i]);
}
#endif

// The first `count` lanes from memory, the rest `fill`.
template <class T>
PMX_INLINE typename Simd<Acc<T>>::vector load_part(const T* from, int count, Acc<T> fill) {
  constexpr int lanes = Simd<Acc<T>>::lanes;
  Acc<T> padded[lanes];
  for (int i = 0; i < lanes; ++i) padded[i] = i < count ? widen(from[i]) : fill;
  return load(padded);
}

template <class T>
PMX_INLINE void store_part(T* to, typename Simd<Acc<T>>::vector v, int count) {
  for (int i = 0; i < count; ++i) to[i] = narrow<T>(v[i]);
}

// With 10 classes a row is nothing but a remainder, so the commonest type has masked loads and stores.
#if defined(__x86_64__) && PMX_VECTOR_BYTES == 64
PMX_INLINE FloatVector load_part(const float* from, int count, float fill) {
  return (FloatVector)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1u << count) - 1), from);
}
PMX_INLINE void store_part(float* to, FloatVector v, int count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
}
#elif defined(__x86_64__) && PMX_VECTOR_BYTES == 32
PMX_INLINE IntVector first_lanes(int count) { return (IntVector{0, 1, 2, 3, 4, 5, 6, 7} < count); }
PMX_INLINE FloatVector load_part(const float* from, int count, float fill) {
  const IntVector mask = first_lanes(count);
  return mask ? (FloatVector)_mm256_maskload_ps(from, (__m256i)mask) : broadcast<FloatVector>(fill);
}
PMX_INLINE void store_part(float* to, FloatVector v, int count) {
  _mm256_maskstore_ps(to, (__m256i)first_lanes(count), (__m256)v);
}
#endif

// --- reductions ------------------------------------------------------------------------------------------------------

template <class A, int lanes>
struct Lanes {
  typedef A vector __attribute__((vector_size(lanes * sizeof(A))));
};

// Folds halves onto each other: a chain of additions as long as the vector would take several times longer.
template <class V, class Combine>
PMX_INLINE auto fold(V v, Combine&& combine) {
  using A = std::remove_reference_t<decltype(v[0])>;
  constexpr int lanes = sizeof(V) / sizeof(A);
  if constexpr (lanes == 2) {
    return combine(A(v[0]), A(v[1]));
  } else {
    typename Lanes<A, lanes / 2>::vector low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return fold(combine(low, high), combine);
  }
}

template <class V>
PMX_INLINE auto sum(V v) {
  return fold(v, [](auto a, auto b) { return a + b; });
}

template <class V>
PMX_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}

template <class V>
PMX_INLINE auto largest(V v) {
  return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

// --- exp -------------------------------------------------------------------------------------------------------------
//
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by its Taylor polynomial, whose remainder is
// below the rounding error at these degrees. Arguments are at most 0 here (a row's maximum is subtracted first). Below
// the smallest normal number the result is 0; a NaN stays NaN because every comparison with it is false.

PMX_INLINE FloatVector exp(FloatVector x) {
  const FloatVector shifted = x * 0x1.715476p+0f + 0x1.8p23f;  // the magic constant rounds to an integer
  const FloatVector n = shifted - 0x1.8p23f;
  const FloatVector r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts: the first product is exact
  FloatVector p = broadcast<FloatVector>(1.f / 5040);
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const IntVector exponent = ((IntVector)shifted - 0x4b400000 + 127) << 23;
  const FloatVector result = p * (FloatVector)exponent;
  return x < -87.3f ? FloatVector{} : result;
}

PMX_INLINE DoubleVector exp(DoubleVector x) {
  const DoubleVector shifted = x * 0x1.71547652b82fep+0 + 0x1.8p52;
  const DoubleVector n = shifted - 0x1.8p52;
  const DoubleVector r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  DoubleVector p = broadcast<DoubleVector>(1.0 / 6227020800);
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const LongVector exponent = ((LongVector)shifted - 0x4338000000000000 + 1023) << 52;
  const DoubleVector result = p * (DoubleVector)exponent;
  return x < -708.3 ? DoubleVector{} : result;
}

}  // namespace PMX_ISA
}  // namespace pmx
