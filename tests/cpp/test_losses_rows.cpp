// The row kernels, on the CPU in every instruction set this machine has and as CUDA bodies on the emulator, against the
// equations in double precision: shapes, element types, kinds of targets, strides, pairings, and numerical corners.
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cuda/launch_plan.h"
#include "cuda/losses_rows.cuh"
#include "cuda/losses_sharpen.cuh"
#include "elements.h"
#include "emulator.h"
#include "reference.h"
#include "tables.h"

using namespace pmx;

namespace {

constexpr double T_sharpen = 0.4;

// Logits and targets with padding between rows, and the same numbers as doubles.
template <class T>
struct Problem {
  int64_t rows, classes, stride;
  TargetKind kind;
  int targets;
  int64_t n_forget, n_retain;  // grid when rows == n_forget * n_retain and both exceed 1
  std::vector<T> logits;
  std::vector<T> directions[2];
  std::vector<int64_t> labels[2];
  std::vector<reference::Row> z;
  std::vector<reference::Row> t[2];
  CosineRows in{};

  Problem(int64_t n_forget_, int64_t n_retain_, bool grid, int64_t classes_, TargetKind kind_, int targets_,
          int64_t padding, unsigned seed = 1)
      : rows(grid ? n_forget_ * n_retain_ : n_forget_),
        classes(classes_),
        stride(classes_ + padding),
        kind(kind_),
        targets(targets_),
        n_forget(n_forget_),
        n_retain(grid ? n_retain_ : n_forget_) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 3);
    logits.resize(rows * stride + 1);
    for (T& value : logits) value = narrow<T>(normal(random));
    for (int64_t n = 0; n < rows; ++n) {
      reference::Row row;
      for (int64_t j = 0; j < classes; ++j) row.push_back(widen(logits[n * stride + j]));
      z.push_back(row);
    }
    in = {logits.data(), stride, rows, classes, {}, kind == TargetKind::teacher_logits ? 1 / T_sharpen : 1};
    for (int k = 0; k < targets; ++k) {
      const int64_t count = k == 0 ? n_forget : n_retain;
      const int64_t divisor = grid && k == 0 ? n_retain : 1;
      std::uniform_real_distribution<float> uniform(0, 1);
      for (int64_t n = 0; n < count; ++n) {
        const int64_t label = static_cast<int64_t>(random() % static_cast<uint64_t>(classes));
        labels[k].push_back(label);
        reference::Row row;
        for (int64_t j = 0; j < stride; ++j) {
          const T value = narrow<T>(kind == TargetKind::teacher_logits ? normal(random) : uniform(random));
          directions[k].push_back(value);
          if (j < classes) row.push_back(kind == TargetKind::labels ? j == label : static_cast<double>(widen(value)));
        }
        t[k].push_back(kind == TargetKind::teacher_logits ? reference::softmax(row, T_sharpen) : row);
      }
      const void* data = kind == TargetKind::labels ? static_cast<const void*>(labels[k].data()) : directions[k].data();
      in.targets[k] = {data, kind == TargetKind::labels ? 0 : stride, divisor, count > 0 ? count : 1};
    }
  }

  const reference::Row& target_of(int k, int64_t row) const { return t[k][in.targets[k].row(row)]; }
};

// A way to run the forward and the backward of a problem.
template <class T>
struct Runner {
  std::string name;
  std::function<void(const Problem<T>&, std::vector<Acc<T>>&, std::vector<T>&)> forward;
  std::function<void(const Problem<T>&, const std::vector<Acc<T>>&, RowRole, const Contrast<Acc<T>>&,
                     const RowScalar<Acc<T>>&, std::vector<T>&)>
      backward;
};

template <class T>
Runner<T> cpu_runner(const char* isa, const KernelTable& table) {
  return {isa,
          [&table](const Problem<T>& p, std::vector<Acc<T>>& states, std::vector<T>& sim) {
            const auto kernels = table.cosine(dtype_of<T>, dtype_of<T>, p.kind, p.targets);
            // In two pieces: a range must not touch its neighbours.
            kernels.forward(p.in, 0, p.rows / 2, states.data(), sim.data());
            kernels.forward(p.in, p.rows / 2, p.rows, states.data(), sim.data());
          },
          [&table](const Problem<T>& p, const std::vector<Acc<T>>& states, RowRole role,
                   const Contrast<Acc<T>>& contrast, const RowScalar<Acc<T>>& grad, std::vector<T>& out) {
            const auto kernels = table.cosine(dtype_of<T>, dtype_of<T>, p.kind, p.targets);
            kernels.backward(p.in, 0, p.rows, states.data(), role, &contrast, &grad, out.data());
          }};
}

template <class T, TargetKind kind, int group, int pack>
Runner<T> emulated_kind() {
  const auto shape = [](int64_t rows) {
    const size_t shared = group > warp_size ? sizeof(OnlineRow<T>) * (block_threads / warp_size) : 0;
    return emulator::Launch{ceil_div(rows, block_threads / group), block_threads, shared};
  };
  return {"emulated",
          [shape](const Problem<T>& p, std::vector<Acc<T>>& states, std::vector<T>& sim) {
            emulator::launch(shape(p.rows), {emulator::output("states", states), emulator::output("sim", sim)},
                             [&](emulator::Block& block) {
                               cosine_forward_body<T, T, kind, group, pack>(block, RowSets{p.in, {}}, p.targets,
                                                                            states.data(), sim.data());
                             });
          },
          [shape](const Problem<T>& p, const std::vector<Acc<T>>& states, RowRole role,
                  const Contrast<Acc<T>>& contrast, const RowScalar<Acc<T>>& grad, std::vector<T>& out) {
            emulator::launch(shape(p.rows), {emulator::output("out", out)}, [&](emulator::Block& block) {
              cosine_backward_body<T, T, kind, group, pack>(block, RowSets{p.in, {}}, p.targets, states.data(), role,
                                                            contrast, grad, out.data(), static_cast<T*>(nullptr));
            });
          }};
}

template <class T, int group, int pack>
Runner<T> emulated(TargetKind kind) {
  switch (kind) {
    case TargetKind::probabilities:
      return emulated_kind<T, TargetKind::probabilities, group, pack>();
    case TargetKind::labels:
      return emulated_kind<T, TargetKind::labels, group, pack>();
    default:
      return emulated_kind<T, TargetKind::teacher_logits, group, pack>();
  }
}

// Forward values and the gradient of sum_n weight_n (s_1 or mix) against the reference.
template <class T>
void compare(const Problem<T>& p, const Runner<T>& runner) {
  using A = Acc<T>;
  check::Context what(runner.name, ": rows ", p.rows, ", classes ", p.classes, ", stride ", p.stride, ", kind ",
                      static_cast<int>(p.kind), ", targets ", p.targets, ", element bytes ", sizeof(T));
  const double eps = element_eps<T>, acc_eps = element_eps<A> * (4 + std::sqrt(double(p.classes)));
  std::vector<A> states(p.rows * state_width(p.targets), A(NAN));
  std::vector<T> sim(p.rows, narrow<T>(A(NAN)));
  runner.forward(p, states, sim);
  for (int k = 0; k < p.targets; ++k) {
    CHECK_CLOSE(
        "s", p.rows, [&](size_t n) { return states[n * state_width(p.targets) + sim_slot(k)]; },
        [&](size_t n) { return reference::sim(p.z[n], p.target_of(k, n)); }, [&](size_t) { return 4 * acc_eps; });
  }
  CHECK_CLOSE(
      "sim", p.rows, [&](size_t n) { return widen(sim[n]); },
      [&](size_t n) { return reference::sim(p.z[n], p.target_of(0, n)); }, [&](size_t) { return eps + 4 * acc_eps; });

  std::vector<A> incoming;
  for (int64_t n = 0; n < p.rows; ++n) incoming.push_back(A(0.5) + A(n % 7));
  std::vector<T> out(p.rows * p.classes, narrow<T>(A(NAN)));
  const bool mixed = p.targets == 2;
  // One column, tau 2, lam 0.3; the log-sum-exp is any number here: the weights must use it as given.
  Contrast<A> contrast{1, {nullptr, 0, A(0.3)}, {nullptr, 0, A(2)}, A(1.5), A(0.7), nullptr};
  const A lse = A(0.25);
  contrast.lse = &lse;
  const RowScalar<A> grad{incoming.data(), 1, A(0)};
  runner.backward(p, states, mixed ? RowRole::mixed : RowRole::sim, contrast, grad, out);
  std::vector<double> expected(out.size()), scale(out.size());
  for (int64_t n = 0; n < p.rows; ++n) {
    const double in = incoming[n];
    double weight[2] = {in, 0};
    if (mixed) {
      weight[0] = -in * 1.5 * 0.3 / 2 * std::exp(0.3 / 2 * reference::sim(p.z[n], p.target_of(0, n)) - 0.25);
      weight[1] = in * 0.7 * 0.7;
    }
    for (int k = 0; k < p.targets; ++k) {
      const reference::Row g = reference::sim_gradient(p.z[n], p.target_of(k, n));
      for (int64_t j = 0; j < p.classes; ++j) {
        expected[n * p.classes + j] += weight[k] * g[j];
        scale[n * p.classes + j] += std::fabs(weight[k]);
      }
    }
  }
  CHECK_CLOSE(
      "gradient", out.size(), [&](size_t i) { return widen(out[i]); }, [&](size_t i) { return expected[i]; },
      [&](size_t i) { return 2 * eps * std::fabs(expected[i]) + 4 * acc_eps * scale[i] + (eps > 1e-4 ? 6e-8 : 0); });
}

constexpr TargetKind kinds[] = {TargetKind::probabilities, TargetKind::labels, TargetKind::teacher_logits};
constexpr int64_t widths[] = {1, 2, 3, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 64, 65, 100, 1000, 1001};

template <class T>
void compare_cpu() {
  for (const auto& [isa, table] : cpu::tables()) {
    const Runner<T> runner = cpu_runner<T>(isa, *table);
    for (TargetKind kind : kinds) {
      for (int64_t classes : widths) {
        compare(Problem<T>(5, 5, false, classes, kind, 1, 0), runner);
        compare(Problem<T>(33, 33, false, classes, kind, 2, 3), runner);
        compare(Problem<T>(3, 4, true, classes, kind, 2, 1), runner);
      }
      compare(Problem<T>(0, 0, false, 10, kind, 2, 0), runner);
      compare(Problem<T>(2, 2, false, 20000, kind, 2, 0), runner);
    }
  }
}

template <class T>
void compare_emulated() {
  constexpr int pack = pack_of(sizeof(T));
  for (TargetKind kind : kinds) {
    for (int64_t classes : {1, 2, 10, 33, 64}) {
      compare(Problem<T>(37, 37, false, classes, kind, 1, 0), emulated<T, part_of_warp_threads, 1>(kind));
      compare(Problem<T>(3, 5, true, classes, kind, 2, 2), emulated<T, part_of_warp_threads, 1>(kind));
    }
    for (int64_t classes : {65, 100, 1001}) {
      compare(Problem<T>(9, 9, false, classes, kind, 2, 1), emulated<T, warp_size, 1>(kind));
    }
    for (int64_t classes : {72, 1000}) {
      const Problem<T> packed(9, 9, false, classes, kind, 2, pack);
      CHECK(rows_packable(packed.in, 2, sizeof(T), sizeof(T), kind == TargetKind::labels, nullptr));
      compare(packed, emulated<T, warp_size, pack>(kind));
    }
    compare(Problem<T>(2, 2, false, 8193, kind, 2, 0), emulated<T, block_threads, 1>(kind));
  }
}

}  // namespace

TEST(cpu_float) { compare_cpu<float>(); }
TEST(cpu_double) { compare_cpu<double>(); }
TEST(cpu_bfloat16) { compare_cpu<BFloat16>(); }
TEST(cpu_half) { compare_cpu<Half>(); }
TEST(emulated_float) { compare_emulated<float>(); }
TEST(emulated_double) { compare_emulated<double>(); }
TEST(emulated_bfloat16) { compare_emulated<BFloat16>(); }
TEST(emulated_half) { compare_emulated<Half>(); }

// The reference's own gradient, against differences of its value.
TEST(the_reference_gradient_is_a_derivative) {
  const reference::Row z = {0.3, -1.2, 2.0, 0.1}, t = {0.1, 0.2, 0.3, 0.4};
  const reference::Row g = reference::sim_gradient(z, t);
  for (size_t j = 0; j < z.size(); ++j) {
    reference::Row up = z, down = z;
    up[j] += 1e-6;
    down[j] -= 1e-6;
    CHECK(std::fabs((reference::sim(up, t) - reference::sim(down, t)) / 2e-6 - g[j]) < 1e-9);
  }
}

// NaN and inf make their row NaN and no other; a zero target and saturated logits have finite results; a label out of
// range is NaN.
TEST(numerical_corners) {
  std::vector<Runner<float>> runners;
  for (const auto& [isa, table] : cpu::tables()) runners.push_back(cpu_runner<float>(isa, *table));
  runners.push_back(emulated<float, part_of_warp_threads, 1>(TargetKind::probabilities));
  for (const Runner<float>& runner : runners) {
    check::Context what(runner.name);
    Problem<float> p(6, 6, false, 20, TargetKind::probabilities, 1, 0);
    p.logits[0 * 20 + 17] = NAN;
    p.logits[1 * 20 + 3] = INFINITY;
    p.logits[2 * 20 + 3] = -INFINITY;                              // a masked class
    for (int j = 0; j < 20; ++j) p.directions[0][3 * 20 + j] = 0;  // no direction
    p.logits[4 * 20] = 1e30f;
    std::vector<float> states(6 * state_width(1)), sim(6), out(6 * 20), incoming(6, 1.f);
    runner.forward(p, states, sim);
    runner.backward(p, states, RowRole::sim, Contrast<float>{}, {incoming.data(), 1, 0.f}, out);
    CHECK(std::isnan(sim[0]) && std::isnan(sim[1]) && std::isfinite(sim[2]));
    CHECK(sim[3] == 1.f && std::isfinite(sim[4]) && std::isfinite(sim[5]));
    for (int j = 0; j < 20; ++j) {
      CHECK(std::isnan(out[j]) && std::isnan(out[20 + j]));
      CHECK(std::isfinite(out[40 + j]) && out[60 + j] == 0.f && std::isfinite(out[80 + j]));
    }
    CHECK(out[40 + 3] == 0.f);
  }
  Problem<float> labelled(3, 3, false, 4, TargetKind::labels, 1, 0);
  labelled.labels[0] = {0, 4, -1};
  for (const Runner<float>& runner : {cpu_runner<float>("baseline", baseline_kernels),
                                      emulated<float, part_of_warp_threads, 1>(TargetKind::labels)}) {
    std::vector<float> states(3 * state_width(1)), sim(3);
    runner.forward(labelled, states, sim);
    CHECK(std::isfinite(sim[0]) && std::isnan(sim[1]) && std::isnan(sim[2]));
  }
}

namespace {

template <class T>
void compare_sharpen() {
  using A = Acc<T>;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  const A inverse_T = A(1 / 0.4);
  for (int64_t classes : {1, 2, 10, 33, 65, 1000, 8200}) {
    const int64_t rows = classes > 1000 ? 2 : 11;
    std::vector<T> z(rows * classes), grad(rows * classes);
    for (T& value : z) value = narrow<T>(normal(random));
    for (T& value : grad) value = narrow<T>(normal(random));
    std::vector<double> probability(z.size()), gradient(z.size());
    for (int64_t n = 0; n < rows; ++n) {
      reference::Row row, g;
      for (int64_t j = 0; j < classes; ++j)
        row.push_back(widen(z[n * classes + j])), g.push_back(widen(grad[n * classes + j]));
      const reference::Row p = reference::softmax(row, 0.4);
      const double mean = reference::dot(p, g);
      for (int64_t j = 0; j < classes; ++j) {
        probability[n * classes + j] = p[j];
        gradient[n * classes + j] = p[j] * (g[j] - mean) / 0.4;
      }
    }
    const auto compare_with = [&](const std::string& name, const auto& forward, const auto& backward) {
      check::Context what(name, ": classes ", classes, ", element bytes ", sizeof(T));
      const double eps = element_eps<T>, acc_eps = element_eps<A> * (16 + std::sqrt(double(classes)));
      const double tiny = eps > 1e-4 ? 6e-8 : 0;
      std::vector<T> out(z.size());
      forward(out);
      CHECK_CLOSE(
          "probabilities", out.size(), [&](size_t i) { return widen(out[i]); },
          [&](size_t i) { return probability[i]; },
          [&](size_t i) { return (eps + 4 * acc_eps) * probability[i] + tiny + 1e-37; });
      backward(out);
      CHECK_CLOSE(
          "gradient", out.size(), [&](size_t i) { return widen(out[i]); }, [&](size_t i) { return gradient[i]; },
          [&](size_t i) { return eps * std::fabs(gradient[i]) + 60 * acc_eps * probability[i] + tiny + 1e-36; });
    };
    for (const auto& [isa, table] : cpu::tables()) {
      const SharpenKernels kernels = table->sharpen(dtype_of<T>);
      compare_with(
          isa, [&](std::vector<T>& out) { kernels.forward(z.data(), classes, 1 / 0.4, 0, rows, out.data()); },
          [&](std::vector<T>& out) { kernels.backward(grad.data(), z.data(), classes, 1 / 0.4, 0, rows, out.data()); });
    }
    const auto emulate = [&](auto group, auto pack) {
      const emulator::Launch shape{ceil_div(rows, block_threads / group()), block_threads,
                                   sizeof(OnlineSoftmax<T>) * (block_threads / warp_size)};
      compare_with(
          "emulated",
          [&](std::vector<T>& out) {
            emulator::launch(shape, {emulator::output("out", out)}, [&](emulator::Block& block) {
              sharpen_forward_body<T, group(), pack()>(block, z.data(), rows, classes, inverse_T, out.data());
            });
          },
          [&](std::vector<T>& out) {
            emulator::launch(shape, {emulator::output("out", out)}, [&](emulator::Block& block) {
              sharpen_backward_body<T, group(), pack()>(block, grad.data(), z.data(), rows, classes, inverse_T,
                                                        out.data());
            });
          });
    };
    using One = std::integral_constant<int, 1>;
    const auto emulate_packs = [&](auto group) {
      emulate(group, One{});
      if (classes % pack_of(sizeof(T)) == 0) {
        emulate(group, std::integral_constant<int, pack_of(sizeof(T))>{});
        emulate(group, std::integral_constant<int, pack_of(sizeof(T)) / 2>{});
      }
    };
    switch (row_group(classes)) {
      case RowGroup::part_of_warp:
        emulate(std::integral_constant<int, part_of_warp_threads>{}, One{});
        break;
      case RowGroup::warp:
        emulate_packs(std::integral_constant<int, warp_size>{});
        break;
      case RowGroup::block:
        emulate_packs(std::integral_constant<int, block_threads>{});
        break;
    }
  }
}

}  // namespace

TEST(sharpen_float) { compare_sharpen<float>(); }
TEST(sharpen_double) { compare_sharpen<double>(); }
TEST(sharpen_bfloat16) { compare_sharpen<BFloat16>(); }
TEST(sharpen_half) { compare_sharpen<Half>(); }

TEST_MAIN
