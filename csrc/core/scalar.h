// The element types of the operators and the type that each one accumulates in.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "macros.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace pmx {

enum class Dtype : int { f32, f64, bf16, f16 };

// bfloat16 and IEEE half are carried as bits: the core needs neither torch nor CUDA headers on the host.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

namespace detail {

PMX_HD float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

PMX_HD uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Half to float without a table: shift the fields in place, then let a float multiplication rebias the exponent. It
// also normalises subnormal halves; only inf and NaN need their exponent set by hand.
PMX_HD float half_bits_to_float(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const float scaled = bits_to_float(magnitude) * bits_to_float(0x77800000u);  // * 2^112
  uint32_t bits = float_to_bits(scaled);
  if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;
  return bits_to_float(bits | sign);
}

// Float to half, round to nearest even. Adding and subtracting a power of two aligned with the last half digit makes
// the float unit do the rounding, for normal and subnormal results alike.
PMX_HD uint16_t float_to_half_bits(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {                                               // below 2^-14: subnormal
    const float shifted = bits_to_float(magnitude) + 0.5f;                     // last digit of the sum: 2^-24
    return static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace detail

PMX_HD float widen(float value) { return value; }
PMX_HD double widen(double value) { return value; }
PMX_HD float widen(BFloat16 value) { return detail::bits_to_float(static_cast<uint32_t>(value.bits) << 16); }
PMX_HD float widen(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return detail::half_bits_to_float(value.bits);
#endif
}

template <class T>
PMX_HD T narrow(double value) {
  return static_cast<T>(value);
}
template <class T>
PMX_HD T narrow(float value) {
  return static_cast<T>(value);
}
template <>
PMX_HD BFloat16 narrow<BFloat16>(float value) {
#if defined(__CUDA_ARCH__)
  return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const uint32_t bits = detail::float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return BFloat16{0x7fc0u};
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
}
template <>
PMX_HD Half narrow<Half>(float value) {
#if defined(__CUDA_ARCH__)
  return Half{__half_as_ushort(__float2half_rn(value))};
#else
  return Half{detail::float_to_half_bits(value)};
#endif
}

// 1 / x for a normal x; on the device with an error of at most one unit in the last place.
PMX_HD double reciprocal(double x) { return 1 / x; }
PMX_HD float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1 / x;
#endif
}

// Sums run in float32 or better, whatever the type of the elements.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulate<T>::type;

namespace detail {

#if defined(__CUDACC__)
__device__ __forceinline__ float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
#endif
constexpr float log2_e = 1.4426950408889634f;

}  // namespace detail

// exp(x) for elements of type T. On the device the error for halves may grow to |x| units of float32 in the last place,
// which is far below their own.
template <class T>
PMX_HD Acc<T> exp_for(Acc<T> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 2) return detail::exp2_approx(x * detail::log2_e);
#endif
  return std::exp(x);
}

// exp((x - base) * rate) for elements x of type T, of which many share a base. On the device one operation and one
// exponential for halves: the error may grow to |base * rate| units of float32 in the last place, but is the same for
// all elements of a base. A base beyond 2e38 then counts as infinite.
template <class T>
class RelativeExp {
 public:
  using A = Acc<T>;

  PMX_HD explicit RelativeExp(A base, A rate = A(1)) : base_(base), rate_(rate) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 2) {
      rate_ = rate * detail::log2_e;
      base_ = -(base * rate_);
    }
#endif
  }
  PMX_HD A operator()(A x) const {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 2) return detail::exp2_approx(fmaf(x, rate_, base_));
#endif
    return std::exp((x - base_) * rate_);
  }

 private:
  A base_, rate_;
};

// sqrt(x) for sums over elements of type T: on the device approximate for halves, to some units of float32 in the last
// place.
template <class T>
PMX_HD Acc<T> sqrt_for(Acc<T> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 2) {
    float result;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
#endif
  return std::sqrt(x);
}

// a / b likewise.
template <class T>
PMX_HD Acc<T> divide_for(Acc<T> a, Acc<T> b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 2) {
    float inverse;
    asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    return a * inverse;
  }
#endif
  return a / b;
}

}  // namespace pmx
