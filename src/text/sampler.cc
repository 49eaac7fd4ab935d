#include "text/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "text/grammar.h"

namespace hetero {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Logits that are looked at together: with a fixed number of them, compilers use vectors.
constexpr size_t kBlock = 64;
constexpr size_t kLanes = 16;

float largest(const float* block) {
  float lanes[kLanes];
  std::copy(block, block + kLanes, lanes);
  for (size_t i = kLanes; i < kBlock; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = lanes[lane] > block[i + lane] ? lanes[lane] : block[i + lane];
    }
  }
  return *std::max_element(lanes, lanes + kLanes);
}

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

/// Fills logits_ and tops_. The last block is filled up with what never comes.
void Sampler::adjust(std::span<const float> logits) {
  const size_t blocks = (logits.size() + kBlock - 1) / kBlock;
  logits_.resize(blocks * kBlock);
  std::copy(logits.begin(), logits.end(), logits_.begin());
  std::fill(logits_.begin() + static_cast<std::ptrdiff_t>(logits.size()), logits_.end(), kNever);
  for (size_t block = 0; block < logits_.size(); block += kBlock) {
    for (size_t i = 0; i < kBlock; ++i) {
      const float logit = logits_[block + i];
      logits_[block + i] = logit == logit ? logit : kNever;  // NaN is not
    }
  }
  const auto known = [&](TokenId id) { return id >= 0 && static_cast<size_t>(id) < logits.size(); };
  // A token that occurs several times is penalised once (each time from its original logit).
  for (const TokenId id : recent_) {
    if (known(id)) {
      const float logit = logits[static_cast<size_t>(id)];
      logits_[static_cast<size_t>(id)] = std::isnan(logit) ? kNever
                                         : logit > 0       ? logit / options_.repeat_penalty
                                                           : logit * options_.repeat_penalty;
    }
  }
  for (const auto& [id, bias] : options_.logit_bias) {
    if (known(id)) {
      float& logit = logits_[static_cast<size_t>(id)];
      logit = std::isnan(logit + bias) ? kNever : logit + bias;  // infinity, forbidden
    }
  }
  tops_.resize(blocks);
  for (size_t i = 0; i < blocks; ++i) {
    tops_[i] = largest(&logits_[i * kBlock]);
  }
}

/// Fills candidates_ with all of `vocabulary` tokens, or with all that are among the best `top_k`, and some
/// more: as many blocks as that have a logit no less than `least`, so the best have it too.
void Sampler::list_candidates(size_t vocabulary, size_t top_k) {
  float least = kNever;
  if (top_k < tops_.size()) {
    order_.assign(tops_.begin(), tops_.end());
    const auto kth = order_.begin() + static_cast<std::ptrdiff_t>(top_k - 1);
    std::nth_element(order_.begin(), kth, order_.end(), std::greater<>());
    least = *kth;
  }
  candidates_.clear();
  for (size_t block = 0; block < tops_.size(); ++block) {
    if (tops_[block] < least) {
      continue;
    }
    const size_t end = std::min(vocabulary, (block + 1) * kBlock);
    for (size_t i = block * kBlock; i < end; ++i) {
      if (logits_[i] >= least) {
        candidates_.push_back({logits_[i], static_cast<TokenId>(i)});
      }
    }
  }
}

TokenId Sampler::sample(std::span<const float> logits, GrammarMatcher* grammar) {
  if (logits.empty()) {
    return -1;
  }
  adjust(logits);
  const size_t top_k = options_.top_k > 0 ? static_cast<size_t>(options_.top_k) : logits.size();
  std::vector<Candidate>& c = candidates_;
  Candidate best;
  if (grammar != nullptr) {
    list_candidates(logits.size(), logits.size());
    keep_allowed(*grammar);
    if (c.empty()) {
      return -1;
    }
    best = *std::min_element(c.begin(), c.end(), better);
  } else {
    const size_t block = static_cast<size_t>(std::max_element(tops_.begin(), tops_.end()) - tops_.begin());
    const auto in_block = logits_.begin() + static_cast<std::ptrdiff_t>(block * kBlock);
    const auto found = std::find(in_block, in_block + kBlock, tops_[block]);
    best = {*found, static_cast<TokenId>(found - logits_.begin())};
  }
  if (options_.temperature == 0.0f || !std::isfinite(best.logit)) {
    return best.id;  // with an infinite logit there are no proportions to draw by
  }
  if (grammar == nullptr) {
    list_candidates(logits.size(), top_k);
  }

  const bool cuts = top_k < (grammar != nullptr ? c.size() : logits.size());
  size_t count = std::min(c.size(), top_k);
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
