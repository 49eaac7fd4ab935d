// hetero logprobs: log-probabilities of given tokens, the way to compare two engines.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/json_file.h"
#include "cli/commands.h"

namespace hetero {
namespace {

struct LogprobsOptions {
  ModelOptions model;
  std::string ids;
  int top = 10;
  bool json = false;
};

double rounded(double x) {
  return std::round(x * 1e6) / 1e6;
}

/// Natural logarithm of softmax's denominator.
double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float x : logits) {
    sum += std::exp(x - top);
  }
  return top + std::log(sum);
}

Result<std::vector<std::vector<TokenId>>> read_ids(const std::string& path) {
  HETERO_TRY(const nlohmann::ordered_json json, read_json_file(path));
  std::vector<std::vector<TokenId>> lists;
  const auto wrong = [&](const std::string& where) {
    return malformed(fmt::format("{}: {}: expected a list of lists of token ids", path, where));
  };
  if (!json.is_array()) {
    return wrong("the document");
  }
  for (const auto& entry : json) {
    // The reference's own output, [{ids: ...}, ...], can be given as well.
    const auto& list = entry.is_object() && entry.contains("ids") ? entry["ids"] : entry;
    if (!list.is_array() || list.empty()) {
      return wrong(fmt::format("entry {}", lists.size()));
    }
    lists.emplace_back();
    for (const auto& id : list) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
        return wrong(fmt::format("entry {}", lists.size() - 1));
      }
      lists.back().push_back(id.get<TokenId>());
    }
  }
  return lists;
}

Status run(const LogprobsOptions& o) {
  HETERO_TRY(const auto lists, read_ids(o.ids));
  ModelOptions options = o.model;
  if (options.activations == "auto") {
    options.activations = "f32";  // who compares engines wants the model's own numbers
  }
  HETERO_TRY(OpenedModel model, open_model(options));
  // Without -c, the context is as long as the lists need.
  int64_t longest = 0;
  for (const std::vector<TokenId>& ids : lists) {
    longest = std::max(longest, static_cast<int64_t>(ids.size()));
  }
  if (options.context == 0 && longest > model.engine->context() &&
      longest <= model.engine->graph().shape.context) {
    options.context = longest;
    model.session.reset();  // before its engine
    HETERO_TRY(model, open_model(options));
  }
  Trace trace;
  if (!o.model.trace.empty()) {
    model.session->executor().set_trace(&trace);
  }
  auto results = nlohmann::ordered_json::array();
  Progress progress;
  for (const std::vector<TokenId>& ids : lists) {
    model.session->truncate(0);
    auto top_ids = nlohmann::ordered_json::array();
    auto top_logprobs = nlohmann::ordered_json::array();
    auto next = nlohmann::ordered_json::array();
    double nll = 0.0;
    std::vector<TokenId> order(static_cast<size_t>(model.engine->graph().shape.vocabulary));
    const auto top = std::min<size_t>(static_cast<size_t>(o.top), order.size());
    const Status fed = model.session->feed_with_logits(ids, [&](size_t i, std::span<const float> logits) {
      progress.show("position", static_cast<int>(i + 1), static_cast<int>(ids.size()));
      const double total = log_sum_exp(logits);
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(top), order.end(),
                        [&](TokenId a, TokenId b) {
                          const float x = logits[static_cast<size_t>(a)];
                          const float y = logits[static_cast<size_t>(b)];
                          return x != y ? x > y : a < b;
                        });
      std::vector<double> values;
      for (size_t k = 0; k < top; ++k) {
        values.push_back(rounded(logits[static_cast<size_t>(order[k])] - total));
      }
      top_ids.push_back(std::vector<TokenId>(order.begin(), order.begin() + static_cast<int64_t>(top)));
      top_logprobs.push_back(values);
      if (i + 1 < ids.size()) {
        const double logprob = logits[static_cast<size_t>(ids[i + 1])] - total;
        next.push_back(rounded(logprob));
        nll -= logprob;
      }
    });
    HETERO_RETURN_IF_ERROR(fed.with_prefix(fmt::format("{}: entry {}", o.ids, results.size())));
    const auto count = static_cast<double>(ids.size() - 1);
    results.push_back({{"ids", ids},
                       {"top_ids", top_ids},
                       {"top_logprobs", top_logprobs},
                       {"next_logprob", next},
                       {"mean_nll", count > 0 ? nlohmann::ordered_json(rounded(nll / count)) : nullptr}});
  }
  progress.clear();
  if (!o.model.trace.empty()) {
    model.session->executor().set_trace(nullptr);
    HETERO_RETURN_IF_ERROR(trace.write(o.model.trace));
  }
  if (o.json) {
    fmt::print("{}\n", dump_json(results, -1));
    return {};
  }
  for (const auto& r : results) {
    fmt::print("{} tokens, mean negative log-likelihood {} nats\n", r["ids"].size(),
               r["mean_nll"].is_null() ? "-" : fmt::format("{:.6f}", r["mean_nll"].get<double>()));
  }
  return {};
}

}  // namespace

Command register_logprobs(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logprobs", "Log-probabilities of given token ids, teacher-forced");
  auto o = std::make_shared<LogprobsOptions>();
  add_model_options(*command, o->model);
  command->add_option("--ids", o->ids, "JSON file: a list of lists of token ids")->required();
  command->add_option("--top", o->top, "Likeliest tokens to list for each position")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_flag("--json", o->json, "Print everything as JSON instead of a summary");
  command->footer("Example:\n  hetero logprobs -m model.gguf --ids ids.json --top 5 --json");
  return [o] { return run(*o); };
}

}  // namespace hetero
