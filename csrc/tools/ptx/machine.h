// What translated PTX is made of: registers as bits, arithmetic, memory, and what a warp does together, as the PTX ISA
// has them, over the thread block emulator of the C++ tests. What hardware would answer with a fault is an exception.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "driver.h"

#define PTX_INLINE inline __attribute__((always_inline))

namespace pmx::ptx {

// --- registers -------------------------------------------------------------------------------------------------------

template <size_t bytes>
struct Word;
template <>
struct Word<1> {
  using type = uint8_t;
  using sign = int8_t;
};
template <>
struct Word<2> {
  using type = uint16_t;
  using sign = int16_t;
};
template <>
struct Word<4> {
  using type = uint32_t;
  using sign = int32_t;
};
template <>
struct Word<8> {
  using type = uint64_t;
  using sign = int64_t;
};

// The low bits of a register as a T.
template <class T, class Register>
PTX_INLINE T get(Register bits) {
  if constexpr (std::is_same_v<T, bool>) {
    return bits;
  } else {
    return __builtin_bit_cast(T, static_cast<typename Word<sizeof(T)>::type>(bits));
  }
}

// A wider register is filled with the sign of a signed integer, with zeros otherwise.
template <class T, class Register>
PTX_INLINE void put(Register& bits, T value) {
  if constexpr (std::is_same_v<T, bool>) {
    bits = value;
  } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    bits = static_cast<Register>(static_cast<typename Word<sizeof(Register)>::sign>(value));
  } else {
    bits = static_cast<Register>(__builtin_bit_cast(typename Word<sizeof(T)>::type, value));
  }
}

// --- memory ----------------------------------------------------------------------------------------------------------

template <int bytes, class Pointer>
PTX_INLINE Pointer aligned(Pointer at) {
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0) {
    throw std::runtime_error("misaligned access of " + std::to_string(bytes) + " bytes");
  }
  return at;
}

template <class T>
PTX_INLINE T load(const unsigned char* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
PTX_INLINE void store(unsigned char* to, T value) {
  memcpy(to, &value, sizeof value);
}

// cp.async: copies that a thread has begun arrive when it waits for them, and not before.
class Copies {
 public:
  void begin(unsigned char* to, const unsigned char* from, int bytes) {
    if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || reinterpret_cast<uintptr_t>(from) % bytes != 0) {
      throw std::runtime_error("cp.async of misaligned bytes");
    }
    begun_.push_back({to, from, bytes});
  }
  void wait() {
    for (const Copy& copy : begun_) memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
    begun_.clear();
  }

 private:
  struct Copy {
    unsigned char* to;
    const unsigned char* from;
    int bytes;
  };
  std::vector<Copy> begun_;
};

// --- arithmetic ------------------------------------------------------------------------------------------------------

template <class T>
PTX_INLINE T mul_lo(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class T>
PTX_INLINE T mul_hi(T a, T b) {
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (sizeof(T) * 8));
}

PTX_INLINE float fma_rn(float a, float b, float c) { return std::fma(a, b, c); }
PTX_INLINE double fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
// Rounded towards minus infinity; the product of two floats is exact in double.
PTX_INLINE float fma_rm(float a, float b, float c) {
  const double exact = static_cast<double>(a) * b + c;
  const float nearest = static_cast<float>(exact);
  return static_cast<double>(nearest) > exact ? std::nextafter(nearest, -INFINITY) : nearest;
}

// Of a number and a NaN the number, as min and max have it.
template <class T>
PTX_INLINE T smaller(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(a, b);
  } else {
    return a < b ? a : b;
  }
}
template <class T>
PTX_INLINE T larger(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(a, b);
  } else {
    return a > b ? a : b;
  }
}

template <bool flush>
PTX_INLINE float exp2_approx(float x) {
  const float y = std::exp2(x);
  return flush && std::fabs(y) < std::numeric_limits<float>::min() ? 0.f : y;
}
template <class T>
PTX_INLINE T reciprocal(T x) {
  return 1 / x;
}
PTX_INLINE float reciprocal_approx(float x) { return 1 / x; }
// rcp.approx.ftz.f64 gives the upper half of 1 / x; code around it refines that.
PTX_INLINE double reciprocal_approx(double x) {
  return get<double>(__builtin_bit_cast(uint64_t, 1 / x) & 0xffffffff00000000ull);
}

// Shifts by the width or more leave nothing but the sign.
template <class T>
PTX_INLINE T shift_left(T a, uint32_t by) {
  return by >= sizeof(T) * 8 ? T(0) : static_cast<T>(static_cast<typename Word<sizeof(T)>::type>(a) << by);
}
template <class T>
PTX_INLINE T shift_right(T a, uint32_t by) {
  if (by < sizeof(T) * 8) return static_cast<T>(a >> by);
  return a < T(0) ? static_cast<T>(-1) : T(0);
}
// The low `count` bits of a in place of those of b from `at` on.
template <class T>
PTX_INLINE T insert_bits(T a, T b, uint32_t at, uint32_t count) {
  const T ones = count >= sizeof(T) * 8 ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << count) - 1);
  const T mask = shift_left(ones, at);
  return static_cast<T>((b & ~mask) | (shift_left(a, at) & mask));
}

// --- conversions -----------------------------------------------------------------------------------------------------

PTX_INLINE float saturate(float x) { return x >= 0 ? (x > 1 ? 1.f : x) : 0.f; }  // a NaN becomes 0

template <class T>
PTX_INLINE T round_rni(T x) {
  return std::nearbyint(x);
}
template <class T>
PTX_INLINE T round_rmi(T x) {
  return std::floor(x);
}
template <class T>
PTX_INLINE T round_rpi(T x) {
  return std::ceil(x);
}
template <class T>
PTX_INLINE T round_rzi(T x) {
  return std::trunc(x);
}

// Clamped to the range of T; a NaN becomes 0.
template <class T, class F>
PTX_INLINE T to_integer(F x) {
  if (x != x) return 0;
  if (x <= static_cast<F>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (x >= static_cast<F>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(x);
}

// Written for this tool rather than taken from core/scalar.h, which the kernels under test use.
PTX_INLINE uint16_t to_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  if (x != x) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
PTX_INLINE float from_bf16(uint16_t x) { return get<float>(static_cast<uint32_t>(x) << 16); }
PTX_INLINE float from_f16(uint16_t x) { return static_cast<float>(__builtin_bit_cast(_Float16, x)); }
// max of both halves of a register; `value` reads one.
template <float (*value)(uint16_t)>
PTX_INLINE uint32_t larger_halves(uint32_t a, uint32_t b) {
  const auto larger = [](uint16_t x, uint16_t y) {
    const float of_x = value(x), of_y = value(y);
    if (of_x != of_x) return of_y != of_y ? uint16_t{0x7fff} : y;
    return of_y > of_x ? y : x;
  };
  return static_cast<uint32_t>(larger(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16))) << 16 |
         larger(static_cast<uint16_t>(a), static_cast<uint16_t>(b));
}
PTX_INLINE uint16_t to_f16(float x) { return __builtin_bit_cast(uint16_t, static_cast<_Float16>(x)); }
// 10 bits of fraction, halves away from zero.
PTX_INLINE uint32_t to_tf32(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}
PTX_INLINE float from_tf32(uint32_t bits) { return get<float>(bits & ~0x1fffu); }

// --- what a warp does together ---------------------------------------------------------------------------------------

PTX_INLINE uint32_t shuffle_xor(const Block& block, uint32_t value, uint32_t lanes, uint32_t clamp, uint32_t members) {
  if (members != 0xffffffffu || clamp != 31) throw std::runtime_error("shuffle of a part of a warp");
  return block.shuffle_xor(value, static_cast<int>(lanes));
}

struct Fragment {
  uint32_t at[4];
};
struct Sums {
  float at[4];
};
// The registers of one lane for D = A B + C.
struct Factors {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};
enum class Element { bf16, f16, tf32 };

// ldmatrix .x4: lanes 8 i .. 8 i + 7 name the rows of the 8 x 8 matrix i, each 16 bytes long. Lane l receives elements
// 2 (l % 4) and the next one of row l / 4; transposed, rows and columns change places.
template <bool transposed>
Fragment load_matrices(const Block& block, const unsigned char* row) {
  return block.collective<Fragment>(
      aligned<16>(row),
      [](const auto& rows, const auto& results) {
        for (int matrix = 0; matrix < 4; ++matrix) {
          uint16_t element[8][8];
          for (int r = 0; r < 8; ++r) memcpy(element[r], *rows[8 * matrix + r], sizeof element[r]);
          for (int lane = 0; lane < emulator::lanes; ++lane) {
            const int r = lane / 4, c = lane % 4 * 2;
            const uint32_t first = transposed ? element[c][r] : element[r][c];
            const uint32_t second = transposed ? element[c + 1][r] : element[r][c + 1];
            results[lane]->at[matrix] = first | second << 16;
          }
        }
      },
      transposed ? 101 : 102);
}

// mma.m16n8k16 of 16-bit elements and mma.m16n8k8 of tf32. The places of the elements are those of the tables of the
// PTX ISA ("Matrix Fragments"), with group = lane / 4 and member = lane % 4.
template <Element element>
Sums multiply(const Block& block, const Factors& mine) {
  return block.collective<Sums>(
      mine,
      [](const auto& factors, const auto& results) {
        constexpr int depth = element == Element::tf32 ? 8 : 16;
        float a[16][depth], b[depth][8];
        for (int lane = 0; lane < emulator::lanes; ++lane) {
          const int group = lane / 4, member = lane % 4;
          if constexpr (element == Element::tf32) {
            for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][member + i / 2 * 4] = from_tf32(factors[lane]->a[i]);
            for (int i = 0; i < 2; ++i) b[member + 4 * i][group] = from_tf32(factors[lane]->b[i]);
          } else {
            const auto half = [](const uint32_t* registers, int i) {
              const auto bits = static_cast<uint16_t>(registers[i / 2] >> (16 * (i % 2)));
              return element == Element::bf16 ? from_bf16(bits) : from_f16(bits);
            };
            for (int i = 0; i < 8; ++i) {
              a[group + i / 2 % 2 * 8][member * 2 + i % 2 + i / 4 * 8] = half(factors[lane]->a, i);
            }
            for (int i = 0; i < 4; ++i) b[member * 2 + i % 2 + i / 2 * 8][group] = half(factors[lane]->b, i);
          }
        }
        for (int lane = 0; lane < emulator::lanes; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = factors[lane]->c[i];
            for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
            results[lane]->at[i] = sum;
          }
        }
      },
      110 + static_cast<int>(element));
}

}  // namespace pmx::ptx
