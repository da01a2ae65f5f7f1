// The launchers of the attention, against the equations of csrc/README.md in double precision.
#include "core/attention.h"

#include <algorithm>
#include <cmath>

#include "cases.h"

namespace pmx::ptx {
namespace {

struct Problem {
  int64_t images[2];
  bool grid;
  int64_t dim, tokens;
  Dtype dtype;
  bool tf32;
  int64_t shift;
  bool bench = false;  // a case of the benches, which is counted
};

// Both sides' maps, and the gradients of one call; index 0 is the forget side.
struct Side {
  Array query, key, value;

  Side(const Problem& p, int64_t images)
      : query(random_array(images * p.dim * p.tokens, p.dtype, 1, p.shift)),
        key(random_array(images * p.dim * p.tokens, p.dtype, 1, p.shift)),
        value(random_array(images * p.tokens, p.dtype, 1, p.shift)) {}
};

struct Expected {
  std::vector<double> out, query[2], key[2], value[2];
};

Expected equations(const Problem& p, const Attention& in, const Side (&side)[2], const Array& grad) {
  Expected expected;
  expected.out.resize(static_cast<size_t>(in.pairs() * p.tokens));
  for (int k = 0; k < 2; ++k) {
    const auto maps = static_cast<size_t>(p.images[k] * p.tokens);
    expected.query[k].resize(maps * static_cast<size_t>(p.dim));
    expected.key[k].resize(maps * static_cast<size_t>(p.dim));
    expected.value[k].resize(maps);
  }
  std::vector<double> weight(static_cast<size_t>(p.tokens));
  for (int64_t pair = 0; pair < in.pairs(); ++pair) {
    for (int k = 0; k < 2; ++k) {
      const int64_t mine = in.image_of(k, pair), other = in.image_of(1 - k, pair);
      const auto at = [&](int64_t image, int64_t c, int64_t n) { return (image * p.dim + c) * p.tokens + n; };
      for (int64_t n = 0; n < p.tokens; ++n) {
        double top = -INFINITY, total = 0, l = 0;
        for (int64_t m = 0; m < p.tokens; ++m) {
          double score = 0;
          for (int64_t c = 0; c < p.dim; ++c) score += side[k].query[at(mine, c, n)] * side[1 - k].key[at(other, c, m)];
          weight[m] = score * in.scale;
          top = std::max(top, weight[m]);
        }
        for (double& w : weight) total += w = std::exp(w - top);
        for (int64_t m = 0; m < p.tokens; ++m) l += (weight[m] /= total) * side[k].value[mine * p.tokens + m];
        const double sign = k == 0 ? 1 : -1, g = sign * grad[pair * p.tokens + n];
        expected.out[pair * p.tokens + n] += sign * l;
        for (int64_t m = 0; m < p.tokens; ++m) {
          const double ds = in.scale * g * weight[m] * (side[k].value[mine * p.tokens + m] - l);
          expected.value[k][mine * p.tokens + m] += g * weight[m];
          for (int64_t c = 0; c < p.dim; ++c) {
            expected.query[k][at(mine, c, n)] += ds * side[1 - k].key[at(other, c, m)];
            expected.key[1 - k][at(other, c, m)] += ds * side[k].query[at(mine, c, n)];
          }
        }
      }
    }
  }
  return expected;
}

void check(const Problem& p, bool backward) {
  const Side side[2] = {Side(p, p.images[0]), Side(p, p.images[1])};
  Attention in{};
  in.images[0] = p.images[0];
  in.images[1] = p.images[1];
  in.grid = p.grid;
  in.dim = p.dim;
  in.tokens = p.tokens;
  in.scale = 1 / std::sqrt(static_cast<double>(p.dim));
  const auto maps = [&](const Array& array) { return Maps{array.data(), p.dim * p.tokens, p.tokens, 1}; };
  const auto values = [&](const Array& array) { return Maps{array.data(), p.tokens, 0, 1}; };
  for (int k = 0; k < 2; ++k) in.direction[k] = {maps(side[k].query), maps(side[1 - k].key), values(side[k].value)};

  const Dtype accumulated = accumulation(p.dtype);
  const Array states(in.pairs() * 2 * state_parts * p.tokens, accumulated), out(in.pairs() * p.tokens, p.dtype);
  const Array grad = random_array(in.pairs() * p.tokens, p.dtype);
  const Expected expected = equations(p, in, side, grad);
  const double allowed = 1.5 * (p.tf32 ? 4e-3 : tolerance(p.dtype));

  const int64_t element = static_cast<int64_t>(size_of(p.dtype)), masks = in.pairs() * p.tokens;
  const int64_t projections = (in.images[0] + in.images[1]) * p.tokens * (2 * p.dim + 1);
  const std::string counted = p.bench ? std::string("mixblock_attention zip ") + std::to_string(p.tokens) + "x" +
                                            std::to_string(p.dim) + " " + name_of(p.dtype) + (p.tf32 ? " tf32" : "")
                                      : "";
  expect_outputs({states.output("states"), out.output("mask logits")});
  count_as(counted, "forward", masks, (projections + masks) * element);
  cuda::attention_forward(in, p.dtype, p.tf32, states.data(), out.data(), nullptr);
  check_launch("the forward");
  compare("mask logits", out, expected.out, allowed);
  if (!backward) return;

  AttentionGradients to{};
  std::vector<Array> gradients;  // query, key and value of the forget side, then of the retain side
  std::vector<emulator::Output> outputs;
  for (int k = 0; k < 2; ++k) {
    gradients.emplace_back(p.images[k] * p.dim * p.tokens, p.dtype);
    gradients.emplace_back(p.images[k] * p.dim * p.tokens, p.dtype);
    gradients.emplace_back(p.images[k] * p.tokens, p.dtype);
    to.query[k] = gradients[3 * k].data();
    to.key[1 - k] = gradients[3 * k + 1].data();
    to.value[k] = gradients[3 * k + 2].data();
  }
  for (const Array& gradient : gradients) outputs.push_back(gradient.output("gradient"));
  expect_outputs(outputs);
  count_as(counted, "backward", masks, (2 * projections + masks) * element);
  const Array of_values(in.pairs() * 2 * p.tokens, accumulated);
  cuda::attention_backward(in, p.dtype, p.tf32, grad.data(), states.data(), to, of_values.data(), nullptr);
  check_launch("the backward");
  for (int k = 0; k < 2; ++k) {
    compare("gradient of the queries", gradients[3 * k], expected.query[k], 2 * allowed);
    compare("gradient of the keys", gradients[3 * k + 1], expected.key[k], 2 * allowed);
    compare("gradient of the values", gradients[3 * k + 2], expected.value[k], 2 * allowed);
  }
}

Case case_of(const Problem& p, bool backward = true) {
  const std::string name = (p.bench ? "bench " : "") + std::string(name_of(p.dtype)) + (p.tf32 ? " tf32" : "") +
                           (p.grid ? " grid" : " zip") + ", d " + std::to_string(p.dim) + ", " +
                           std::to_string(p.tokens) + " tokens" + (p.shift > 0 ? ", shifted" : "") +
                           (backward ? "" : ", forward");
  return {name, [=] { check(p, backward); }};
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (Dtype dtype : dtypes) {
    for (bool tf32 : {false, true}) {
      if (tf32 && dtype != Dtype::f32) continue;
      // Whole and cut tiles, rows of 16 bytes and others, one chunk of channels and several.
      cases.push_back(case_of({{3, 3}, false, 64, 78, dtype, tf32, 0}));
      cases.push_back(case_of({{2, 3}, true, 150, 96, dtype, tf32, 0}));
      cases.push_back(case_of({{1, 2}, true, 5, 64, dtype, tf32, 1}));
    }
  }
  cases.push_back(case_of({{2, 2}, false, 128, 1, Dtype::f16, false, 0}));
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (bool tf32 : {false, true}) {
      if (tf32 && dtype != Dtype::f32) continue;
      cases.push_back(case_of({{1, 1}, false, 128, 196, dtype, tf32, 0, true}));
    }
  }
  for (bool backward : {false, true}) cases.push_back(case_of({{1, 2}, true, 64, 96, Dtype::bf16, false, 0}, backward));
  return cases;
}

}  // namespace pmx::ptx
