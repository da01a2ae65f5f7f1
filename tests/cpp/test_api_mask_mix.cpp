// mask_mix for C++ users, on raw buffers, against its definition in double precision: values, all three gradients, and
// what a wrong argument is told.
#include <random>
#include <stdexcept>

#include "check.h"
#include "pymixunlearn/mask_mix.h"

using namespace pymixunlearn;

namespace {

struct Shape {
  int64_t n_forget, n_retain;
  bool grid;
  int64_t channels, height, width, mask_height, mask_width;

  int64_t pairs() const { return grid ? n_forget * n_retain : n_forget; }
  int64_t image() const { return channels * height * width; }
  int64_t mask() const { return mask_height * mask_width; }
};

// One dimension of bilinear interpolation with align_corners=False: the weight of source k at output position `at`.
double weight_of(int64_t k, int64_t at, int64_t in, int64_t out) {
  const double position = std::max(0.0, (double(at) + 0.5) * double(in) / double(out) - 0.5);
  const auto first = std::min(static_cast<int64_t>(position), in - 1), second = std::min(first + 1, in - 1);
  const double t = position - double(first);
  return (k == first ? 1 - t : 0) + (k == second ? t : 0);
}

// Everything that mask_mix computes, from its definition.
struct Expected {
  std::vector<double> mixed, grad_mask, grad_forget, grad_retain;

  template <class T>
  Expected(const Shape& s, const std::vector<T>& forget, const std::vector<T>& retain, const std::vector<T>& masks,
           const std::vector<T>& grad)
      : grad_mask(masks.size()), grad_forget(forget.size()), grad_retain(retain.size()) {
    for (int64_t p = 0; p < s.pairs(); ++p) {
      const int64_t f = s.grid ? p / s.n_retain : p, r = s.grid ? p % s.n_retain : p;
      for (int64_t at = 0; at < s.image(); ++at) {
        const int64_t y = at / s.width % s.height, x = at % s.width;
        double logit = 0;
        for (int64_t k = 0; k < s.mask(); ++k) logit += masks[p * s.mask() + k] * weight(s, k, y, x);
        const double share = 1 / (1 + std::exp(-logit)), g = grad[p * s.image() + at];
        const double x_f = forget[f * s.image() + at], x_r = retain[r * s.image() + at];
        mixed.push_back(x_f * share + x_r * (1 - share));
        grad_forget[f * s.image() + at] += g * share;
        grad_retain[r * s.image() + at] += g * (1 - share);
        for (int64_t k = 0; k < s.mask(); ++k) {
          grad_mask[p * s.mask() + k] += g * (x_f - x_r) * share * (1 - share) * weight(s, k, y, x);
        }
      }
    }
  }
  static double weight(const Shape& s, int64_t k, int64_t y, int64_t x) {
    return weight_of(k / s.mask_width, y, s.mask_height, s.height) *
           weight_of(k % s.mask_width, x, s.mask_width, s.width);
  }
};

template <class T>
std::vector<T> random_numbers(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<T> normal(0, 1);
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(normal(random));
  return values;
}

template <class T>
void expect(const char* what, const std::vector<T>& actual, const std::vector<double>& expected, double scale) {
  const double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;
  CHECK(actual.size() == expected.size());
  CHECK_CLOSE(
      what, actual.size(), [&](size_t i) { return actual[i]; }, [&](size_t i) { return expected[i]; },
      [&](size_t i) { return 32 * eps * (std::fabs(expected[i]) + scale); });
}

template <class T>
void check_shape(const Shape& s) {
  check::Context what("forget ", s.n_forget, ", retain ", s.n_retain, ", grid ", s.grid, ", image ", s.channels, "x",
                      s.height, "x", s.width, ", mask ", s.mask_height, "x", s.mask_width, ", bytes ", sizeof(T));
  const std::vector<T> forget = random_numbers<T>(s.n_forget * s.image(), 1);
  const std::vector<T> retain = random_numbers<T>(s.n_retain * s.image(), 2);
  const std::vector<T> masks = random_numbers<T>(s.pairs() * s.mask(), 3);
  const std::vector<T> grad = random_numbers<T>(s.pairs() * s.image(), 4);
  const Expected expected(s, forget, retain, masks, grad);
  const MaskMix<T> mix = {{forget.data(), s.n_forget, s.channels, s.height, s.width},
                          {retain.data(), s.n_retain, s.channels, s.height, s.width},
                          {masks.data(), s.pairs(), s.mask_height, s.mask_width},
                          s.grid ? Pairing::grid : Pairing::zip};
  const auto reversed = [](int64_t count, int64_t, const Pieces& body) {
    for (int64_t i = count; i-- > 0;) body(i, i + 1);
  };
  for (const ParallelFor& parallel_for : {ParallelFor(serial), ParallelFor(reversed)}) {
    std::vector<T> mixed(grad.size(), T(NAN)), grad_mask(masks.size(), T(NAN));
    std::vector<T> grad_forget(forget.size(), T(NAN)), grad_retain(retain.size(), T(NAN));
    mix.forward(mixed.data(), parallel_for);
    mix.backward(grad.data(), grad_mask.data(), grad_forget.data(), grad_retain.data(), parallel_for);
    expect("mixed", mixed, expected.mixed, 1);
    expect("gradient of the mask logits", grad_mask, expected.grad_mask, double(s.image()) / double(s.mask()));
    expect("gradient of the forget images", grad_forget, expected.grad_forget, double(s.n_retain));
    expect("gradient of the retain images", grad_retain, expected.grad_retain, double(s.n_forget));
    mix.backward(grad.data(), nullptr, nullptr, nullptr, parallel_for);  // nothing is wanted, nothing is written
  }
}

template <class T>
void check_all() {
  check_shape<T>({3, 3, false, 3, 8, 12, 2, 3});
  check_shape<T>({2, 3, true, 1, 7, 5, 3, 2});
  check_shape<T>({1, 1, false, 2, 4, 4, 4, 4});
  check_shape<T>({2, 2, true, 1, 3, 3, 5, 7});
  check_shape<T>({0, 0, false, 1, 3, 3, 2, 2});
  check_shape<T>({0, 4, true, 1, 3, 3, 2, 2});
  check_shape<T>({4, 0, true, 1, 3, 3, 2, 2});
}

std::string refusal(const MaskMix<float>& mix) {
  try {
    mix.forward(nullptr);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST(float_mix) { check_all<float>(); }
TEST(double_mix) { check_all<double>(); }

TEST(a_wrong_argument_is_named) {
  const Images<float> images = {nullptr, 2, 3, 8, 8}, three = {nullptr, 3, 3, 8, 8}, wide = {nullptr, 2, 3, 8, 9};
  const Masks<float> masks = {nullptr, 2, 4, 4};
  CHECK(refusal({{nullptr, 2, 3, 0, 8}, images, masks}) ==
        "forget must have channels, height and width above 0, got [3, 0, 8]");
  CHECK(refusal({images, wide, masks}) == "retain must have images like those of forget, [3, 8, 8], got [3, 8, 9]");
  CHECK(refusal({images, three, masks}) == "retain must have as many images as forget in zip pairing, 2, got 3");
  CHECK(refusal({images, three, masks, Pairing::grid}) ==
        "mask_logits must have one mask for each of the 6 pairs, got 2");
  CHECK(refusal({images, images, {nullptr, 2, 0, 4}}) == "mask_logits must have height and width above 0, got [0, 4]");
}

TEST_MAIN
