// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace hetero {

struct SamplerOptions {
  float temperature = 0.8f;     // 0: greedy
  int top_k = 40;               // 0: off
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float repeat_penalty = 1.0f;  // 1: off
  int repeat_last_n = 64;       // tokens that the penalty looks back; 0: off, -1: all
  uint64_t seed = 0;
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to logits; -infinity forbids a token
};

/// Refuses values out of range (NaN, negative, top_p above 1), naming the option.
Status validate(const SamplerOptions& options);

class GrammarMatcher;

/// The chain repeat penalty -> logit bias -> grammar -> top-k -> top-p -> min-p -> temperature -> draw, in
/// llama.cpp's order. Deterministic for a seed on every platform. One sampler belongs to one sequence; not
/// thread-safe. sample() does not allocate after the first call.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  /// Tells the sampler of a token of the sequence (prompt and generated ones alike).
  void accept(TokenId id);
  /// Picks from f32 logits [vocabulary]. Among equal logits the lower id wins. NaN logits count
  /// as -infinity. With a grammar, only tokens that it allows are candidates; -1 where none is.
  TokenId sample(std::span<const float> logits, GrammarMatcher* grammar = nullptr);

 private:
  struct Candidate {
    float logit;
    TokenId id;
  };
  static bool better(const Candidate& a, const Candidate& b);
  void adjust(std::span<const float> logits);
  void list_candidates(size_t vocabulary, size_t top_k);
  void keep_allowed(GrammarMatcher& grammar);

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::deque<TokenId> recent_;
  std::vector<float> logits_;  // with penalties and biases
  std::vector<float> tops_;    // the largest of each block of logits_
  std::vector<float> order_;   // tops_, partly in order
  std::vector<Candidate> candidates_;
  std::vector<Candidate> best_;
};

}  // namespace hetero
