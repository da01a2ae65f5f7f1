// The launchers of the losses and of sharpen, against the equations in double precision (tests/cpp/reference.h).
#include "core/losses.h"

#include <cmath>

#include "cases.h"
#include "reference.h"

namespace pmx::ptx {
namespace {

using reference::Row;

enum class Loss { zip, grid, real };

struct Problem {
  Loss loss;
  int64_t n_forget, n_retain, classes;
  Dtype dtype, target_dtype;
  TargetKind kind;
  int64_t shift;
  const char* bench = nullptr;  // the case of the benches that it stands for
};

// Launches from here on as the counts of a case: `arrays` of the size of the logits are read and written.
void count_rows(const char* bench, Dtype dtype, const char* mode, int64_t elements, int64_t arrays) {
  const std::string name = bench != nullptr ? std::string(bench) + " " + ptx::name_of(dtype) : "";
  count_as(name, mode, elements, arrays * elements * static_cast<int64_t>(size_of(dtype)));
}

constexpr double lam = 0.3, tau = 0.7, inverse_T = 2;

Row row_of(const Array& array, int64_t row, int64_t classes) {
  Row values;
  for (int64_t j = 0; j < classes; ++j) values.push_back(array[row * classes + j]);
  return values;
}

// Targets of one side as the kernels read them and as rows of numbers.
struct Targets {
  Array values;
  std::vector<int64_t> drawn;
  void* data;
  std::vector<Row> rows;

  Targets(const Problem& p, int64_t count)
      : values(random_array(p.kind == TargetKind::labels ? 0 : count * p.classes, p.target_dtype, 2, p.shift)),
        data(values.data()) {
    if (p.kind == TargetKind::labels) {
      auto* labels = static_cast<int64_t*>(guarded(static_cast<size_t>(count) * sizeof(int64_t)));
      data = labels;
      for (int64_t n = 0; n < count; ++n) {
        labels[n] = random_below(p.classes);
        rows.emplace_back(static_cast<size_t>(p.classes), 0.0);
        rows.back()[static_cast<size_t>(labels[n])] = 1;
      }
      return;
    }
    for (int64_t n = 0; n < count; ++n) {
      const Row drawn_row = row_of(values, n, p.classes);
      if (p.kind == TargetKind::teacher_logits) {
        rows.push_back(reference::softmax(drawn_row, 1 / inverse_T));
        continue;
      }
      const Row probabilities = reference::softmax(drawn_row);
      for (int64_t j = 0; j < p.classes; ++j) values.set(n * p.classes + j, probabilities[static_cast<size_t>(j)]);
      rows.push_back(row_of(values, n, p.classes));
    }
  }
};

// Adds weight * ds/dz of a row to its place in `to`.
void add_gradient(std::vector<double>& to, int64_t row, const Row& z, const Row& target, double weight) {
  const Row gradient = reference::sim_gradient(z, target);
  for (size_t j = 0; j < z.size(); ++j) to[static_cast<size_t>(row) * z.size() + j] += weight * gradient[j];
}

// What a loss with reduction "mean" is, and its gradients for the first and the second set of rows.
struct Expected {
  double loss = 0;
  std::vector<double> first, second;
};

// One column: rows of the forget and of the retain side, and where their gradients go.
struct Column {
  std::vector<int64_t> forget_rows, retain_rows;
  double forget_weight, retain_weight, rate;
};

Expected equations(const Problem& p, const Array& z, const Array& z_retain, const Targets& forget,
                   const Targets& retain) {
  Expected expected;
  expected.first.resize(static_cast<size_t>(z.count()));
  expected.second.resize(static_cast<size_t>(z_retain.count()));
  const bool real = p.loss == Loss::real, grid = p.loss == Loss::grid;
  const double scale = 1.0 / static_cast<double>(p.n_retain);
  std::vector<Column> columns(grid ? static_cast<size_t>(p.n_retain) : 1);
  for (Column& column : columns) {
    column.forget_weight = grid ? scale : 1;
    column.retain_weight = scale * (real ? 1 : 1 - lam) / (grid ? static_cast<double>(p.n_forget) : 1);
    column.rate = (real ? 1 : lam) / tau;
  }
  const int64_t rows = z.count() / p.classes;
  for (int64_t n = 0; n < rows; ++n) {
    Column& column = columns[grid ? static_cast<size_t>(n % p.n_retain) : 0];
    column.forget_rows.push_back(n);
    if (!real) column.retain_rows.push_back(n);
  }
  for (int64_t n = 0; real && n < p.n_retain; ++n) columns[0].retain_rows.push_back(n);

  for (const Column& column : columns) {
    Row scaled;
    const auto forget_target = [&](int64_t n) { return forget.rows[static_cast<size_t>(grid ? n / p.n_retain : n)]; };
    const auto retain_target = [&](int64_t n) { return retain.rows[static_cast<size_t>(grid ? n % p.n_retain : n)]; };
    for (int64_t n : column.forget_rows) {
      scaled.push_back(column.rate * reference::sim(row_of(z, n, p.classes), forget_target(n)));
    }
    const double lse = reference::logsumexp(scaled);
    expected.loss -= column.forget_weight * lse;
    for (size_t i = 0; i < scaled.size(); ++i) {
      const int64_t n = column.forget_rows[i];
      const double weight = -column.forget_weight * column.rate * std::exp(scaled[i] - lse);
      add_gradient(expected.first, n, row_of(z, n, p.classes), forget_target(n), weight);
    }
    for (int64_t n : column.retain_rows) {
      const Row logits = row_of(real ? z_retain : z, n, p.classes);
      expected.loss += column.retain_weight * reference::sim(logits, retain_target(n));
      add_gradient(real ? expected.second : expected.first, n, logits, retain_target(n), column.retain_weight);
    }
  }
  return expected;
}

template <class A>
void launch(const Problem& p, const RowSets& sets, const Array& loss, const Array& first, const Array& second) {
  const bool real = p.loss == Loss::real;
  const Pairs pairs = {p.n_forget, p.n_retain, p.loss == Loss::grid};
  const int targets = real ? 1 : 2;
  const int64_t states_end = sets.rows() * state_width(targets);
  const Array memory(states_end + (real ? 1 : pairs.columns()), accumulation(p.dtype));
  A* states = static_cast<A*>(memory.data());
  A* lse = states + states_end;
  const RowScalar<A> of_tau = {nullptr, 0, A(tau)}, of_lam = {nullptr, 0, A(lam)};
  const auto contrast =
      real ? real_contrast<A>(p.n_retain, of_tau, true, lse) : mix_contrast<A>(pairs, of_lam, of_tau, true, lse);
  const auto terms = real ? real_terms<A>(states, p.n_forget, states + p.n_forget * state_width(1), p.n_retain)
                          : mix_terms<A>(pairs, states);
  const cuda::RowsLaunch rows = {
      sets, p.dtype, p.target_dtype, p.kind, targets, real ? RowRole::forget : RowRole::mixed, nullptr};
  void* scratch = guarded(static_cast<size_t>(cuda::reduce_scratch(terms, contrast)));

  expect_outputs({loss.output("loss"), first.output("gradient"), second.output("gradient of the retain rows")});
  const bool one_launch =
      cuda::at_once(rows, terms, contrast, states, lse, loss.data(), scratch, true, first.data(), second.data());
  check_launch("the loss in one launch");
  if (one_launch) return;
  const int64_t elements = sets.rows() * p.classes;
  const int own_targets = p.loss == Loss::grid ? 0 : targets;  // a grid has far more pairs than targets
  expect_outputs({memory.output("states")});
  count_rows(p.bench, p.dtype, "forward", elements, 1 + own_targets);
  cuda::cosine_forward(rows, states, nullptr);
  check_launch("the forward");
  expect_outputs({loss.output("loss")});
  count_as("");  // one value for each row: next to nothing beside many rows, and far more than its share beside few
  cuda::reduce(terms, contrast, lse, loss.data(), p.dtype, scratch, nullptr);
  check_launch("the columns");
  count_rows(p.bench, p.dtype, "backward", elements, 2 + own_targets);
  expect_outputs({first.output("gradient"), second.output("gradient of the retain rows")});
  cuda::cosine_backward(rows, static_cast<const A*>(states), contrast, RowScalar<A>{nullptr, 0, A(1)}, first.data(),
                        second.data());
  check_launch("the backward");
}

void check(const Problem& p) {
  const bool real = p.loss == Loss::real, grid = p.loss == Loss::grid;
  const int64_t rows = grid ? p.n_forget * p.n_retain : p.n_forget;
  const Array z = random_array(rows * p.classes, p.dtype, 2, p.shift);
  const Array z_retain = random_array(real ? p.n_retain * p.classes : 0, p.dtype, 2, p.shift);
  const Targets forget(p, p.n_forget), retain(p, p.n_retain);
  const Array loss(1, p.dtype), first(z.count(), p.dtype), second(z_retain.count(), p.dtype);
  const Pairs pairs = {p.n_forget, p.n_retain, grid};
  const int64_t stride = p.classes;
  RowSets sets{};
  const TargetRows of_forget = {forget.data, stride, real ? 1 : pairs.forget_divisor(), p.n_forget};
  const TargetRows of_retain = {retain.data, stride, 1, p.n_retain};
  sets.first = {z.data(), stride, rows, p.classes, {of_forget, of_retain}, inverse_T};
  if (real) sets.second = {z_retain.data(), stride, p.n_retain, p.classes, {of_retain, {}}, inverse_T};
  p.dtype == Dtype::f64 ? launch<double>(p, sets, loss, first, second) : launch<float>(p, sets, loss, first, second);

  const Expected expected = equations(p, z, z_retain, forget, retain);
  compare("loss", loss, {expected.loss}, tolerance(p.dtype));
  compare("gradient", first, expected.first, 2 * tolerance(p.dtype));
  if (real) compare("gradient of the retain rows", second, expected.second, 2 * tolerance(p.dtype));
}

void check_sim(const Problem& p) {
  const Array z = random_array(p.n_forget * p.classes, p.dtype, 2, p.shift);
  const Targets target(p, p.n_forget);
  RowSets sets{};
  sets.first = {z.data(), p.classes, p.n_forget, p.classes, {{target.data, p.classes, 1, p.n_forget}, {}}, inverse_T};
  const cuda::RowsLaunch rows = {sets, p.dtype, p.target_dtype, p.kind, 1, RowRole::sim, nullptr};
  const Array states(p.n_forget * state_width(1), accumulation(p.dtype)), sim(p.n_forget, p.dtype),
      out(z.count(), p.dtype);
  const Array grad = random_array(p.n_forget, accumulation(p.dtype));
  expect_outputs({states.output("states"), sim.output("losses")});
  count_rows(p.bench, p.dtype, "forward", z.count(), 2);
  cuda::cosine_forward(rows, states.data(), sim.data());
  check_launch("the forward");
  expect_outputs({out.output("gradient")});
  count_rows(p.bench, p.dtype, "backward", z.count(), 3);
  const auto backward = [&](auto zero) {
    using A = decltype(zero);
    const RowScalar<A> incoming = {static_cast<const A*>(grad.data()), 1, A(0)};
    cuda::cosine_backward(rows, static_cast<const A*>(states.data()), Contrast<A>{}, incoming, out.data(), nullptr);
  };
  p.dtype == Dtype::f64 ? backward(double{}) : backward(float{});
  check_launch("the backward");
  std::vector<double> values, gradient(static_cast<size_t>(z.count()));
  for (int64_t n = 0; n < p.n_forget; ++n) {
    const Row logits = row_of(z, n, p.classes);
    values.push_back(reference::sim(logits, target.rows[static_cast<size_t>(n)]));
    add_gradient(gradient, n, logits, target.rows[static_cast<size_t>(n)], grad[n]);
  }
  compare("losses", sim, values, tolerance(p.dtype));
  compare("gradient", out, gradient, 2 * tolerance(p.dtype));
}

void check_sharpen(int64_t rows, int64_t classes, Dtype dtype, const char* bench = nullptr) {
  const Array z = random_array(rows * classes, dtype), grad = random_array(rows * classes, dtype);
  const Array out(z.count(), dtype), gradient(z.count(), dtype);
  expect_outputs({out.output("probabilities")});
  count_rows(bench, dtype, "forward", z.count(), 2);
  cuda::sharpen_forward(dtype, z.data(), rows, classes, inverse_T, out.data(), nullptr);
  check_launch("the forward");
  expect_outputs({gradient.output("gradient")});
  count_rows(bench, dtype, "backward", z.count(), 3);
  cuda::sharpen_backward(dtype, grad.data(), z.data(), rows, classes, inverse_T, gradient.data(), nullptr);
  check_launch("the backward");
  std::vector<double> probabilities, of_logits;
  for (int64_t n = 0; n < rows; ++n) {
    const Row p = reference::softmax(row_of(z, n, classes), 1 / inverse_T), g = row_of(grad, n, classes);
    const double mean = reference::dot(p, g);
    for (size_t j = 0; j < p.size(); ++j) {
      probabilities.push_back(p[j]);
      of_logits.push_back(inverse_T * p[j] * (g[j] - mean));
    }
  }
  compare("probabilities", out, probabilities, tolerance(dtype));
  compare("gradient", gradient, of_logits, tolerance(dtype));
}

std::string name_of(const Problem& p) {
  constexpr const char* losses[] = {"zip ", "grid ", "real "};
  constexpr const char* kinds[] = {"probabilities", "labels", "teacher's logits"};
  return losses[static_cast<int>(p.loss)] + std::string(ptx::name_of(p.dtype)) + ", " + std::to_string(p.n_forget) +
         " and " + std::to_string(p.n_retain) + " rows of " + std::to_string(p.classes) + ", " +
         kinds[static_cast<int>(p.kind)] + " in " + ptx::name_of(p.target_dtype) + (p.shift > 0 ? ", shifted" : "");
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const auto add = [&](const Problem& p) { cases.push_back({name_of(p), [=] { check(p); }}); };
  for (Dtype dtype : dtypes) {
    std::vector<Dtype> target_dtypes = {dtype};
    if (size_of(dtype) == 2) target_dtypes.push_back(Dtype::f32);
    for (Dtype target : target_dtypes) {
      for (TargetKind kind : {TargetKind::probabilities, TargetKind::labels, TargetKind::teacher_logits}) {
        if (kind == TargetKind::labels && target != dtype) continue;
        // Part of a warp for each row; a warp, in packs and element by element; a whole block: small ones in one
        // launch, the others apart.
        for (int64_t classes : {10, 96, 101, 8200}) {
          add({Loss::zip, 5, 5, classes, dtype, target, kind, 0});
          const int64_t many = classes == 10 ? 830 : classes < 200 ? 90 : 2;
          const Problem apart = {Loss::zip, many, many, classes, dtype, target, kind, 0};
          add(apart);
          cases.push_back({"sim, " + name_of(apart), [=] { check_sim(apart); }});
        }
        add({Loss::zip, 5, 5, 96, dtype, target, kind, 1});
        add({Loss::grid, 3, 5, 10, dtype, target, kind, 0});
        add({Loss::real, 3, 5, 101, dtype, target, kind, 0});
      }
    }
    add({Loss::grid, 37, 41, 12, dtype, dtype, TargetKind::probabilities, 0});
    for (int64_t classes : {10, 96, 101, 8200, 8201}) {
      cases.push_back({"sharpen " + std::string(ptx::name_of(dtype)) + ", rows of " + std::to_string(classes),
                       [=] { check_sharpen(5, classes, dtype); }});
    }
  }
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const auto named = [&](const char* bench) { return "bench " + std::string(bench) + " " + ptx::name_of(dtype); };
    const auto kind = TargetKind::probabilities;
    const auto bench = [&](const Problem& p) { cases.push_back({named(p.bench), [=] { check(p); }}); };
    bench({Loss::zip, 64, 64, 1000, dtype, dtype, kind, 0, "mix_contrastive_loss zip 1000"});
    bench({Loss::grid, 8, 8, 1000, dtype, dtype, kind, 0, "mix_contrastive_loss grid 1000"});
    bench({Loss::real, 32, 32, 1000, dtype, dtype, kind, 0, "real_contrastive_loss 1000"});
    const Problem sim = {Loss::zip, 64, 64, 1000, dtype, dtype, kind, 0, "sim_loss 1000"};
    cases.push_back({named(sim.bench), [=] { check_sim(sim); }});
    cases.push_back({named("sharpen 1000"), [=] { check_sharpen(64, 1000, dtype, "sharpen 1000"); }});
    cases.push_back({named("sharpen 10000"), [=] { check_sharpen(4, 10000, dtype, "sharpen 10000"); }});
  }
  add({Loss::real, 5000, 4100, 10, Dtype::f64, Dtype::f64, TargetKind::probabilities, 0});  // several stretches
  return cases;
}

}  // namespace pmx::ptx
