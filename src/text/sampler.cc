#include "text/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/grammar.h"

namespace hetero {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

Status out_of_range(const char* option, double value, const char* expected) {
  return invalid_argument(fmt::format("{} is {}, expected {}", option, value, expected));
}

}  // namespace

Status validate(const SamplerOptions& o) {
  // Written so that NaN fails every one of them.
  if (!(o.temperature >= 0.0f && std::isfinite(o.temperature))) {
    return out_of_range("temperature", o.temperature, "0 or more");
  }
  if (o.top_k < 0) {
    return out_of_range("top_k", o.top_k, "0 (off) or more");
  }
  if (!(o.top_p >= 0.0f && o.top_p <= 1.0f)) {
    return out_of_range("top_p", o.top_p, "0 to 1");
  }
  if (!(o.min_p >= 0.0f && o.min_p <= 1.0f)) {
    return out_of_range("min_p", o.min_p, "0 to 1");
  }
  if (!(o.repeat_penalty > 0.0f && std::isfinite(o.repeat_penalty))) {
    return out_of_range("repeat_penalty", o.repeat_penalty, "more than 0");
  }
  if (o.repeat_last_n < -1) {
    return out_of_range("repeat_last_n", o.repeat_last_n, "-1 (all) or more");
  }
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0) {
      return out_of_range("token of logit_bias", id, "0 or more");
    }
    if (!(bias < std::numeric_limits<float>::infinity())) {
      return out_of_range("logit_bias", bias, "a number, or -inf to forbid the token");
    }
  }
  return {};
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

void Sampler::accept(TokenId id) {
  if (options_.repeat_last_n == 0 || options_.repeat_penalty == 1.0f) {
    return;
  }
  recent_.push_back(id);
  if (options_.repeat_last_n > 0 && recent_.size() > static_cast<size_t>(options_.repeat_last_n)) {
    recent_.pop_front();
  }
}

bool Sampler::better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// Leaves the candidates that may come next: all of them, or at least as many of the best as top-k
/// will keep. In most places a text can go on in most ways, and a few look-ups are enough.
void Sampler::keep_allowed(GrammarMatcher& grammar) {
  std::vector<Candidate>& c = candidates_;
  const size_t want = options_.temperature == 0.0f ? 1
                      : options_.top_k > 0         ? static_cast<size_t>(options_.top_k)
                                                   : c.size();
  const size_t probe = 2 * want + 14;
  if (probe < c.size() / 4) {
    best_.resize(probe);
    std::partial_sort_copy(c.begin(), c.end(), best_.begin(), best_.end(), better);
    std::erase_if(best_, [&](const Candidate& x) { return !grammar.allows(x.id); });
    if (best_.size() >= want) {
      c.swap(best_);
      return;
    }
  }
  const std::vector<bool>& allowed = grammar.allowed();
  std::erase_if(c, [&](const Candidate& x) {
    return static_cast<size_t>(x.id) >= allowed.size() || !allowed[static_cast<size_t>(x.id)];
  });
}

TokenId Sampler::sample(std::span<const float> logits, GrammarMatcher* grammar) {
  if (logits.empty()) {
    return -1;
  }
  const auto known = [](float logit) { return std::isnan(logit) ? kNever : logit; };
  std::vector<Candidate>& c = candidates_;
  c.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    c[i] = {known(logits[i]), static_cast<TokenId>(i)};
  }
  // A token that occurs several times is penalised once (each time from its original logit).
  for (const TokenId id : recent_) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) {
      const float logit = known(logits[static_cast<size_t>(id)]);
      c[static_cast<size_t>(id)].logit =
          logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    }
  }
  for (const auto& [id, bias] : options_.logit_bias) {
    if (static_cast<size_t>(id) < logits.size()) {
      c[static_cast<size_t>(id)].logit += bias;
    }
  }
  if (grammar != nullptr) {
    keep_allowed(*grammar);
    if (c.empty()) {
      return -1;
    }
  }
  const Candidate best = *std::min_element(c.begin(), c.end(), better);
  if (options_.temperature == 0.0f || !std::isfinite(best.logit)) {
    return best.id;  // with an infinite logit there are no proportions to draw by
  }

  size_t count = c.size();
  const bool cuts = options_.top_k > 0 && static_cast<size_t>(options_.top_k) < count;
  if (cuts) {
    count = static_cast<size_t>(options_.top_k);
  }
  const auto end = [&] { return c.begin() + static_cast<std::ptrdiff_t>(count); };
  if (cuts || options_.top_p < 1.0f) {
    std::partial_sort(c.begin(), end(), c.end(), better);
  }
  const auto weight = [&](const Candidate& candidate, double temperature) {
    return std::exp((static_cast<double>(candidate.logit) - best.logit) / temperature);
  };
  const auto total = [&](double temperature) {
    double sum = 0;
    std::for_each(c.begin(), end(),
                  [&](const Candidate& candidate) { sum += weight(candidate, temperature); });
    return sum;
  };

  if (options_.top_p < 1.0f) {  // the shortest head whose share reaches top_p, at least one
    const double needed = static_cast<double>(options_.top_p) * total(1.0);
    double sum = 0;
    size_t kept = 0;
    do {
      sum += weight(c[kept++], 1.0);
    } while (kept < count && sum < needed);
    count = kept;
  }
  if (options_.min_p > 0.0f) {  // those at least min_p times as likely as the best
    const double least = options_.min_p;
    count = static_cast<size_t>(
        std::remove_if(c.begin(), end(),
                       [&](const Candidate& candidate) { return weight(candidate, 1.0) < least; }) -
        c.begin());
  }

  // Not a std:: distribution: those give different draws on different platforms.
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double left = uniform * total(options_.temperature);
  TokenId drawn = best.id;
  for (size_t i = 0; i < count; ++i) {
    const double w = weight(c[i], options_.temperature);
    if (w <= 0) {
      continue;
    }
    drawn = c[i].id;  // stays with the last possible one if rounding leaves something over
    left -= w;
    if (left < 0) {
      break;
    }
  }
  return drawn;
}

}  // namespace hetero
