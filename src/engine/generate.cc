#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/stop_strings.h"

namespace hetero {
namespace {

double per_second(int64_t count, Nanos time) {
  return time.count() > 0 ? static_cast<double>(count) * 1e9 / static_cast<double>(time.count()) : 0.0;
}

/// NaN in every logit means damaged weights; drawing from them would print nonsense.
Status check_finite(std::span<const float> logits, const std::string& model) {
  if (std::none_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
    return malformed(model + ": the model's logits are not numbers; its weights are damaged");
  }
  return {};
}

}  // namespace

double Generation::prefill_tps() const {
  return per_second(prompt_tokens - reused_tokens, prefill);
}
double Generation::decode_tps() const {
  return per_second(decoded, decode);
}

Result<Generation> generate(Session& session, const std::vector<TokenId>& prompt,
                            const GenerateOptions& options,
                            const std::function<void(std::string_view)>& on_text,
                            const std::function<void()>& on_prefilled) {
  HETERO_RETURN_IF_ERROR(validate(options.sampler));
  for (const auto& [id, bias] : options.sampler.logit_bias) {
    if (id >= session.engine().graph().shape.vocabulary) {
      return invalid_argument(fmt::format("logit bias for token {}, but the model has ids 0 to {}", id,
                                          session.engine().graph().shape.vocabulary - 1));
    }
  }
  if (prompt.empty()) {
    return invalid_argument("the prompt is empty: it has no tokens");
  }
  const Tokenizer& tokenizer = session.engine().tokenizer();
  Generation g;
  g.prompt_tokens = static_cast<int64_t>(prompt.size());
  Clock& clock = session.engine().processors().front()->clock();  // virtual time of simulated ones
  const Nanos begin = clock.now();
  const Nanos cpu_begin = thread_cpu_time();
  g.reused_tokens = session.keep_common_prefix(prompt);
  const Status fed =
      session.feed(std::span(prompt).subspan(static_cast<size_t>(g.reused_tokens)), options.cancel);
  g.prefill = clock.now() - begin;
  g.prefill_control = thread_cpu_time() - cpu_begin;
  if (fed.code() == Code::kCancelled) {
    g.stop = Stop::kCancelled;
    return g;
  }
  HETERO_RETURN_IF_ERROR(fed);
  if (on_prefilled) {
    on_prefilled();
  }

  Sampler sampler(options.sampler);
  for (const TokenId id : prompt) {
    sampler.accept(id);
  }
  std::optional<GrammarMatcher> matcher;
  if (options.grammar != nullptr) {
    matcher.emplace(options.grammar, session.engine().token_trie());
  }
  Utf8Stream stream;
  StopStrings stops(options.stop);
  const auto emit = [&](const std::string& text) {
    g.text += text;
    if (on_text && !text.empty()) {
      on_text(text);
    }
  };
  const Nanos decode_begin = clock.now();
  const Nanos cpu_decode_begin = thread_cpu_time();
  g.stop = Stop::kLength;
  while (static_cast<int64_t>(g.ids.size()) < options.max_tokens) {
    HETERO_RETURN_IF_ERROR(check_finite(session.logits(), session.engine().file().path()));
    const TokenId id = sampler.sample(session.logits(), matcher ? &*matcher : nullptr);
    if (id < 0) {
      return unsupported("no token of the vocabulary continues the text as the grammar demands");
    }
    if (g.ids.empty()) {
      g.first_token = clock.now() - begin;
    }
    if ((!options.ignore_eos || matcher) && tokenizer.is_end(id)) {
      g.stop = Stop::kEnd;
      break;
    }
    sampler.accept(id);
    g.ids.push_back(id);
    if (matcher) {
      HETERO_RETURN_IF_ERROR(matcher->accept(id));
    }
    emit(stops.push(stream.push(tokenizer.piece(id, false))));
    if (stops.stopped()) {
      g.stop = Stop::kText;
      break;
    }
    if (matcher && matcher->must_end()) {
      g.stop = Stop::kEnd;
      break;
    }
    if (static_cast<int64_t>(g.ids.size()) == options.max_tokens) {
      break;
    }
    if (session.free_context() == 0) {
      g.stop = Stop::kContext;
      break;
    }
    const Status stepped = session.feed(std::span(&id, 1), options.cancel);
    if (stepped.code() == Code::kCancelled) {
      g.stop = Stop::kCancelled;
      break;
    }
    HETERO_RETURN_IF_ERROR(stepped);
    ++g.decoded;
  }
  g.decode = clock.now() - decode_begin;
  g.decode_control = thread_cpu_time() - cpu_decode_begin;
  emit(stops.push(stream.finish()));
  emit(stops.finish());
  return g;
}

}  // namespace hetero
