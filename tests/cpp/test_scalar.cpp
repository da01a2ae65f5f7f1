// Conversions between float and the half types, over all patterns.
#include "check.h"
#include "core/scalar.h"

using namespace pmx;

namespace {

// The value of an IEEE half by its definition.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

TEST(every_half_widens_to_its_value) {
  CHECK_CLOSE(
      "half", 65536, [](size_t i) { return widen(Half{static_cast<uint16_t>(i)}); },
      [](size_t i) { return half_value(static_cast<uint16_t>(i)); }, [](size_t) { return 0.0; });
}

TEST(every_half_comes_back_from_float) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const Half half{static_cast<uint16_t>(i)};
    if (std::isnan(widen(half))) continue;
    CHECK(narrow<Half>(widen(half)).bits == i);
  }
}

// Between every two neighbours: just below the middle goes down, just above goes up, the middle to the even one.
TEST(floats_round_to_the_nearest_half) {
  for (uint32_t i = 0; i < 0x7bff; ++i) {
    const float low = widen(Half{static_cast<uint16_t>(i)}), high = widen(Half{static_cast<uint16_t>(i + 1)});
    const float middle = low + (high - low) / 2;
    const uint32_t even = i % 2 == 0 ? i : i + 1;
    CHECK(narrow<Half>(middle).bits == even);
    CHECK(narrow<Half>(std::nextafter(middle, 0.f)).bits == i);
    CHECK(narrow<Half>(std::nextafter(middle, high)).bits == i + 1);
    CHECK(narrow<Half>(-middle).bits == (even | 0x8000u));
  }
}

TEST(halves_overflow_and_keep_nan) {
  CHECK(narrow<Half>(65519.f).bits == 0x7bff);
  CHECK(narrow<Half>(65520.f).bits == 0x7c00);
  CHECK(narrow<Half>(INFINITY).bits == 0x7c00);
  CHECK(narrow<Half>(-1e30f).bits == 0xfc00);
  CHECK(narrow<Half>(1e-30f).bits == 0);
  CHECK(std::isnan(widen(narrow<Half>(NAN))));
}

TEST(bfloat16_is_the_upper_half_of_a_float_rounded) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const BFloat16 value{static_cast<uint16_t>(i)};
    const float wide = widen(value);
    if (std::isnan(wide)) {
      CHECK(std::isnan(widen(narrow<BFloat16>(wide))));
      continue;
    }
    CHECK(narrow<BFloat16>(wide).bits == i);
    const uint32_t next = detail::float_to_bits(wide) + 0x8000u;  // the middle to the next one
    if ((i & 0x7fff) >= 0x7f7f) continue;
    CHECK(narrow<BFloat16>(detail::bits_to_float(next)).bits == (i % 2 == 0 ? i : i + 1));
    CHECK(narrow<BFloat16>(detail::bits_to_float(next - 1)).bits == i);
    CHECK(narrow<BFloat16>(detail::bits_to_float(next + 1)).bits == i + 1);
  }
}

TEST_MAIN
