// From a prompt to text, one token at a time.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "text/grammar.h"
#include "text/sampler.h"

namespace hetero {

struct GenerateOptions {
  SamplerOptions sampler;
  std::shared_ptr<const Grammar> grammar;  // that the text must follow; none: anything
  std::vector<std::string> stop;           // texts that end the answer and are not part of it
  int64_t max_tokens = 128;
  bool ignore_eos = false;
  const std::atomic<bool>* cancel = nullptr;
};

enum class Stop {
  kEnd,        // the model ended its answer, or the grammar allows nothing more
  kText,       // one of the stop strings came
  kLength,     // max_tokens
  kContext,    // the context is full
  kCancelled,  // by the user
};

struct Generation {
  std::vector<TokenId> ids;  // without the token that ended it
  std::string text;
  Stop stop = Stop::kEnd;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  // of the prompt, already in the KV cache
  Nanos prefill{};            // over the prompt's other tokens
  Nanos decode{};
  int64_t decoded = 0;      // passes of one token in `decode`
  Nanos first_token{};      // from the call to the first token's choice
  Nanos prefill_control{};  // CPU time of the calling thread, which controls the processors
  Nanos decode_control{};   // likewise, choosing tokens included

  /// Tokens per second; 0 where nothing was run.
  double prefill_tps() const;
  double decode_tps() const;
};

/// Feeds what the session lacks of `prompt` and generates. `on_text` gets whole UTF-8 characters
/// as they come, `on_prefilled` is called once between prefill and decode. A prompt that does not
/// fit into the context is an error; a cancelled generation is not, it returns what there is.
Result<Generation> generate(Session& session, const std::vector<TokenId>& prompt,
                            const GenerateOptions& options,
                            const std::function<void(std::string_view)>& on_text = {},
                            const std::function<void()>& on_prefilled = {});

}  // namespace hetero
