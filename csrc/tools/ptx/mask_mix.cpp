// The launchers of mask_mix, against the equations of csrc/README.md in double precision.
#include "core/mask_mix.h"

#include <cmath>

#include "cases.h"

namespace pmx::ptx {
namespace {

struct Problem {
  int64_t n_forget, n_retain;
  bool grid;
  int64_t channels, height, width, mask_height, mask_width;
  Dtype dtype;
  bool interleaved, bytes;
  int64_t shift;
  const char* bench = nullptr;  // the case of the benches that it stands for; these have no gradients of images
};

// The images of one side, as floating-point numbers or as bytes.
class Images {
 public:
  Images(const Problem& p, int64_t count)
      : floats_(random_array(p.bytes ? 0 : count, p.dtype, 1, p.shift)),
        bytes_(p.bytes ? static_cast<uint8_t*>(guarded(static_cast<size_t>(count))) : nullptr) {
    for (int64_t i = 0; p.bytes && i < count; ++i) bytes_[i] = static_cast<uint8_t>(random_below(256));
  }
  const void* data() const { return bytes_ != nullptr ? bytes_ : floats_.data(); }
  double at(int64_t i, const Normalisation& n, int64_t channel) const {
    return bytes_ != nullptr ? bytes_[i] * n.scale(channel) + n.shift(channel) : floats_[i];
  }

 private:
  Array floats_;
  uint8_t* bytes_;
};

// Where an output position reads, and with which weight of the second position: (at + 1/2) in / out - 1/2, clamped.
struct Position {
  int64_t first, second;
  double t;

  Position(int64_t at, int64_t in, int64_t out) {
    double source = (static_cast<double>(at) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
    source = std::min(std::max(source, 0.0), static_cast<double>(in - 1));
    first = static_cast<int64_t>(source);
    second = std::min(first + 1, in - 1);
    t = source - static_cast<double>(first);
  }
};

void check(const Problem& p) {
  const MaskMixShape shape = {p.n_forget,   p.n_retain,    p.grid,  p.channels, p.height, p.width, p.mask_height,
                              p.mask_width, p.interleaved, p.bytes, p.dtype,    p.dtype,  p.dtype};
  const int64_t size = shape.image_size(), pixels = shape.pixels(), pairs = shape.pairs();
  const Images forget(p, p.n_forget * size), retain(p, p.n_retain * size);
  const Array mask = random_array(pairs * p.mask_height * p.mask_width, p.dtype, 2);
  const Array grad = random_array(pairs * size, p.dtype, 1, p.shift);
  const Array out(pairs * size, p.dtype, p.shift), mask_gradient(mask.count(), p.dtype);
  const Array forget_gradient(p.n_forget * size, p.dtype), retain_gradient(p.n_retain * size, p.dtype);

  MaskMixOperands operands{};
  operands.forget = forget.data();
  operands.retain = retain.data();
  operands.forget_stride = operands.retain_stride = operands.grad_stride = size;
  operands.mask_logits = mask.data();
  operands.grad = grad.data();
  operands.normalisation.per_channel = p.bytes;
  for (int64_t c = 0; c < p.channels; ++c) {
    operands.normalisation.scales[c] = 1 / (255 * (0.2 + 0.01 * static_cast<double>(c)));
    operands.normalisation.shifts[c] = -0.4 - 0.1 * static_cast<double>(c);
  }
  const auto writing = [&](const Array& result, const char* name) {
    operands.result = result.data();
    expect_outputs({result.output(name)});
  };
  // In a grid of the benches every image has 32 partners.
  const int64_t moved = (p.grid ? pairs * size + pairs * size / 16 : 3 * pairs * size) + mask.count();
  const int64_t element = static_cast<int64_t>(size_of(p.dtype));
  const std::string counted = p.bench != nullptr ? std::string("mask_mix ") + p.bench + " " + name_of(p.dtype) : "";
  count_as(counted, "forward", out.count(), moved * element);
  writing(out, "mixed images");
  cuda::mask_mix_forward(shape, operands, nullptr);
  check_launch("the forward");
  count_as(counted, "backward", out.count(), (moved + mask.count()) * element);
  writing(mask_gradient, "gradient of the mask logits");
  void* scratch = guarded(static_cast<size_t>(cuda::mask_mix_mask_gradient_scratch(shape, operands)));
  cuda::mask_mix_mask_gradient(shape, operands, scratch, nullptr);
  check_launch("the gradient of the mask logits");
  const bool of_images = !p.bytes && p.bench == nullptr;
  if (of_images) {
    operands.forget = operands.retain = nullptr;
    for (bool retain_side : {false, true}) {
      writing(retain_side ? retain_gradient : forget_gradient, "gradient of the images");
      cuda::mask_mix_image_gradient(shape, operands, retain_side, nullptr);
      check_launch("the gradient of the images");
    }
  }

  std::vector<double> mixed(static_cast<size_t>(out.count())), of_mask(static_cast<size_t>(mask.count()));
  std::vector<double> of_forget(static_cast<size_t>(p.n_forget * size)),
      of_retain(static_cast<size_t>(p.n_retain * size));
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t f = shape.forget_of(pair) * size, r = shape.retain_of(pair) * size;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const Position y(pixel / p.width, p.mask_height, p.height), x(pixel % p.width, p.mask_width, p.width);
      const auto place = [&](int64_t i, int64_t j) { return (pair * p.mask_height + i) * p.mask_width + j; };
      const double upper = (1 - x.t) * mask[place(y.first, x.first)] + x.t * mask[place(y.first, x.second)];
      const double lower = (1 - x.t) * mask[place(y.second, x.first)] + x.t * mask[place(y.second, x.second)];
      const double share = 1 / (1 + std::exp(-(1 - y.t) * upper - y.t * lower));
      double of_logit = 0;
      for (int64_t c = 0; c < p.channels; ++c) {
        const int64_t at = p.interleaved ? pixel * p.channels + c : c * pixels + pixel;
        const double of_f = forget.at(f + at, operands.normalisation, c),
                     of_r = retain.at(r + at, operands.normalisation, c);
        const double g = grad[pair * size + at];
        mixed[pair * size + at] = of_f * share + of_r * (1 - share);
        of_forget[f + at] += g * share;
        of_retain[r + at] += g * (1 - share);
        of_logit += g * (of_f - of_r) * share * (1 - share);
      }
      of_mask[place(y.first, x.first)] += (1 - y.t) * (1 - x.t) * of_logit;
      of_mask[place(y.first, x.second)] += (1 - y.t) * x.t * of_logit;
      of_mask[place(y.second, x.first)] += y.t * (1 - x.t) * of_logit;
      of_mask[place(y.second, x.second)] += y.t * x.t * of_logit;
    }
  }
  compare("mixed images", out, mixed, tolerance(p.dtype));
  compare("gradient of the mask logits", mask_gradient, of_mask, tolerance(p.dtype));
  if (!of_images) return;
  compare("gradient of the forget images", forget_gradient, of_forget, tolerance(p.dtype));
  compare("gradient of the retain images", retain_gradient, of_retain, tolerance(p.dtype));
}

Case case_of(const Problem& p) {
  const std::string name = (p.bench != nullptr ? "bench " : "") + std::string(name_of(p.dtype)) +
                           (p.bytes ? " from bytes" : "") + (p.grid ? " grid " : " zip ") + std::to_string(p.channels) +
                           "x" + std::to_string(p.height) + "x" + std::to_string(p.width) + ", mask " +
                           std::to_string(p.mask_height) + "x" + std::to_string(p.mask_width) +
                           (p.interleaved ? ", channels last" : "") + (p.shift > 0 ? ", shifted" : "");
  return {name, [=] { check(p); }};
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (Dtype dtype : dtypes) {
    for (bool grid : {false, true}) {
      const int64_t forget = grid ? 3 : 4;
      for (bool interleaved : {false, true}) {
        cases.push_back(case_of({forget, 4, grid, 3, 16, 24, 3, 4, dtype, interleaved, false, 0}));
        cases.push_back(case_of({forget, 4, grid, 3, 7, 9, 3, 4, dtype, interleaved, false, 0}));
        cases.push_back(case_of({forget, 4, grid, 3, 16, 32, 3, 4, dtype, interleaved, true, 0}));
      }
      cases.push_back(case_of({forget, 4, grid, 3, 16, 24, 3, 4, dtype, false, false, 1}));
      cases.push_back(case_of({grid ? 2 : 3, 3, grid, 1, 9, 520, 3, 4, dtype, false, false, 0}));
      cases.push_back(case_of({grid ? 2 : 3, 3, grid, 5, 12, 16, 30, 40, dtype, false, false, 0}));
    }
    cases.push_back(case_of({2, 2, false, 4, 8, 8, 1, 1, dtype, true, false, 0}));
  }
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    cases.push_back(case_of({1, 1, false, 3, 224, 224, 14, 14, dtype, false, false, 0, "zip 224"}));
    cases.push_back(case_of({1, 4, true, 3, 224, 224, 14, 14, dtype, false, false, 0, "grid 224"}));
    cases.push_back(case_of({2, 2, false, 3, 32, 32, 8, 8, dtype, false, false, 0, "zip 32"}));
    cases.push_back(case_of({1, 4, true, 3, 32, 32, 8, 8, dtype, false, false, 0, "grid 32"}));
  }
  return cases;
}

}  // namespace pmx::ptx
