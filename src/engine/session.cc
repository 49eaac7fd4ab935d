#include <fmt/format.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/session_limits.h"

namespace hetero {

Session::Session(Engine& engine, std::unique_ptr<Executor> executor)
    : engine_(engine), executor_(std::move(executor)) {}

Result<const LinkedPlan*> Session::plan(bool head, int64_t tokens) {
  const LinkedPlan*& linked = plans_[{head, tokens}];
  if (linked == nullptr) {
    const Selection& s = engine_.selection_;
    StrategyOptions options;
    options.npu_share = engine_.options_.npu_share;
    HETERO_TRY(const Plan plan, make_plan(engine_.graph_, s.strategy, s.team, head, tokens, options));
    const auto& progress = engine_.options_.progress;
    HETERO_TRY(linked, executor_->prepare(plan, [&](int done, int total) {
      if (progress) {
        progress(fmt::format("compiling for {} {}", tokens, tokens == 1 ? "token" : "tokens"), done, total);
      }
    }));
  }
  return linked;
}

Status Session::prepare(int64_t tokens) {
  if (engine_.selection_.strategy == Strategy::kNpuOnline) {
    return {};
  }
  for (const int64_t pass : {int64_t{1}, std::min(tokens, kMaxPassTokens), tokens % kMaxPassTokens}) {
    if (pass > 0) {
      HETERO_TRY([[maybe_unused]] const LinkedPlan* const body, plan(false, pass));
    }
  }
  HETERO_TRY([[maybe_unused]] const LinkedPlan* const head, plan(true, 1));
  return {};
}

Status Session::check(std::span<const TokenId> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= engine_.graph_.shape.vocabulary) {
      return invalid_argument(fmt::format("token {} is {}, but the model has ids 0 to {}", i, ids[i],
                                          engine_.graph_.shape.vocabulary - 1));
    }
  }
  if (static_cast<int64_t>(ids.size()) > free_context()) {
    return resource_exhausted(
        fmt::format("the context is full: {} tokens do not fit after {} in a context of {} "
                    "(-c sets it, the model allows {})",
                    ids.size(), tokens_.size(), engine_.context_, engine_.graph_.shape.context));
  }
  return {};
}

Status Session::body(std::span<const TokenId> ids, const std::atomic<bool>* cancel) {
  HETERO_TRY(const LinkedPlan* const linked, plan(false, static_cast<int64_t>(ids.size())));
  std::copy(ids.begin(), ids.end(), executor_->ids().begin());
  HETERO_RETURN_IF_ERROR(executor_->run(*linked, static_cast<int64_t>(tokens_.size()), 0, cancel));
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  return {};
}

Status Session::feed(std::span<const TokenId> ids, const std::atomic<bool>* cancel) {
  HETERO_RETURN_IF_ERROR(check(ids));
  int64_t rows = 0;
  while (!ids.empty()) {
    rows = std::min(static_cast<int64_t>(ids.size()), kMaxPassTokens);
    HETERO_RETURN_IF_ERROR(body(ids.first(static_cast<size_t>(rows)), cancel));
    ids = ids.subspan(static_cast<size_t>(rows));
  }
  if (rows == 0) {
    return {};
  }
  HETERO_TRY(const LinkedPlan* const head, plan(true, 1));
  return executor_->run(*head, 0, rows - 1);
}

std::span<const float> Session::logits() const {
  return {executor_->logits(), static_cast<size_t>(engine_.graph_.shape.vocabulary)};
}

Status Session::feed_with_logits(std::span<const TokenId> ids,
                                 const std::function<void(size_t, std::span<const float>)>& row) {
  HETERO_RETURN_IF_ERROR(check(ids));
  const auto vocabulary = static_cast<size_t>(engine_.graph_.shape.vocabulary);
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(kMaxPassTokens)) {
    const auto part = ids.subspan(begin, std::min(ids.size() - begin, static_cast<size_t>(kMaxPassTokens)));
    HETERO_RETURN_IF_ERROR(body(part, nullptr));
    for (int64_t first = 0; first < static_cast<int64_t>(part.size()); first += kMaxHeadRows) {
      const int64_t rows = std::min(static_cast<int64_t>(part.size()) - first, kMaxHeadRows);
      HETERO_TRY(const LinkedPlan* const head, plan(true, rows));
      HETERO_RETURN_IF_ERROR(executor_->run(*head, 0, first));
      for (int64_t i = 0; i < rows; ++i) {
        row(begin + static_cast<size_t>(first + i),
            {executor_->logits() + static_cast<size_t>(i) * vocabulary, vocabulary});
      }
    }
  }
  return {};
}

void Session::truncate(int64_t count) {
  tokens_.resize(std::min(tokens_.size(), static_cast<size_t>(count)));
}

int64_t Session::keep_common_prefix(std::span<const TokenId> ids) {
  const size_t limit = std::min(tokens_.size(), ids.empty() ? 0 : ids.size() - 1);
  size_t common = 0;
  while (common < limit && tokens_[common] == ids[common]) {
    ++common;
  }
  tokens_.resize(common);
  return static_cast<int64_t>(common);
}

}  // namespace hetero
