// mask_mix on the CPU in every instruction set this machine has and as CUDA bodies on the emulator, against the
// equation in double precision: pairings, layouts, element types, 8-bit images, ratios, tile borders and numerical
// corners.
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cuda/mask_mix.cuh"
#include "cuda/mask_mix_patches.cuh"
#include "cuda/mask_mix_tiles.h"
#include "elements.h"
#include "emulator.h"
#include "tables.h"

using namespace pmx;

namespace {

// What a rounding to the type may cost.
double eps_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return 1.2e-7;
    case Dtype::f64:
      return 2.3e-16;
    case Dtype::bf16:
      return 7.9e-3;
    default:
      return 9.8e-4;
  }
}

double number(uint8_t value) { return value; }
template <class T>
double number(T value) {
  return widen(value);
}

// Bilinear weights along one dimension, from the definition of align_corners=False. In long double: a position of some
// tens leaves a double one digit short of what the kernels' exact fractions give.
struct Weights {
  std::vector<std::vector<double>> of;  // [output position][source position]

  Weights(int64_t in, int64_t out) : of(out, std::vector<double>(in, 0)) {
    for (int64_t at = 0; at < out; ++at) {
      long double source = (at + 0.5L) * in / out - 0.5L;
      source = std::min(std::max(source, 0.0L), in - 1.0L);
      const int64_t first = static_cast<int64_t>(source), second = std::min(first + 1, in - 1);
      of[at][first] += static_cast<double>(1 - (source - first));
      of[at][second] += static_cast<double>(source - first);
    }
  }
};

struct Sizes {
  int64_t n_forget, n_retain;
  bool grid;
  int64_t channels, height, width, mask_height, mask_width;
};

// Operands of type In, mixes of type Out, mask logits of type M, and the truth in double.
template <class In, class Out, class M>
struct Problem {
  MaskMixShape shape;
  MaskMixOperands operands{};
  int64_t padding;
  std::vector<In> forget, retain;
  std::vector<M> logits;
  std::vector<Out> grad;
  std::vector<double> mixed, by_forget, by_retain, by_logits, scale_logits;

  Problem(const Sizes& s, bool interleaved, bool normalised, int64_t padding_, bool constant_gradient = false)
      : padding(padding_) {
    constexpr bool bytes = std::is_same_v<In, uint8_t>;
    shape = {s.n_forget,
             s.n_retain,
             s.grid,
             s.channels,
             s.height,
             s.width,
             s.mask_height,
             s.mask_width,
             interleaved,
             bytes,
             bytes ? Dtype::f32 : dtype_of<In>,
             dtype_of<M>,
             dtype_of<Out>};
    std::mt19937 random(static_cast<unsigned>(s.height * 131 + s.width));
    std::normal_distribution<float> normal(0, 2);
    const int64_t size = shape.image_size(), pairs = shape.pairs();
    const auto fill = [&](auto& values, int64_t count) {
      values.resize(static_cast<size_t>(count));
      for (auto& value : values) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, uint8_t>) {
          value = static_cast<uint8_t>(random());
        } else {
          value = narrow<std::decay_t<decltype(value)>>(normal(random));
        }
      }
    };
    fill(forget, s.n_forget * (size + padding));
    fill(retain, s.n_retain * (size + padding));
    fill(logits, pairs * s.mask_height * s.mask_width);
    fill(grad, pairs * (size + padding));
    if (constant_gradient) std::fill(grad.begin(), grad.end(), narrow<Out>(1.f));
    operands.forget = forget.data();
    operands.retain = retain.data();
    operands.forget_stride = operands.retain_stride = operands.grad_stride = size + padding;
    operands.mask_logits = logits.data();
    operands.grad = grad.data();
    operands.normalisation.per_channel = normalised;
    for (int64_t c = 0; normalised && c < s.channels; ++c) {
      operands.normalisation.scales[c] = 0.01 * (c + 1);
      operands.normalisation.shifts[c] = 0.5 - 0.25 * c;
    }
    find_truth();
  }
  Problem(const Problem&) = delete;

  int64_t element(int64_t c, int64_t y, int64_t x) const {
    return shape.interleaved ? (y * shape.width + x) * shape.channels + c : (c * shape.height + y) * shape.width + x;
  }

  void find_truth() {
    const int64_t size = shape.image_size();
    const Weights down(shape.mask_height, shape.height), across(shape.mask_width, shape.width);
    mixed.assign(shape.pairs() * size, 0);
    by_forget.assign(shape.n_forget * size, 0);
    by_retain.assign(shape.n_retain * size, 0);
    by_logits.assign(logits.size(), 0);
    scale_logits.assign(logits.size(), 0);
    for (int64_t pair = 0; pair < shape.pairs(); ++pair) {
      const int64_t i = shape.grid ? pair / shape.n_retain : pair, j = shape.grid ? pair % shape.n_retain : pair;
      for (int64_t y = 0; y < shape.height; ++y) {
        for (int64_t x = 0; x < shape.width; ++x) {
          const int64_t mask = pair * shape.mask_height * shape.mask_width;
          double logit = 0, by_logit = 0, scale = 0;
          for (int64_t a = 0; a < shape.mask_height; ++a) {
            for (int64_t b = 0; b < shape.mask_width; ++b) {
              logit += down.of[y][a] * across.of[x][b] * number(logits[mask + a * shape.mask_width + b]);
            }
          }
          const double m = 1 / (1 + std::exp(-logit));
          for (int64_t c = 0; c < shape.channels; ++c) {
            const double rate = shape.bytes ? operands.normalisation.scale(c) : 1;
            const double shift = shape.bytes ? operands.normalisation.shift(c) : 0;
            const double f = number(forget[i * (size + padding) + element(c, y, x)]) * rate + shift;
            const double r = number(retain[j * (size + padding) + element(c, y, x)]) * rate + shift;
            const double g = number(grad[pair * (size + padding) + element(c, y, x)]);
            mixed[pair * size + element(c, y, x)] = f * m + r * (1 - m);
            by_forget[i * size + element(c, y, x)] += g * m;
            by_retain[j * size + element(c, y, x)] += g * (1 - m);
            by_logit += g * (f - r) * m * (1 - m);
            scale += std::fabs(g) * (std::fabs(f) + std::fabs(r)) * m * (1 - m);
          }
          for (int64_t a = 0; a < shape.mask_height; ++a) {
            for (int64_t b = 0; b < shape.mask_width; ++b) {
              const double weight = down.of[y][a] * across.of[x][b];
              by_logits[mask + a * shape.mask_width + b] += weight * by_logit;
              // A rounding of the logit moves m by as much.
              scale_logits[mask + a * shape.mask_width + b] += weight * scale * (4 + std::fabs(logit));
            }
          }
        }
      }
    }
  }
};

// The three kernels of one way to run them; results have the shapes of the operators' outputs.
template <class In, class Out, class M>
struct Runner {
  using Given = Problem<In, Out, M>;
  std::string name;
  std::function<void(const Given&, std::vector<Out>&)> forward;
  std::function<void(const Given&, std::vector<M>&)> mask_gradient;
  std::function<void(const Given&, bool, std::vector<In>&)> image_gradient;
};

template <class In, class Out, class M>
Runner<In, Out, M> cpu_runner(const char* isa, const KernelTable& table) {
  using Given = Problem<In, Out, M>;
  const auto run = [&table](const Given& p, void* result, bool retain_side, auto kernel, auto tasks) {
    MaskMixOperands operands = p.operands;
    operands.result = result;
    const auto with_taps = [&](auto zero) {
      using A = decltype(zero);
      const MaskMixTaps<A> taps(p.shape, operands, retain_side);
      const MaskMixPlan& plan = taps.plan();
      std::vector<A> workspace(plan.workspace(), A(NAN));
      const int64_t count = (plan.*tasks)();
      // In two pieces, the second one first: tasks are independent of each other.
      (table.mask_mix(p.shape.in_double()).*kernel)(plan, count / 2, count, workspace.data());
      (table.mask_mix(p.shape.in_double()).*kernel)(plan, 0, count / 2, workspace.data());
    };
    p.shape.in_double() ? with_taps(double{}) : with_taps(float{});
  };
  return {isa,
          [run](const Given& p, std::vector<Out>& out) {
            run(p, out.data(), false, &MaskMixKernels::forward, &MaskMixPlan::forward_tasks);
          },
          [run](const Given& p, std::vector<M>& out) {
            run(p, out.data(), false, &MaskMixKernels::mask_gradient, &MaskMixPlan::mask_gradient_tasks);
          },
          [run](const Given& p, bool retain_side, std::vector<In>& out) {
            run(p, out.data(), retain_side, &MaskMixKernels::image_gradient, &MaskMixPlan::image_gradient_tasks);
          }};
}

template <class Access, class In, class Out, class M>
Runner<In, Out, M> emulated(const char* name) {
  using Given = Problem<In, Out, M>;
  using A = typename Access::A;
  const auto with = [](const Given& p, void* result) {
    MaskMixOperands operands = p.operands;
    operands.result = result;
    return operands;
  };
  return {name,
          [with](const Given& p, std::vector<Out>& out) {
            const MaskMixOperands operands = with(p, out.data());
            const MaskMixTiles tiles = mask_mix_tiles(p.shape, Access::pack, mask_mix_partners(p.shape), sizeof(A));
            emulator::launch({p.shape.n_forget * tiles.groups * tiles.per_image(), block_threads,
                              tiles.template shared<A>(tiles.partners)},
                             {emulator::output("out", out)}, [&](emulator::Block& block) {
                               mask_mix_forward_body<Access>(block, p.shape, tiles, operands);
                             });
          },
          [with](const Given& p, std::vector<M>& out) {
            const MaskMixOperands operands = with(p, out.data());
            const MaskMixTiles tiles = mask_mix_tiles(p.shape, Access::pack, 1, sizeof(A));
            std::vector<A> patches(p.shape.pairs() * tiles.per_image() * tiles.source_rows * tiles.source_columns,
                                   A(NAN));
            emulator::launch({p.shape.pairs() * tiles.per_image(), block_threads, tiles.template patch_shared<A>()},
                             {emulator::output("patches", patches)}, [&](emulator::Block& block) {
                               mask_mix_patches_body<Access>(block, p.shape, tiles, operands, patches.data());
                             });
            emulator::launch({ceil_div(static_cast<int64_t>(out.size()), block_threads), block_threads},
                             {emulator::output("out", out)}, [&](emulator::Block& block) {
                               mask_mix_gather_body<A>(block, p.shape, tiles, patches.data(), operands.result);
                             });
          },
          [with](const Given& p, bool retain_side, std::vector<In>& out) {
            const MaskMixOperands operands = with(p, out.data());
            const MaskMixTiles tiles = mask_mix_tiles(p.shape, Access::pack, 1, sizeof(A));
            const int64_t images = retain_side ? p.shape.n_retain : p.shape.n_forget;
            emulator::launch({images * tiles.per_image(), block_threads, tiles.template shared<A>(1)},
                             {emulator::output("out", out)}, [&](emulator::Block& block) {
                               mask_mix_image_gradient_body<Access>(block, p.shape, tiles, operands, retain_side);
                             });
          }};
}

template <class In, class Out, class M>
void compare(const Problem<In, Out, M>& p, const Runner<In, Out, M>& runner) {
  const MaskMixShape& s = p.shape;
  check::Context what(runner.name, s.grid ? ": grid " : ": zip ", s.n_forget, " x ", s.n_retain, ", ", s.channels,
                      " x ", s.height, " x ", s.width, ", mask ", s.mask_height, " x ", s.mask_width,
                      s.interleaved ? ", interleaved" : "", ", bytes of an element ", sizeof(In), " to ", sizeof(Out));
  const double acc = s.in_double() ? 2.3e-16 : 1.2e-7, eps = eps_of(s.out), size = s.image_size();
  std::vector<Out> out(s.pairs() * s.image_size(), narrow<Out>(NAN));
  runner.forward(p, out);
  CHECK_CLOSE(
      "mix", out.size(), [&](size_t i) { return number(out[i]); }, [&](size_t i) { return p.mixed[i]; },
      [&](size_t i) { return eps * std::fabs(p.mixed[i]) + 64 * acc + (eps > 1e-4 ? 6e-8 : 0); });
  std::vector<M> by_logits(p.logits.size(), narrow<M>(NAN));
  runner.mask_gradient(p, by_logits);
  const double mask_eps = eps_of(s.mask);
  CHECK_CLOSE(
      "gradient of the mask", by_logits.size(), [&](size_t i) { return number(by_logits[i]); },
      [&](size_t i) { return p.by_logits[i]; },
      [&](size_t i) {
        return mask_eps * std::fabs(p.by_logits[i]) + (8 + std::sqrt(size)) * acc * p.scale_logits[i] +
               (mask_eps > 1e-4 ? 6e-8 : 0);
      });
  if constexpr (!std::is_same_v<In, uint8_t>) {
    for (bool retain_side : {false, true}) {
      const std::vector<double>& truth = retain_side ? p.by_retain : p.by_forget;
      std::vector<In> gradient(truth.size(), narrow<In>(NAN));
      runner.image_gradient(p, retain_side, gradient);
      CHECK_CLOSE(
          retain_side ? "gradient of the retain images" : "gradient of the forget images", gradient.size(),
          [&](size_t i) { return number(gradient[i]); }, [&](size_t i) { return truth[i]; },
          [&](size_t i) { return eps_of(s.image) * std::fabs(truth[i]) + 256 * acc + 6e-8 * (eps > 1e-4); });
    }
  }
}

// Integer and fractional ratios, the image's own size, down-sampling, single cells, more than a chunk, wide images.
constexpr Sizes all_sizes[] = {
    {2, 2, false, 3, 16, 16, 4, 4},  {2, 3, true, 3, 16, 16, 4, 4},   {1, 1, false, 1, 28, 28, 7, 7},
    {3, 3, false, 2, 13, 11, 5, 3},  {2, 6, true, 5, 9, 8, 1, 1},     {2, 2, false, 3, 8, 8, 8, 8},
    {1, 2, true, 3, 5, 8, 11, 20},   {1, 1, false, 4, 1, 1, 3, 2},    {1, 1, false, 1, 3, 600, 2, 33},
    {1, 1, false, 3, 70, 64, 9, 10}, {2, 1, true, 3, 40, 72, 80, 12}, {1, 1, false, 1, 8, 16, 900, 3},
};

template <class In, class Out, class M>
void compare_cpu() {
  constexpr bool bytes = std::is_same_v<In, uint8_t>;
  for (const Sizes& sizes : all_sizes) {
    for (bool interleaved : {false, true}) {
      const Problem<In, Out, M> p(sizes, interleaved, bytes && sizes.channels % 2 == 1, 5);
      for (const auto& [isa, table] : cpu::tables()) compare(p, cpu_runner<In, Out, M>(isa, *table));
    }
  }
}

// Every access that the launcher could choose for the problem.
template <class In, class Out, class M>
void compare_emulated() {
  constexpr bool bytes = std::is_same_v<In, uint8_t>;
  constexpr int pack = pack_of(sizeof(Out));
  for (const Sizes& sizes : all_sizes) {
    for (bool interleaved : {false, true}) {
      const Problem<In, Out, M> p(sizes, interleaved, bytes && sizes.channels % 2 == 1, 16);
      compare(p, emulated<AnyAccess<Acc<Out>>, In, Out, M>("any"));
      if constexpr (bytes || std::is_same_v<In, Out>) {
        if (!mask_mix_packable(p.shape, p.operands, sizeof(In), sizeof(Out), pack)) continue;
        if (!interleaved) compare(p, emulated<TypedAccess<In, Out, false, pack>, In, Out, M>("planar"));
        if (interleaved && sizes.channels == 3) {
          compare(p, emulated<TypedAccess<In, Out, true, pack>, In, Out, M>("colour"));
        }
      }
    }
  }
}

}  // namespace

TEST(cpu_float) { compare_cpu<float, float, float>(); }
TEST(cpu_double) { compare_cpu<double, double, double>(); }
TEST(cpu_bfloat16) { compare_cpu<BFloat16, BFloat16, float>(); }
TEST(cpu_half) { compare_cpu<Half, Half, Half>(); }
TEST(cpu_8_bit) {
  compare_cpu<uint8_t, float, float>();
  compare_cpu<uint8_t, BFloat16, BFloat16>();
  compare_cpu<uint8_t, double, float>();
}
TEST(cpu_mixed_types) {
  compare_cpu<float, Half, double>();
  compare_cpu<float, double, BFloat16>();
}
TEST(emulated_float) { compare_emulated<float, float, float>(); }
TEST(emulated_double) { compare_emulated<double, double, double>(); }
TEST(emulated_bfloat16) { compare_emulated<BFloat16, BFloat16, float>(); }
TEST(emulated_half) { compare_emulated<Half, Half, Half>(); }
TEST(emulated_8_bit) {
  compare_emulated<uint8_t, float, float>();
  compare_emulated<uint8_t, Half, Half>();
}
TEST(emulated_mixed_types) { compare_emulated<float, Half, double>(); }

TEST(taps_and_readers_mirror_each_other) {
  for (int64_t in = 1; in < 24; ++in) {
    for (int64_t out = 1; out < 24; ++out) {
      for (int64_t k = 0; k <= in; ++k) {
        int64_t expected = 0;
        while (expected < out && tap_of<double>(expected, in, out).first < k) ++expected;
        CHECK(first_reader(k, in, out) == (k == 0 ? 0 : expected));
      }
      for (int64_t count = 1; count <= out; ++count) {
        for (int64_t begin = 0; begin + count <= out; ++begin) {
          const int64_t last = tap_of<double>(begin + count - 1, in, out).second;
          CHECK(last - tap_of<double>(begin, in, out).first + 1 <= sources_of(count, in, out));
        }
      }
    }
  }
}

TEST(tiles_fit_the_block_and_its_shared_memory) {
  for (int64_t size : {1, 7, 32, 224, 1000, 4096}) {
    for (int64_t mask : {1, 7, 14, 224, 5000}) {
      for (int pack : {1, 2, 4, 8}) {
        const MaskMixShape shape = {2,    8,     true,  3,          size,       size,      mask,
                                    mask, false, false, Dtype::f32, Dtype::f32, Dtype::f32};
        const MaskMixTiles tiles = mask_mix_tiles(shape, pack, mask_mix_partners(shape), sizeof(float));
        CHECK(tiles.rows >= 1 && tiles.partners >= 1 && tiles.pass_rows * tiles.columns <= block_threads * pack);
        CHECK(tiles.down * tiles.rows >= size && tiles.across * tiles.columns >= size);
        CHECK(tiles.mask_values() * tiles.partners * 4 <= mask_mix_shared_bytes);
      }
    }
  }
}

TEST(numerical_corners) {
  const auto check_with = [](const Runner<float, float, float>& runner) {
    check::Context what(runner.name);
    Problem<float, float, float> p({3, 3, false, 3, 8, 8, 2, 2}, false, false, 0);
    p.forget[0] = INFINITY;                            // one pixel of the first pair
    p.retain[192 + 9] = NAN;                           // one pixel of the second pair
    for (int i = 8; i < 12; ++i) p.logits[i] = 1e30f;  // the third pair shows its forget image
    std::vector<float> out(3 * 192), by_logits(12), by_forget(3 * 192);
    runner.forward(p, out);
    runner.mask_gradient(p, by_logits);
    runner.image_gradient(p, false, by_forget);
    CHECK(std::isinf(out[0]) && std::isnan(out[192 + 9]));
    size_t finite = 0;
    for (float value : out) finite += std::isfinite(value);
    CHECK(finite == out.size() - 2);
    for (int i = 0; i < 192; ++i) CHECK(out[2 * 192 + i] == p.forget[2 * 192 + i]);
    CHECK(!std::isfinite(by_logits[0]) && std::isnan(by_logits[4]));
    for (int i = 8; i < 12; ++i) CHECK(by_logits[i] == 0);
    for (int i = 0; i < 192; ++i) CHECK(by_forget[2 * 192 + i] == p.grad[2 * 192 + i]);
  };
  for (const auto& [isa, table] : cpu::tables()) check_with(cpu_runner<float, float, float>(isa, *table));
  check_with(emulated<AnyAccess<float>, float, float, float>("any"));
  check_with(emulated<TypedAccess<float, float, false, 4>, float, float, float>("planar"));
}

TEST_MAIN
