#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "engine/passes.h"
#include "plan/replace.h"

namespace hetero {

namespace {

/// A ratio that is off by less is not worth new graphs.
constexpr double kSmallestChange = 0.03;

/// Each prompt's length has a plan of its own.
constexpr size_t kMostPlans = 64;

/// Whether a retry by other processors makes sense.
bool is_failure(const Status& status) {
  return status.code() == Code::kDeviceLost || status.code() == Code::kResourceExhausted ||
         status.code() == Code::kUnavailable;
}

}  // namespace

Session::Session(Engine& engine, std::unique_ptr<Executor> executor)
    : engine_(engine),
      executor_(std::move(executor)),
      dropped_(engine.dropped().size()),
      npu_share_{engine.options_.npu_share, engine.options_.npu_share} {}

Session::~Session() = default;

Result<const LinkedPlan*> Session::plan(const Key& key) {
  Planned& planned = plans_[key];
  planned.used = ++uses_;
  if (planned.whole) {
    return planned.linked;
  }
  HETERO_RETURN_IF_ERROR(link(key, planned));
  return plans_[key].linked;  // plans_ may have been cleared meanwhile
}

/// One that was made to choose passes by is not made again.
Result<Plan> Session::make_plan(const Key& key) {
  const auto made = pass_plans_.find(key.tokens);
  return !key.head && !key.all_rows && made != pass_plans_.end() && !made->second.steps.empty()
             ? made->second
             : engine_.make_plan(key.head, key.tokens, key.all_rows, share(key.tokens));
}

Status Session::link(const Key& key, Planned& planned) {
  if (!planned.wanted) {
    HETERO_TRY(planned.wanted, make_plan(key));
  }
  const Plan& wanted = *planned.wanted;
  const std::vector<Compilation> missing = behind_ ? executor_->missing(wanted) : std::vector<Compilation>();
  if (missing.empty()) {
    const auto& progress = engine_.options_.progress;
    HETERO_TRY(planned.linked, executor_->prepare(wanted, [&, n = key.tokens](int done, int total) {
      if (progress) {
        progress(fmt::format("compiling for {} {}", n, n == 1 ? "token" : "tokens"), done, total);
      }
    }));
    planned.whole = true;
    if (compiler_ != nullptr && compiler_->idle()) {
      // Others that were linked while graphs were missing are linked anew when they are needed.
      std::erase_if(plans_, [&](const auto& entry) { return !entry.second.whole; });
    }
    keep_plans();
    return {};
  }
  if (const CompileThread::Failure failure = compiler().take_failure(); failure.processor != nullptr) {
    compiler_->clear();
    HETERO_RETURN_IF_ERROR(engine_.drop(failure.processor->info().id, failure.status));
    HETERO_RETURN_IF_ERROR(follow_engine(nullptr));
    return link(key, plans_[key]);
  }
  if (planned.linked == nullptr) {
    compiler_->add(missing);
  } else {
    // Linking costs about as much as a token, so graphs are taken over in a few lots.
    const int made = compiler_->done() - planned.seen;
    if (made <= static_cast<int>(missing.size()) / 4) {
      return {};
    }
  }
  planned.seen = compiler_->done();
  const Plan so_far = replace_operators(
      engine_.graph_, wanted,
      [&](const Step& step) {
        return std::none_of(missing.begin(), missing.end(), [&](const Compilation& c) {
          return c.processor->info().id == wanted.processors[static_cast<size_t>(step.processor)] &&
                 c.op == step.op && c.begin == step.out_begin && c.end == step.out_end &&
                 c.tokens == step.padded && c.exchanged == step.exchanged;
        });
      },
      [&](int op) { return engine_.stand_in_for(op); });
  HETERO_TRY(planned.linked, executor_->prepare(so_far));
  keep_plans();
  return {};
}

CompileThread& Session::compiler() {
  if (compiler_ == nullptr) {
    compiler_ = std::make_unique<CompileThread>(executor_->executables());
  }
  return *compiler_;
}

/// Forgets plans that have not been in use for long, and gives memory back: what was compiled for plans
/// that are gone, and pages of the file of which decoding only uses copies.
void Session::keep_plans() {
  while (plans_.size() > kMostPlans) {
    plans_.erase(std::min_element(plans_.begin(), plans_.end(), [](const auto& a, const auto& b) {
      return a.second.used < b.second.used;
    }));
  }
  std::vector<const LinkedPlan*> used;
  for (const auto& [key, planned] : plans_) {
    used.push_back(planned.linked);
  }
  executor_->keep_only(used);
  copied_ = executor_->copied_weights();
  release_copied();
}

void Session::release_copied() {
  for (const Executor::WeightPart& part : copied_) {
    engine_.file_->release(part.begin, part.size);
  }
}

std::pair<int, int> Session::compiling() const {
  return compiler_ == nullptr ? std::pair(0, 0) : std::pair(compiler_->done(), compiler_->total());
}

int64_t Session::rows_of_next_pass(int64_t left) {
  return next_pass(left, [this](int64_t rows) {
    auto found = pass_plans_.find(rows);
    if (found == pass_plans_.end()) {
      if (pass_plans_.size() >= kMostPlans) {
        pass_plans_.clear();
      }
      auto plan = engine_.make_plan(false, rows, false, share(rows));
      found = pass_plans_.emplace(rows, plan.ok() ? *std::move(plan) : Plan()).first;
    }
    return found->second.predicted;
  });
}

Status Session::prepare(int64_t tokens) {
  if (engine_.selection_.strategy == Strategy::kNpuOnline) {
    return {};
  }
  // What comes first is compiled first: with a prompt of one pass, the first token needs no graph any
  // more when the first one is ready.
  std::vector<Key> keys = {{false, 1}, {true, 1}};
  const auto at = tokens > kMaxPassTokens ? keys.begin() : keys.end();
  std::vector<Key> prefill;
  for (int64_t left = tokens, pass = 0; left > 0; left -= pass) {
    pass = rows_of_next_pass(left);
    if (pass > 1 && std::find(prefill.begin(), prefill.end(), Key{false, pass}) == prefill.end()) {
      prefill.emplace_back(false, pass);
    }
  }
  keys.insert(at, prefill.begin(), prefill.end());
  behind_ = engine_.options_.compile == EngineOptions::Compile::kBehind;
  for (const Key& key : keys) {
    if (engine_.options_.compile != EngineOptions::Compile::kAuto) {
      break;
    }
    std::optional<Plan>& wanted = plans_[key].wanted;  // plan() below goes on from it
    if (!wanted) {
      HETERO_TRY(wanted, make_plan(key));
    }
    const std::vector<Compilation> missing = executor_->missing(*wanted);
    if (missing.empty()) {
      continue;
    }
    // One stands for all of a plan: they were made, and are kept or thrown away, together.
    const Compilation& c = missing.back();
    behind_ = behind_ || !c.processor->is_cached(engine_.graph_, c.slice(), c.tokens);
  }
  for (const Key& key : keys) {
    HETERO_TRY([[maybe_unused]] const LinkedPlan* const linked, plan(key));
  }
  if (const int total = compiling().second; behind_ && total > 0) {
    engine_.tell(fmt::format("{} graphs for {} are compiled in the background; until then {} does their work",
                             total, engine_.selection_.team.npu, engine_.stand_in_for(0)));
  }
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

/// One pass over the body, and if wanted the logits behind its last row.
Status Session::body(std::span<const TokenId> ids, Wanted logits, const std::atomic<bool>* cancel) {
  HETERO_RETURN_IF_ERROR(finish_adapting());
  const auto rows = static_cast<int64_t>(ids.size());
  const auto position = static_cast<int64_t>(tokens_.size());
  const Key key{false, rows, rows > 1 && logits == Wanted::kAll};
  HETERO_TRY(const LinkedPlan* const linked, plan(key));
  // Linking the head's plan now might unlink the body's, so only as it is.
  const auto head_plan = plans_.find({true, 1});
  const bool together =
      logits == Wanted::kLast && plans_[key].whole && head_plan != plans_.end() && head_plan->second.whole;
  std::copy(ids.begin(), ids.end(), executor_->ids().begin());
  if (together) {
    head_plan->second.used = ++uses_;
    HETERO_RETURN_IF_ERROR(
        executor_->run_with_head(*linked, position, *head_plan->second.linked, rows - 1, cancel));
    count_predicted({true, 1});
  } else {
    HETERO_RETURN_IF_ERROR(executor_->run(*linked, position, 0, cancel));
  }
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  count_predicted(key);
  adapt(*linked, rows);
  return logits == Wanted::kLast && !together ? head(1, rows - 1) : Status();
}

Status Session::head(int64_t rows, int64_t first_row) {
  const Key key{true, rows};
  HETERO_TRY(const LinkedPlan* const linked, plan(key));
  HETERO_RETURN_IF_ERROR(executor_->run(*linked, 0, first_row));
  count_predicted(key);
  return {};
}

void Session::count_predicted(const Key& key) {
  const auto found = plans_.find(key);
  const bool known =
      found != plans_.end() && found->second.wanted && found->second.wanted->predicted > Nanos{};
  predicted_.known = predicted_.known && known;
  if (known) {
    predicted_.time += found->second.wanted->predicted;
    predicted_.best_single += found->second.wanted->best_single_predicted;
  }
}

/// Runs a pass again, where a processor fails meanwhile.
Status Session::pass(std::span<const TokenId> ids, Wanted logits, const std::atomic<bool>* cancel) {
  for (;;) {
    const size_t before = tokens_.size();
    const Status status = body(ids, logits, cancel);
    if (status.ok()) {
      return {};
    }
    tokens_.resize(before);
    HETERO_RETURN_IF_ERROR(recover(status, cancel));
  }
}

Status Session::recover(const Status& why, const std::atomic<bool>* cancel) {
  const int p = executor_->failed();
  if (p < 0 || !is_failure(why)) {
    return why;
  }
  HETERO_RETURN_IF_ERROR(engine_.drop(executor_->processors()[static_cast<size_t>(p)]->info().id, why));
  return follow_engine(cancel);
}

/// Leaves the processors that were dropped since. What they alone held of the cache is computed anew.
Status Session::follow_engine(const std::atomic<bool>* cancel) {
  if (dropped_ == engine_.dropped_.size()) {
    return {};
  }
  bool whole = true;
  for (; dropped_ < engine_.dropped_.size(); ++dropped_) {
    for (size_t p = 0; p < executor_->processors().size(); ++p) {
      if (executor_->processors()[p]->info().id == engine_.dropped_[dropped_]) {
        whole = executor_->abandon(static_cast<int>(p)) && whole;
      }
    }
  }
  for (const auto& processor : engine_.processors_) {
    executor_->add(*processor);
  }
  compiler_.reset();  // waits for the graph that it is at
  pending_.reset();
  adaptation_.reset();
  plans_.clear();
  pass_plans_.clear();
  keep_plans();
  if (!whole) {
    const std::vector<TokenId> ids = std::exchange(tokens_, {});
    for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(kMaxPassTokens)) {
      const size_t count = std::min(ids.size() - begin, static_cast<size_t>(kMaxPassTokens));
      HETERO_RETURN_IF_ERROR(pass(std::span(ids).subspan(begin, count), Wanted::kNone, cancel));
    }
  }
  return {};
}

/// Compares what a pass took with what it should have, and prepares a new ratio where that has been
/// off for long. Ratios are the plan's only free choice here: what each processor did in the operators
/// that they share says what the ratio should be.
void Session::adapt(const LinkedPlan& ran, int64_t tokens) {
  // Without a profile, another ratio would be for prompts or for decoding alone, each with copies of its own.
  const bool bound = engine_.options_.memory_ratio > 0.0 && engine_.profile() == nullptr;
  if (!engine_.options_.adapt || pending_ || bound) {
    return;
  }
  const auto& processors = executor_->processors();
  const Nanos time = processors.front()->clock().now();
  for (size_t p = 0; p < processors.size(); ++p) {
    adaptation_.saw(static_cast<int>(p), executor_->pace()[p].busy, executor_->pace()[p].predicted, time);
  }
  const std::optional<Adaptation::Change> change = adaptation_.take(time);
  if (!change) {
    return;
  }
  const std::string what =
      fmt::format("{} takes {:.2f} times as long as expected, for over a second",
                  processors[static_cast<size_t>(change->processor)]->info().id, change->slower);
  executor_->forget_baselines();
  const bool decode = tokens == 1;
  const bool solved =
      engine_.profile() != nullptr &&
      engine_.rescale(processors[static_cast<size_t>(change->processor)]->info().id, decode, change->slower)
          .ok();
  std::optional<double> measured;
  if (solved) {
    measured = share(tokens);  // plans come from the profile, which knows it now
  }
  for (size_t p = 0; p < processors.size(); ++p) {
    if (!solved && processors[p]->info().id == engine_.selection_.team.npu) {
      measured = executor_->measured_share(ran, static_cast<int>(p));
    }
  }
  if (!measured || (!solved && std::abs(*measured - share(tokens)) < kSmallestChange)) {
    spdlog::info("{}; the plan stays", what);
    return;
  }
  if (solved) {
    spdlog::info("{}; {} is planned anew", what, decode ? "decode" : "prefill");
  } else {
    spdlog::info("{}; in {} the NPU's share goes from {:.2f} to {:.2f}", what, decode ? "decode" : "prefill",
                 share(tokens), *measured);
  }
  pending_ = Pending{decode, *measured};
  std::vector<Compilation> missing;
  for (const auto& [key, planned] : plans_) {
    if ((key.tokens == 1) != decode) {
      continue;
    }
    if (const auto wanted = engine_.make_plan(key.head, key.tokens, key.all_rows, *measured); wanted.ok()) {
      const std::vector<Compilation> more = executor_->missing(*wanted);
      missing.insert(missing.end(), more.begin(), more.end());
    }
  }
  if (!missing.empty()) {
    compiler().add(missing);
  }
}

/// Between two passes: takes the new ratio over once its graphs are there.
Status Session::finish_adapting() {
  if (!pending_ || (compiler_ != nullptr && !compiler_->idle())) {
    return {};
  }
  const bool decode = pending_->decode;
  npu_share_[decode ? 1 : 0] = pending_->share;
  pending_.reset();
  adaptation_.reset();
  pass_plans_.clear();
  ++adaptations_;
  std::vector<Key> keys;
  std::erase_if(plans_, [&](const auto& entry) {
    const bool concerned = (entry.first.tokens == 1) == decode;
    if (concerned) {
      keys.push_back(entry.first);
    }
    return concerned;
  });
  for (const Key& key : keys) {
    HETERO_TRY([[maybe_unused]] const LinkedPlan* const linked, plan(key));
  }
  if (compiler_ != nullptr) {
    compiler_->clear();
    keep_plans();  // frees the graphs of the former ratio
  }
  return {};
}

Status Session::feed(std::span<const TokenId> ids, const std::atomic<bool>* cancel) {
  HETERO_RETURN_IF_ERROR(check(ids));
  HETERO_RETURN_IF_ERROR(follow_engine(cancel));
  while (!ids.empty()) {
    const auto rows = static_cast<size_t>(rows_of_next_pass(static_cast<int64_t>(ids.size())));
    const Wanted logits = rows == ids.size() ? Wanted::kLast : Wanted::kNone;
    HETERO_RETURN_IF_ERROR(pass(ids.first(rows), logits, cancel));
    ids = ids.subspan(rows);
    if (rows > 1) {
      release_copied();  // a prompt's last rows may have needed other parts of weights than decoding does
    }
  }
  return {};
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
    HETERO_RETURN_IF_ERROR(body(part, Wanted::kAll, nullptr));
    for (int64_t first = 0; first < static_cast<int64_t>(part.size()); first += kMaxHeadRows) {
      const int64_t rows = std::min(static_cast<int64_t>(part.size()) - first, kMaxHeadRows);
      HETERO_RETURN_IF_ERROR(head(rows, first));
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
