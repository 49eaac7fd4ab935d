// hetero perplexity: how well a model predicts a text.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/files.h"
#include "cli/commands.h"

namespace hetero {
namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string file;
  int64_t window = 0;
  int64_t stride = 0;
  bool json = false;
};

/// -log of the probability that `logits` give to `id`, in nats.
double negative_log_likelihood(std::span<const float> logits, TokenId id) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float x : logits) {
    sum += std::exp(x - top);
  }
  return top + std::log(sum) - logits[static_cast<size_t>(id)];
}

Status run(const PerplexityOptions& o) {
  HETERO_TRY(const std::string text, read_text_file(o.file));
  HETERO_TRY(const OpenedModel model, open_model(o.model));
  const Tokenizer& tokenizer = model.engine->tokenizer();
  HETERO_TRY(const std::vector<TokenId> ids, tokenizer.encode(text, false, false));
  const int64_t bos = tokenizer.adds_bos() && tokenizer.bos() >= 0 ? 1 : 0;
  const int64_t window = o.window > 0 ? o.window : std::min<int64_t>(model.engine->context(), 2048);
  const int64_t stride = o.stride > 0 ? o.stride : std::max<int64_t>(1, window / 2);
  if (window > model.engine->context() || window < 2 + bos) {
    return invalid_argument(fmt::format("--window {}: expected {} to {}, the context (-c sets it)", window,
                                        2 + bos, model.engine->context()));
  }
  if (stride > window - 1 - bos) {
    return invalid_argument(
        fmt::format("--stride {}: expected 1 to {}, or tokens would be left out", stride, window - 1 - bos));
  }
  const auto count = static_cast<int64_t>(ids.size());
  if (count + bos < 2) {
    return invalid_argument(fmt::format("{}: {} tokens, expected at least {}", o.file, count, 2 - bos));
  }

  // Each window shows the model up to `window` tokens; only those that no window before it scored
  // are scored, so every token (but the very first without a BOS) counts exactly once.
  Progress progress;
  double total = 0.0;
  int64_t scored = 0;
  int64_t windows = 0;
  for (int64_t end = 0, begin = 0; end < count; ++windows) {
    const int64_t first_new = end;
    begin = windows == 0 ? 0 : begin + stride;
    end = std::min(count, begin + window - bos);
    std::vector<TokenId> shown(static_cast<size_t>(bos), tokenizer.bos());
    shown.insert(shown.end(), ids.begin() + begin, ids.begin() + end);
    model.session->truncate(0);
    const Status fed = model.session->feed_with_logits(shown, [&](size_t i, std::span<const float> logits) {
      const int64_t next = begin - bos + static_cast<int64_t>(i) + 1;  // whose probability these logits give
      progress.show("token", static_cast<int>(scored), static_cast<int>(count));
      if (next >= first_new && next < end) {
        total += negative_log_likelihood(logits, ids[static_cast<size_t>(next)]);
        ++scored;
      }
    });
    HETERO_RETURN_IF_ERROR(fed);
  }
  progress.clear();
  const double mean = total / static_cast<double>(scored);
  if (o.json) {
    print_json({{"mean_nll", mean},
                {"perplexity", std::exp(mean)},
                {"tokens", count},
                {"scored", scored},
                {"windows", windows},
                {"window", window},
                {"stride", stride}});
    return {};
  }
  fmt::print(
      "perplexity {:.4f}, mean negative log-likelihood {:.6f} nats over {} of {} tokens\n"
      "({} windows of {} tokens, a new one every {})\n",
      std::exp(mean), mean, scored, count, windows, window, stride);
  return {};
}

}  // namespace

Command register_perplexity(CLI::App& app) {
  CLI::App* command = app.add_subcommand("perplexity", "How well a model predicts a text");
  auto o = std::make_shared<PerplexityOptions>();
  add_model_options(*command, o->model);
  command->add_option("-f,--file", o->file, "The text")->required();
  command
      ->add_option("--window", o->window,
                   "Tokens that the model sees at once (default: the context, at most 2048)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 31));
  command->add_option("--stride", o->stride, "Tokens from one window to the next (default: half a window)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command->add_flag("--json", o->json, "Print JSON");
  command->footer(
      "Every token is scored once, in the first window that holds it, by all the tokens before it in that "
      "window.\n"
      "Example:\n  hetero perplexity -m model.gguf -f text.txt --json");
  return [o] { return run(*o); };
}

}  // namespace hetero
