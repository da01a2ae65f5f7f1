// The coupling of the rows: log-sum-exp per column and the loss, on the CPU and as CUDA bodies on the emulator.
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cpu/losses.h"
#include "cuda/launch_plan.h"
#include "cuda/losses_columns.cuh"
#include "emulator.h"
#include "reference.h"
#include "tables.h"

using namespace pmx;

namespace {

// Row states in which only s is set, and lam for each row.
template <class A>
struct Case {
  std::vector<A> forget, retain, lam;
  ContrastTerms<A> terms;
  Contrast<A> contrast;

  // Mixed: `columns` columns of `terms_per_column` rows that carry both sides.
  Case(int64_t terms_per_column, int64_t columns) {
    const int width = state_width(2);
    const int64_t rows = terms_per_column * columns;
    fill(forget, rows * width);
    fill(lam, rows);
    terms = {{forget.data(), width, sim_slot(0), terms_per_column, columns},
             {forget.data(), width, sim_slot(1), terms_per_column, columns},
             true};
    contrast = {columns, {lam.data(), 1, A(0)}, {nullptr, 0, A(0.5)}, A(1.25), A(0.75), nullptr};
  }
  // L_real: separate rows, one column.
  Case(int64_t n_forget, int64_t n_retain, std::nullptr_t) {
    const int width = state_width(1);
    fill(forget, n_forget * width);
    fill(retain, n_retain * width);
    terms = {{forget.data(), width, sim_slot(0), n_forget, 1}, {retain.data(), width, sim_slot(0), n_retain, 1}, false};
    contrast = {1, {nullptr, 0, A(1)}, {nullptr, 0, A(0.5)}, A(n_retain), A(1), nullptr};
  }
  Case(const Case&) = delete;

  void fill(std::vector<A>& values, int64_t count) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::uniform_real_distribution<A> uniform(0, 1);
    values.resize(static_cast<size_t>(count));
    for (A& value : values) value = uniform(random);
  }

  // Column by column, from the definition.
  double expected(std::vector<double>& lse) const {
    double loss = 0;
    for (int64_t c = 0; c < contrast.columns; ++c) {
      reference::Row scaled;
      double retained = 0;
      for (int64_t i = 0; i < terms.forget.terms; ++i) {
        const int64_t row = i * terms.forget.row_step + c;
        const double weight = terms.mixed ? lam[row] : 1;
        scaled.push_back(weight * terms.forget.states[row * terms.forget.width + terms.forget.slot] / 0.5);
      }
      for (int64_t i = 0; i < terms.retain.terms; ++i) {
        const int64_t row = i * terms.retain.row_step + c;
        const double weight = terms.mixed ? 1 - static_cast<double>(lam[row]) : 1;
        retained += weight * terms.retain.states[row * terms.retain.width + terms.retain.slot];
      }
      lse.push_back(reference::logsumexp(scaled));
      loss += contrast.retain_weight * retained - contrast.forget_weight * lse.back();
    }
    return loss;
  }
};

template <class A>
void verify(const Case<A>& c, double loss, const std::vector<A>& lse) {
  std::vector<double> true_lse;
  const double expected = c.expected(true_lse);
  const double eps = sizeof(A) == 4 ? 1.2e-7 : 2.3e-16;
  const double allowed = 64 * eps * (std::fabs(expected) + 1 + double(c.terms.retain.terms) * 0.01);
  CHECK_CLOSE(
      "loss", 1, [&](size_t) { return loss; }, [&](size_t) { return expected; }, [&](size_t) { return allowed; });
  CHECK_CLOSE(
      "log-sum-exp", lse.size(), [&](size_t i) { return lse[i]; }, [&](size_t i) { return true_lse[i]; },
      [&](size_t i) { return 32 * eps * (1 + std::fabs(true_lse[i])); });
}

template <class A>
void run_cpu(const Case<A>& c) {
  for (const auto& [isa, table] : cpu::tables()) {
    check::Context what(isa);
    std::vector<A> lse(c.contrast.columns), again(c.contrast.columns);
    const A loss = reduce_columns(table->template column<A>(), c.terms, c.contrast, lse.data(),
                                  [](int64_t count, int64_t, const auto& body) {
                                    if (count > 0) body(0, count);
                                  });
    verify(c, loss, lse);
    // Cut into single pieces, in reverse: not a bit may change.
    const A other = reduce_columns(table->template column<A>(), c.terms, c.contrast, again.data(),
                                   [](int64_t count, int64_t, const auto& body) {
                                     for (int64_t i = count; i-- > 0;) body(i, i + 1);
                                   });
    CHECK(loss == other && lse == again);
  }
}

template <class A, int tile>
void run_emulated(const Case<A>& c) {
  const int64_t longest = std::max(c.terms.forget.terms, c.terms.retain.terms);
  const int64_t stretches = longest > device_stretch ? ceil_div(longest, device_stretch) : 1;
  std::vector<ColumnSum<A>> partial(static_cast<size_t>(c.contrast.columns * stretches));
  std::vector<A> lse(c.contrast.columns), loss(1);
  emulator::launch(
      {stretches * ceil_div(c.contrast.columns, tile), block_threads, block_threads * sizeof(ColumnSum<A>)},
      {emulator::output("partial", partial)}, [&](emulator::Block& block) {
        column_sums_body<A, tile>(block, c.terms, c.contrast, stretches, partial.data());
      });
  emulator::launch({1, block_threads, block_threads * sizeof(A)},
                   {emulator::output("lse", lse), emulator::output("loss", loss)}, [&](emulator::Block& block) {
                     column_losses_body<A>(block, c.contrast, stretches, partial.data(), lse.data(), loss.data());
                   });
  verify(c, loss[0], lse);
}

template <class A>
void run_all() {
  for (int64_t terms : {1, 2, 31, 257, 5000}) {
    check::Context what("zip, rows ", terms, ", bytes ", sizeof(A));
    const Case<A> c(terms, 1);
    run_cpu(c);
    run_emulated<A, 1>(c);
  }
  for (const auto& [terms, columns] : {std::pair<int64_t, int64_t>{1, 2}, {5, 33}, {40, 7}, {3, 300}, {4100, 3}}) {
    check::Context what("grid, forget ", terms, ", retain ", columns, ", bytes ", sizeof(A));
    const Case<A> c(terms, columns);
    run_cpu(c);
    run_emulated<A, warp_size>(c);
  }
  for (const auto& [forget, retain] : {std::pair<int64_t, int64_t>{1, 1}, {9, 21}, {300, 2}, {0, 5}, {5, 0}, {0, 0}}) {
    check::Context what("real, forget ", forget, ", retain ", retain, ", bytes ", sizeof(A));
    const Case<A> c(forget, retain, nullptr);
    run_cpu(c);
    run_emulated<A, 1>(c);
  }
}

}  // namespace

TEST(float_sums) { run_all<float>(); }
TEST(double_sums) { run_all<double>(); }

// Two parts whose maxima lie far apart, so that a part that is not rescaled is seen, whichever of them it is.
TEST(parts_of_a_log_sum_exp_are_both_rescaled) {
  for (const auto& x : {reference::Row{-3, 0.5, -2, 6, 5, 6.5}, reference::Row{6, 5, 6.5, -3, 0.5, -2},
                        reference::Row{-1e3, -999, 1e3, 1001}, reference::Row{2, 2, 2, 2}}) {
    const double expected = reference::logsumexp(x);
    for (size_t cut = 0; cut <= x.size(); ++cut) {
      check::Context what("cut at ", cut, " of ", x.size());
      LogSumExp<double> parts[2] = {LogSumExp<double>::empty(), LogSumExp<double>::empty()};
      for (size_t i = 0; i < x.size(); ++i) parts[i >= cut].add(x[i]);
      LogSumExp<double> joined = parts[0];
      joined.merge(parts[1]);
      CHECK(std::fabs(joined.value() - expected) <= 1e-13 * std::fabs(expected));
      parts[1].merge(parts[0]);
      CHECK(std::fabs(parts[1].value() - expected) <= 1e-13 * std::fabs(expected));
    }
  }
}

TEST(a_nan_ends_in_the_sum) {
  LogSumExp<float> sum = LogSumExp<float>::empty();
  sum.add(1.f);
  sum.add(NAN);
  sum.add(2.f);
  CHECK(std::isnan(sum.value()));
  LogSumExp<float> clean = LogSumExp<float>::empty();
  clean.add(3.f);
  clean.merge(sum);
  CHECK(std::isnan(clean.value()));
}

TEST_MAIN
