// A whole contrastive loss in one block, and passes over two sets of rows, on the emulator: against the launches that
// they stand for, run with the CPU kernels. Logits of every element type, with targets of that type and, beside halves,
// of float32.
#include <algorithm>
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cpu/losses.h"
#include "cuda/launch_plan.h"
#include "cuda/losses_at_once.cuh"
#include "elements.h"
#include "emulator.h"

using namespace pmx;

namespace {

// One loss: logits of type T, targets of type U, and room for everything that a pass writes.
template <class T, class U>
struct Problem {
  using A = Acc<T>;

  TargetKind kind;
  int targets;
  RowRole role;
  std::vector<T> logits[2];
  std::vector<U> directions[2];
  std::vector<A> lam;
  std::vector<int64_t> labels[2];
  RowSets sets{};
  ContrastTerms<A> terms{};
  Contrast<A> contrast{};
  std::vector<A> states, lse;
  std::vector<T> out[2], loss{1};

  // Zip pairing, or grid pairing with `n_retain` columns.
  static Problem mixed(int64_t n_forget, int64_t n_retain, bool grid, int64_t classes, TargetKind kind) {
    Problem p{kind, 2, RowRole::mixed};
    const int64_t rows = grid ? n_forget * n_retain : n_forget, columns = grid ? n_retain : 1;
    p.sets.first = p.rows_of(0, rows, classes);
    p.sets.first.targets[0] = p.target(0, n_forget, classes, grid ? n_retain : 1);
    p.sets.first.targets[1] = p.target(1, grid ? n_retain : n_forget, classes, 1);
    p.fill(p.lam, rows, 0, 1, 7);
    p.reserve();
    const int64_t terms = rows / columns;
    p.terms = {{p.states.data(), state_width(2), sim_slot(0), terms, columns},
               {p.states.data(), state_width(2), sim_slot(1), terms, columns},
               true};
    p.lse.resize(columns);
    p.contrast = {columns, {p.lam.data(), 1, A(0)}, {nullptr, 0, A(0.5)}, A(1.5), A(0.7), p.lse.data()};
    return p;
  }
  // The forget and the retain side of L_real.
  static Problem real(int64_t n_forget, int64_t n_retain, int64_t classes, TargetKind kind) {
    Problem p{kind, 1, RowRole::forget};
    p.sets = {p.rows_of(0, n_forget, classes), p.rows_of(1, n_retain, classes)};
    p.sets.first.targets[0] = p.target(0, n_forget, classes, 1);
    p.sets.second.targets[0] = p.target(1, n_retain, classes, 1);
    p.reserve();
    const A* second = p.states.data() + n_forget * state_width(1);
    p.terms = {{p.states.data(), state_width(1), sim_slot(0), n_forget, 1},
               {second, state_width(1), sim_slot(0), n_retain, 1},
               false};
    p.lse.resize(1);
    p.contrast = {1, {nullptr, 0, A(1)}, {nullptr, 0, A(0.5)}, static_cast<A>(n_retain), A(1), p.lse.data()};
    return p;
  }
  Problem(const Problem&) = delete;
  Problem(Problem&&) = default;

 private:
  Problem(TargetKind kind_, int targets_, RowRole role_) : kind(kind_), targets(targets_), role(role_) {}

  template <class V>
  void fill(std::vector<V>& values, int64_t count, double low, double high, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(low, high);
    values.resize(static_cast<size_t>(count));
    for (V& value : values) value = narrow<V>(static_cast<Acc<V>>(uniform(random)));
  }
  CosineRows rows_of(int k, int64_t rows, int64_t classes) {
    fill(logits[k], rows * classes, -6, 6, 1 + k);
    return {logits[k].data(), classes, rows, classes, {}, kind == TargetKind::teacher_logits ? 1 / 0.4 : 1};
  }
  TargetRows target(int k, int64_t count, int64_t classes, int64_t divisor) {
    const bool teacher = kind == TargetKind::teacher_logits;
    fill(directions[k], count * classes, teacher ? -3 : 0, teacher ? 3 : 1, 3 + k);
    for (int64_t n = 0; n < count; ++n) labels[k].push_back((7 * n + k) % classes);
    const bool labelled = kind == TargetKind::labels;
    const void* data = labelled ? static_cast<const void*>(labels[k].data()) : directions[k].data();
    return {data, labelled ? 0 : classes, divisor, std::max<int64_t>(1, count)};
  }
  void reserve() {
    states.resize(sets.rows() * state_width(targets));
    out[0].resize(logits[0].size());
    out[1].resize(logits[1].size());
  }
};

// States, loss and gradient by the CPU kernels.
template <class T, class U>
void run_cpu(Problem<T, U>& p) {
  using A = Acc<T>;
  const CosineKernels rows = kernels().cosine(dtype_of<T>, dtype_of<U>, p.kind, p.targets);
  const RowScalar<A> one = {nullptr, 0, A(1)};
  A* second = p.states.data() + p.sets.first.rows * state_width(p.targets);
  rows.forward(p.sets.first, 0, p.sets.first.rows, p.states.data(), nullptr);
  if (p.sets.second.rows > 0) rows.forward(p.sets.second, 0, p.sets.second.rows, second, nullptr);
  const A loss = reduce_columns(kernels().column<A>(), p.terms, p.contrast, p.lse.data(),
                                [](int64_t count, int64_t, const auto& body) {
                                  if (count > 0) body(0, count);
                                });
  p.loss[0] = narrow<T>(loss);
  rows.backward(p.sets.first, 0, p.sets.first.rows, p.states.data(), p.role, &p.contrast, &one, p.out[0].data());
  if (p.sets.second.rows > 0) {
    rows.backward(p.sets.second, 0, p.sets.second.rows, second, RowRole::retain, &p.contrast, &one, p.out[1].data());
  }
}

template <TargetKind kind, class T, class U>
void run_at_once(Problem<T, U>& p, bool with_gradient) {
  using A = Acc<T>;
  CHECK(fits_at_once(p.sets, p.terms, p.contrast));
  std::vector<ColumnSum<A>> partial(p.lse.size());
  emulator::launch(
      {1, block_threads, block_threads * sizeof(ColumnSum<A>)},
      {emulator::output("states", p.states), emulator::output("lse", p.lse), emulator::output("loss", p.loss),
       emulator::output("first", p.out[0]), emulator::output("second", p.out[1])},
      [&](emulator::Block& block) {
        at_once_body<T, U, kind>(block, p.sets, p.targets, p.role, p.terms, p.contrast, partial.data(), p.states.data(),
                                 p.lse.data(), p.loss.data(), with_gradient, p.out[0].data(), p.out[1].data());
      });
}

// The same by separate launches, each over both sets.
template <TargetKind kind, class T, class U>
void run_apart(Problem<T, U>& p) {
  using A = Acc<T>;
  constexpr int group = part_of_warp_threads;
  const RowScalar<A> one = {nullptr, 0, A(1)};
  const emulator::Launch shape = {std::max<int64_t>(1, ceil_div(p.sets.rows(), block_threads / group)), block_threads};
  emulator::launch(shape, {emulator::output("states", p.states)}, [&](emulator::Block& block) {
    cosine_forward_body<T, U, kind, group, 1>(block, p.sets, p.targets, p.states.data(), static_cast<T*>(nullptr));
  });
  emulator::launch(shape, {emulator::output("first", p.out[0]), emulator::output("second", p.out[1])},
                   [&](emulator::Block& block) {
                     cosine_backward_body<T, U, kind, group, 1>(block, p.sets, p.targets, p.states.data(), p.role,
                                                                p.contrast, one, p.out[0].data(), p.out[1].data());
                   });
}

// Both computed in the accumulation type, in another order, and then rounded to V.
template <class T, class V>
void same(const char* what, const std::vector<V>& actual, const std::vector<V>& expected) {
  const double eps = sizeof(Acc<T>) == 4 ? 2e-5 : 4e-14, rounding = sizeof(V) == 2 ? element_eps<V> : 0;
  CHECK_CLOSE(
      what, expected.size(), [&](size_t i) { return widen(actual[i]); }, [&](size_t i) { return widen(expected[i]); },
      [&](size_t i) {
        const double size = std::fabs(widen(expected[i]));
        return eps * (1 + size) + rounding * size;
      });
}

template <class V>
bool same_bits(const std::vector<V>& a, const std::vector<V>& b) {
  return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(V)) == 0);
}

// Without a teacher the fourth number of a target has no meaning.
template <class T, class U>
void forget_target_maxima(Problem<T, U>& p) {
  for (int64_t n = 0; n < p.sets.rows(); ++n) {
    for (int k = 0; k < p.targets; ++k) p.states[n * state_width(p.targets) + sim_slot(k) + 3] = Acc<T>(0);
  }
}

template <TargetKind kind, class Make>
void compare(const Make& make) {
  auto expected = make(), actual = make(), without = make(), apart = make();
  using T = typename decltype(expected.loss)::value_type;
  run_cpu(expected);
  run_at_once<kind>(actual, true);
  same<T>("loss", actual.loss, expected.loss);
  same<T>("log-sum-exp", actual.lse, expected.lse);
  if (kind != TargetKind::teacher_logits) {
    for (auto* p : {&expected, &actual}) forget_target_maxima(*p);
  }
  same<T>("states", actual.states, expected.states);
  for (int k : {0, 1}) same<T>("gradient", actual.out[k], expected.out[k]);
  const std::vector<T> untouched = without.out[0];
  run_at_once<kind>(without, false);
  CHECK(same_bits(without.loss, actual.loss) && same_bits(without.out[0], untouched));
  apart.lse = actual.lse;
  run_apart<kind>(apart);
  if (kind != TargetKind::teacher_logits) forget_target_maxima(apart);
  CHECK(same_bits(apart.states, actual.states));
  for (int k : {0, 1}) CHECK(same_bits(apart.out[k], actual.out[k]));
}

template <class T, TargetKind kind, class U = T>
void compare_kind() {
  using P = Problem<T, U>;
  check::Context what("kind ", static_cast<int>(kind), ", bytes ", sizeof(T), ", of a target ", sizeof(U));
  for (int64_t rows : {1, 32, 45}) {
    check::Context zip("zip, rows ", rows);
    compare<kind>([&] { return P::mixed(rows, rows, false, 10, kind); });
  }
  compare<kind>([] { return P::mixed(5, 5, false, 64, kind); });
  compare<kind>([] { return P::mixed(3, 9, true, 10, kind); });
  compare<kind>([] { return P::mixed(2, 32, true, 31, kind); });
  for (const auto& [forget, retain] : {std::pair<int64_t, int64_t>{32, 32}, {5, 40}, {3, 1}, {0, 4}, {4, 0}}) {
    check::Context real("real, forget ", forget, ", retain ", retain);
    compare<kind>([&, f = forget, r = retain] { return P::real(f, r, 10, kind); });
  }
  compare<kind>([] { return P::real(3, 7, 50, kind); });
}

template <class T>
void compare_halves() {
  compare_kind<T, TargetKind::labels>();
  compare_kind<T, TargetKind::probabilities>();
  compare_kind<T, TargetKind::probabilities, float>();
  compare_kind<T, TargetKind::teacher_logits>();
  compare_kind<T, TargetKind::teacher_logits, float>();
}

}  // namespace

TEST(probabilities_float) { compare_kind<float, TargetKind::probabilities>(); }
TEST(probabilities_double) { compare_kind<double, TargetKind::probabilities>(); }
TEST(labels) { compare_kind<float, TargetKind::labels>(); }
TEST(teacher_logits) { compare_kind<float, TargetKind::teacher_logits>(); }
TEST(bfloat16) { compare_halves<BFloat16>(); }
TEST(half) { compare_halves<Half>(); }

TEST(larger_problems_are_left_to_separate_launches) {
  const auto fits = [](int64_t rows, int64_t classes, int64_t columns) {
    RowSets sets{};
    sets.first.rows = rows;
    sets.first.classes = classes;
    ContrastTerms<float> terms{};
    terms.forget.terms = terms.retain.terms = columns > 0 ? rows / columns : 0;
    Contrast<float> contrast{};
    contrast.columns = columns;
    return fits_at_once(sets, terms, contrast);
  };
  CHECK(fits(32, 10, 1) && fits(0, 10, 1) && fits(32, 64, 1) && fits(64, 10, 32));
  CHECK(!fits(205, 10, 1) && !fits(2, 65, 1) && !fits(64, 10, 64) && !fits(8192, 1, 1));
}

TEST_MAIN
