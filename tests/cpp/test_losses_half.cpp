// Half-precision logits: with targets in float32 the row kernels must give the very bits that they give with the same
// numbers in half precision, on the CPU and on the emulator; and the loss is rounded once, as it is written.
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cuda/launch_plan.h"
#include "cuda/losses_columns.cuh"
#include "cuda/losses_rows.cuh"
#include "elements.h"
#include "emulator.h"
#include "tables.h"

using namespace pmx;

namespace {

// Rows with two targets each, in the type of the logits and in float32.
template <class T>
struct Problem {
  int64_t rows, classes;
  std::vector<T> logits, narrow_targets[2];
  std::vector<float> wide_targets[2];
  RowScalar<float> grad = {nullptr, 0, 1.5f};
  float lse = 0.25f;
  Contrast<float> contrast = {1, {nullptr, 0, 0.3f}, {nullptr, 0, 2.f}, 1.5f, 0.7f, &lse};

  Problem(int64_t rows_, int64_t classes_) : rows(rows_), classes(classes_) {
    std::mt19937 random(static_cast<unsigned>(classes));
    std::normal_distribution<float> normal(0, 2);
    for (int64_t i = 0; i < rows * classes; ++i) {
      logits.push_back(narrow<T>(normal(random)));
      for (int k = 0; k < 2; ++k) {
        narrow_targets[k].push_back(narrow<T>(std::fabs(normal(random))));
        wide_targets[k].push_back(widen(narrow_targets[k].back()));
      }
    }
  }
  Problem(const Problem&) = delete;

  CosineRows in(bool wide) const {
    CosineRows result = {logits.data(), classes, rows, classes, {}, 1 / 0.4};
    for (int k = 0; k < 2; ++k) {
      const void* data = wide ? static_cast<const void*>(wide_targets[k].data()) : narrow_targets[k].data();
      result.targets[k] = {data, classes, 1, rows};
    }
    return result;
  }
};

template <class T>
struct Result {
  std::vector<float> states;
  std::vector<T> gradient;

  explicit Result(const Problem<T>& p)
      : states(p.rows * state_width(2), NAN), gradient(p.rows * p.classes, narrow<T>(NAN)) {}
  bool finite() const { return std::isfinite(states[sim_slot(1)]) && std::isfinite(widen(gradient.back())); }
  bool operator==(const Result& other) const {
    return memcmp(states.data(), other.states.data(), states.size() * sizeof(float)) == 0 &&
           memcmp(gradient.data(), other.gradient.data(), gradient.size() * sizeof(T)) == 0;
  }
};

template <class T>
Result<T> run_cpu(const Problem<T>& p, const KernelTable& table, TargetKind kind, bool wide) {
  Result<T> result(p);
  const CosineKernels kernels = table.cosine(dtype_of<T>, wide ? Dtype::f32 : dtype_of<T>, kind, 2);
  const CosineRows in = p.in(wide);
  kernels.forward(in, 0, p.rows, result.states.data(), nullptr);
  kernels.backward(in, 0, p.rows, result.states.data(), RowRole::mixed, &p.contrast, &p.grad, result.gradient.data());
  return result;
}

template <class T, class U, TargetKind kind, int group, int pack>
Result<T> run_emulated(const Problem<T>& p) {
  Result<T> result(p);
  const CosineRows in = p.in(std::is_same_v<U, float>);
  const size_t shared = group > warp_size ? sizeof(OnlineRow<T>) * (block_threads / warp_size) : 0;
  const emulator::Launch shape = {ceil_div(p.rows, block_threads / group), block_threads, shared};
  emulator::launch(shape, {emulator::output("states", result.states)}, [&](emulator::Block& block) {
    cosine_forward_body<T, U, kind, group, pack>(block, RowSets{in, {}}, 2, result.states.data(),
                                                 static_cast<T*>(nullptr));
  });
  emulator::launch(shape, {emulator::output("gradient", result.gradient)}, [&](emulator::Block& block) {
    cosine_backward_body<T, U, kind, group, pack>(block, RowSets{in, {}}, 2, result.states.data(), RowRole::mixed,
                                                  p.contrast, p.grad, result.gradient.data(), static_cast<T*>(nullptr));
  });
  return result;
}

template <class T, TargetKind kind, int group, int pack>
void compare_emulated(int64_t classes) {
  check::Context what("emulated, kind ", static_cast<int>(kind), ", classes ", classes, ", pack ", pack);
  const Problem<T> p(group > warp_size ? 2 : 11, classes);
  const Result<T> wide = run_emulated<T, float, kind, group, pack>(p);
  CHECK(wide == (run_emulated<T, T, kind, group, pack>(p)));
  CHECK(wide.finite());
}

template <class T, TargetKind kind>
void compare_kind() {
  constexpr int pack = pack_of(sizeof(T));
  for (const auto& [isa, table] : cpu::tables()) {
    for (int64_t classes : {1, 10, 37, 200}) {
      check::Context what(isa, ", kind ", static_cast<int>(kind), ", classes ", classes);
      const Problem<T> p(7, classes);
      const Result<T> wide = run_cpu(p, *table, kind, true);
      CHECK(wide == run_cpu(p, *table, kind, false));
      CHECK(wide.finite());
    }
  }
  compare_emulated<T, kind, part_of_warp_threads, 1>(10);
  compare_emulated<T, kind, warp_size, 1>(101);
  compare_emulated<T, kind, warp_size, pack>(136);
  compare_emulated<T, kind, block_threads, 1>(8200);
}

// One column of one term: the loss is retain_weight * retain - forget_weight * x, rounded to T.
template <class T>
void check_rounding() {
  for (float x : {0.1f, 3.14159f, -1234.5678f}) {
    const std::vector<ColumnSum<float>> partial = {{{x, 1.f}, 2.f * x}};
    const Contrast<float> contrast = {1, {nullptr, 0, 1.f}, {nullptr, 0, 1.f}, 1.25f, 0.75f, nullptr};
    std::vector<float> lse(1);
    std::vector<T> loss(1);
    emulator::launch({1, block_threads, block_threads * sizeof(float)},
                     {emulator::output("lse", lse), emulator::output("loss", loss)}, [&](emulator::Block& block) {
                       column_losses_body<T>(block, contrast, 1, partial.data(), lse.data(), loss.data());
                     });
    CHECK(lse[0] == x);
    CHECK(loss[0].bits == narrow<T>(0.75f * (2.f * x) - 1.25f * x).bits);
  }
}

template <class T>
void check_all() {
  compare_kind<T, TargetKind::probabilities>();
  compare_kind<T, TargetKind::teacher_logits>();
  check_rounding<T>();
}

}  // namespace

TEST(bfloat16_logits) { check_all<BFloat16>(); }
TEST(half_logits) { check_all<Half>(); }

TEST_MAIN
