// The loops of mask_mix over neighbouring elements, for every combination of element types, and their choice at run
// time.
#pragma once

#include "../mask_mix.h"
#include "row_loops.h"

namespace pmx {
inline namespace PMX_ISA {

// --- elements of any type in vectors of A ----------------------------------------------------------------------------

template <class T>
constexpr bool is_byte = std::is_same_v<T, uint8_t>;

template <class A, class T>
static inline A as(T value) {
  if constexpr (is_byte<T>) {
    return static_cast<A>(value);
  } else {
    return static_cast<A>(widen(value));
  }
}

typedef uint8_t ByteVector __attribute__((vector_size(PMX_VECTOR_BYTES / 4)));

template <class A, class T, int lanes>
static inline typename Simd<A>::vector read(const T* from, std::integral_constant<int, lanes>) {
  if constexpr (is_byte<T> && std::is_same_v<A, float>) {
    ByteVector bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes, IntVector), FloatVector);
  } else if constexpr (!is_byte<T> && std::is_same_v<Acc<T>, A>) {
    return load(from);
  } else {
    typename Simd<A>::vector v;
    for (int i = 0; i < lanes; ++i) v[i] = as<A>(from[i]);
    return v;
  }
}
template <class A, class T>
static inline typename Simd<A>::vector read(const T* from, int count) {
  if constexpr (std::is_same_v<T, A>) {
    return load_part(from, count, A(0));
  } else {
    A padded[Simd<A>::lanes];
    for (int i = 0; i < Simd<A>::lanes; ++i) padded[i] = i < count ? as<A>(from[i]) : A(0);
    return load(padded);
  }
}

template <class T, class V, int lanes>
static inline void write(T* to, V v, std::integral_constant<int, lanes>) {
  using A = std::remove_reference_t<decltype(v[0])>;
  if constexpr (std::is_same_v<Acc<T>, A>) {
    store(to, v);
  } else {
    for (int i = 0; i < lanes; ++i) to[i] = narrow<T>(static_cast<Acc<T>>(v[i]));
  }
}
template <class T, class V>
static inline void write(T* to, V v, int count) {
  using A = std::remove_reference_t<decltype(v[0])>;
  if constexpr (std::is_same_v<Acc<T>, A>) {
    store_part(to, v, count);
  } else {
    for (int i = 0; i < count; ++i) to[i] = narrow<T>(static_cast<Acc<T>>(v[i]));
  }
}

static constexpr int64_t size_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

static inline const char* at(const void* data, int64_t index, int64_t size) {
  return static_cast<const char*>(data) + index * size;
}

// --- elementwise loops -----------------------------------------------------------------------------------------------

// Scale and shift of 8-bit images: one number for all elements, or one for each.
template <class A>
struct Affine {
  const A* scale;
  const A* shift;
};

// out = (f m + r w) * scale + shift
template <class In, class Out, class A, bool per_element>
static void blend(const void* forget, const void* retain, const A* m, const A* w, void* out, int64_t n,
                  Affine<A> affine) {
  using V = typename Simd<A>::vector;
  const In *f = static_cast<const In*>(forget), *r = static_cast<const In*>(retain);
  Out* to = static_cast<Out*>(out);
  over_row<Simd<A>::lanes>(n, [&](int64_t j, auto count) {
    V v = read<A>(f + j, count) * read<A>(m + j, count) + read<A>(r + j, count) * read<A>(w + j, count);
    if constexpr (is_byte<In>) {
      if constexpr (per_element) {
        v = v * read<A>(affine.scale + j, count) + read<A>(affine.shift + j, count);
      } else {
        v = v * *affine.scale + *affine.shift;
      }
    }
    write(to + j, v, count);
  });
}

// sum (+)= g (f - r) * scale
template <class In, class Out, class A, bool per_element>
static void weigh_difference(const void* grad, const void* forget, const void* retain, A* sum, int64_t n, bool first,
                             Affine<A> affine) {
  using V = typename Simd<A>::vector;
  const Out* g = static_cast<const Out*>(grad);
  const In *f = static_cast<const In*>(forget), *r = static_cast<const In*>(retain);
  over_row<Simd<A>::lanes>(n, [&](int64_t j, auto count) {
    V v = read<A>(g + j, count) * (read<A>(f + j, count) - read<A>(r + j, count));
    if constexpr (is_byte<In>) {
      if constexpr (per_element) {
        v *= read<A>(affine.scale + j, count);
      } else {
        v *= *affine.scale;
      }
    }
    write(sum + j, first ? v : v + read<A>(sum + j, count), count);
  });
}

// sum += g share
template <class Out, class A>
static void add_share(const void* grad, const A* share, A* sum, int64_t n) {
  const Out* g = static_cast<const Out*>(grad);
  over_row<Simd<A>::lanes>(n, [&](int64_t j, auto count) {
    write(sum + j, read<A>(sum + j, count) + read<A>(g + j, count) * read<A>(share + j, count), count);
  });
}

template <class In, class A>
static void put(const A* from, void* out, int64_t n) {
  In* to = static_cast<In*>(out);
  over_row<Simd<A>::lanes>(n, [&](int64_t j, auto count) { write(to + j, read<A>(from + j, count), count); });
}

// A row of the mask, as it is interpolated.
template <class M, class A>
static void mask_logits(const void* from, A* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = finite_logit(static_cast<A>(as<A>(static_cast<const M*>(from)[i])));
}

// --- interleaved channels --------------------------------------------------------------------------------------------

// Calls `body` with the number of channels, as a constant for the usual colour images.
template <class Body>
static inline void with_channels(int64_t channels, Body&& body) {
  if (channels == 3) {
    body(std::integral_constant<int64_t, 3>{});
  } else {
    body(channels);
  }
}

// Each pixel's number once for every channel.
template <class A>
static void repeat(const A* from, A* to, int64_t pixels, int64_t channels) {
  with_channels(channels, [&](auto count) {
    for (int64_t x = 0; x < pixels; ++x) {
      for (int64_t c = 0; c < count; ++c) to[x * count + c] = from[x];
    }
  });
}

// The channels' sum of each pixel.
template <class A>
static void sum_channels(const A* from, A* to, int64_t pixels, int64_t channels) {
  with_channels(channels, [&](auto count) {
    for (int64_t x = 0; x < pixels; ++x) {
      A sum = from[x * count];
      for (int64_t c = 1; c < count; ++c) sum += from[x * count + c];
      to[x] = sum;
    }
  });
}

// --- the loops for a call --------------------------------------------------------------------------------------------

template <class A>
struct MaskMixLoops {
  void (*blend)(const void*, const void*, const A*, const A*, void*, int64_t, Affine<A>);
  void (*weigh_difference)(const void*, const void*, const void*, A*, int64_t, bool, Affine<A>);
};

template <class In, class Out, class A>
static MaskMixLoops<A> loops_of(bool per_element) {
  if constexpr (std::is_same_v<A, double> && !std::is_same_v<In, double> && !std::is_same_v<Out, double>) {
    return {};  // these are computed in float
  } else if constexpr (std::is_same_v<A, float> && (std::is_same_v<In, double> || std::is_same_v<Out, double>)) {
    return {};
  } else if constexpr (is_byte<In>) {
    if (per_element) return {blend<In, Out, A, true>, weigh_difference<In, Out, A, true>};
    return {blend<In, Out, A, false>, weigh_difference<In, Out, A, false>};
  } else {
    return {blend<In, Out, A, false>, weigh_difference<In, Out, A, false>};
  }
}

template <class In, class A>
static MaskMixLoops<A> loops_from(Dtype out, bool per_element) {
  switch (out) {
    case Dtype::f32:
      return loops_of<In, float, A>(per_element);
    case Dtype::f64:
      return loops_of<In, double, A>(per_element);
    case Dtype::bf16:
      return loops_of<In, BFloat16, A>(per_element);
    case Dtype::f16:
      return loops_of<In, Half, A>(per_element);
  }
  return {};
}

template <class A>
static MaskMixLoops<A> loops_for(const MaskMixShape& shape) {
  if (shape.bytes) return loops_from<uint8_t, A>(shape.out, shape.interleaved);
  switch (shape.image) {
    case Dtype::f32:
      return loops_from<float, A>(shape.out, false);
    case Dtype::f64:
      return loops_from<double, A>(shape.out, false);
    case Dtype::bf16:
      return loops_from<BFloat16, A>(shape.out, false);
    case Dtype::f16:
      return loops_from<Half, A>(shape.out, false);
  }
  return {};
}

}  // namespace PMX_ISA
}  // namespace pmx
