// The composition root: a model file, its tokenizer and graph, and the processors that were chosen
// to run it. The only folder that names concrete processors.
//
//   auto engine = Engine::open({.model = "model.gguf"});
//   auto session = (*engine)->new_session();
//   generate(**session, ids, {}, on_text);       // engine/generate.h
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/devices.h"
#include "graph/graph.h"
#include "runtime/executor.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace hetero {

struct EngineOptions {
  std::string model;  // path of a GGUF file
  Request request;
  bool map = true;         // map the file; false: read it whole into memory
  int64_t context = 0;     // tokens; 0: ModelShape::default_context
  double npu_share = 0.5;  // of each weight's rows, in strategy tensor
  Sync sync = Sync::kFast;
  std::string cache_dir;  // compiled programs and graphs; empty: no cache on disk
  /// Called on things that may take over a second: (what, done, total).
  std::function<void(const std::string&, int, int)> progress;
};

class Session;

/// Immutable after open(). Outlives its sessions. One thread, the control thread, at a time.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(EngineOptions options);

  const EngineOptions& options() const { return options_; }
  const GgufFile& file() const { return *file_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// For grammars; made when it is first asked for.
  std::shared_ptr<const TokenTrie> token_trie();
  const Graph& graph() const { return graph_; }
  const std::vector<std::unique_ptr<Processor>>& processors() const { return processors_; }
  const Selection& selection() const { return selection_; }
  int64_t context() const { return context_; }
  Bytes device_bytes() const;

  /// A sequence of tokens with a KV cache of its own.
  Result<std::unique_ptr<Session>> new_session();

 private:
  friend class Session;
  Engine() = default;
  Status open_processors(const std::string& cache_dir);

  EngineOptions options_;
  std::shared_ptr<const GgufFile> file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const TokenTrie> token_trie_;
  Graph graph_;
  std::vector<FoundProcessor> found_;
  Selection selection_;
  std::vector<std::unique_ptr<Processor>> processors_;
  int64_t context_ = 0;
};

/// One sequence: what was fed so far, and the logits behind its last token.
class Session {
 public:
  /// Appends tokens. Prompts are cut into passes. On an error or a cancellation, the tokens of the
  /// passes that were completed stay.
  Status feed(std::span<const TokenId> ids, const std::atomic<bool>* cancel = nullptr);

  /// f32 [vocabulary], valid until the next call of feed().
  std::span<const float> logits() const;

  /// As feed(), and calls `row(i, logits)` for every position of ids.
  Status feed_with_logits(std::span<const TokenId> ids,
                          const std::function<void(size_t, std::span<const float>)>& row);

  /// Forgets all but the first `count` tokens.
  void truncate(int64_t count);

  /// Keeps as much of what was fed as `ids` begins with, but not all of ids, since the logits
  /// behind its last token are wanted. Returns how many tokens need not be fed again.
  int64_t keep_common_prefix(std::span<const TokenId> ids);

  /// Compiles ahead what feeding `tokens` tokens, one at a time or together, needs. Strategy
  /// npu-online compiles while it runs, whatever was prepared.
  Status prepare(int64_t tokens);

  const std::vector<TokenId>& tokens() const { return tokens_; }
  int64_t free_context() const { return engine_.context_ - static_cast<int64_t>(tokens_.size()); }
  Engine& engine() { return engine_; }
  Executor& executor() { return *executor_; }

 private:
  friend class Engine;
  Session(Engine& engine, std::unique_ptr<Executor> executor);
  Result<const LinkedPlan*> plan(bool head, int64_t tokens);
  Status check(std::span<const TokenId> ids) const;
  Status body(std::span<const TokenId> ids, const std::atomic<bool>* cancel);

  Engine& engine_;
  std::unique_ptr<Executor> executor_;
  std::map<std::pair<bool, int64_t>, const LinkedPlan*> plans_;
  std::vector<TokenId> tokens_;
};

/// The user's cache folder: $XDG_CACHE_HOME/heteroinfer or ~/.cache/heteroinfer; empty if neither
/// is known.
std::string default_cache_dir();

}  // namespace hetero
