// The composition root: a model file, its tokenizer and graph, and the processors that were chosen
// to run it. The only folder that names concrete processors.
//
//   auto engine = Engine::open({.model = "model.gguf"});
//   auto session = (*engine)->new_session();
//   generate(**session, ids, {}, on_text);       // engine/generate.h
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/devices.h"
#include "engine/planning.h"
#include "graph/graph.h"
#include "plan/plan.h"
#include "runtime/adapt.h"
#include "runtime/executor.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace hetero {

struct EngineOptions {
  std::string model;  // path of a GGUF file
  Request request;
  bool map = true;                // map the file; false: read it whole into memory
  int64_t context = 0;            // tokens; 0: ModelShape::default_context
  std::optional<DType> kv_cache;  // F16 or Q8_0; nullopt: F16, or F32 for models in F32
  double memory_ratio = 0.0;      // weights in memory over the model's, at most; 0: by PlanningOptions
  double npu_share = 0.5;         // of each weight's rows, in strategy tensor by fixed rules
  std::string profile;            // to plan by (hetero profile); empty: the cached one of these processors
  std::string plan;               // plans to run as they are (hetero plan -o); empty: none
  /// Where strategy auto or tensor has several processors and no profile is cached, measures one first,
  /// within this time, and keeps it; zero: goes by fixed rules.
  Nanos measure_within{};
  Objective objective = Objective::kLatency;
  std::vector<std::string> reserve;  // processors to leave free: ids or kinds
  Sync sync = Sync::kFast;
  /// Whether plans follow when a processor becomes slower or faster than it was.
  bool adapt = true;
  /// When graphs for processors with static shapes are compiled.
  enum class Compile {
    kAhead,   // before they are used
    kBehind,  // in the background; other processors do that work until then
    kAuto,    // ahead where the cache on disk has them, else behind
  };
  Compile compile = Compile::kAhead;
  std::string cache_dir;  // compiled programs and graphs; empty: no cache on disk
  /// Of cache_dir in bytes: when the engine goes, those that were used longest ago are removed, but none that
  /// it has used itself. nullopt: no limit.
  std::optional<Bytes> cache_limit;
  /// Called on things that may take over a second: (what, done, total).
  std::function<void(const std::string&, int, int)> progress;
  /// Called with what the user must be told once, when it happens: a processor failed, ...
  std::function<void(const std::string&)> notice;
  /// Where processors come from; for tests and simulation. Empty: those of this machine.
  std::function<std::vector<FoundProcessor>(const Discovery&)> find;
};

class Session;

/// Immutable after open(), but for processors that fail. Outlives its sessions. One thread, the
/// control thread, at a time.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(EngineOptions options);
  ~Engine();

  const EngineOptions& options() const { return options_; }
  const GgufFile& file() const { return *file_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// For grammars; made when it is first asked for.
  std::shared_ptr<const TokenTrie> token_trie();
  const Graph& graph() const { return graph_; }
  const std::vector<std::unique_ptr<Processor>>& processors() const { return processors_; }
  const Selection& selection() const { return selection_; }
  int64_t context() const { return context_; }
  /// What the KV cache of a session holds, and its memory once the context is full.
  DType kv_cache() const;
  Bytes kv_cache_bytes() const;
  Bytes device_bytes() const;
  /// Memory that holds weights now: the file's pages, and copies in processors' own form.
  Bytes weight_bytes() const;

  /// The processors that are open, and how: what a profile is of.
  std::vector<OpenProcessor> open_list() const;
  /// Measures a profile for the next time, where it would be planned by and there is none; else does
  /// nothing. With sessions idle.
  Status measure_for_next_time(Nanos within, const std::atomic<bool>* cancel);
  /// Whether that would do something.
  bool lacks_profile() const { return planning_ != nullptr && planning_->lacks_profile(); }
  /// nullptr: plans are by fixed rules.
  const Profile* profile() const { return planning_ == nullptr ? nullptr : planning_->profile(); }

  /// The plan of a pass over the body or the head. `all_rows`: whether the logits of all tokens of a body are
  /// wanted, not just of the last.
  Result<Plan> make_plan(bool head, int64_t tokens, bool all_rows, double npu_share) const;
  /// Plans to come count on a processor that takes `factor` times as long as its profile says. Only with
  /// a profile.
  Status rescale(const std::string& id, bool decode, double factor);
  /// Who does the work of a processor that is not ready for it.
  std::string stand_in_for(int op) const;
  /// Takes a processor out of all plans to come, for good, and tells the user. An error, the reason
  /// itself, if nobody could do its work.
  Status drop(const std::string& id, const Status& why);
  /// How many processors were dropped, and which.
  const std::vector<std::string>& dropped() const { return dropped_; }

  /// A sequence of tokens with a KV cache of its own.
  Result<std::unique_ptr<Session>> new_session();

 private:
  friend class Session;
  Engine() = default;
  void trim_cache();
  Status open_processors(const std::string& cache_dir);
  Status open_member(const Member& member);
  Status start_planning();
  Status add_cpu(const std::vector<int>& cpus);
  void tell(const std::string& what) const;

  EngineOptions options_;
  std::shared_ptr<const GgufFile> file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const TokenTrie> token_trie_;
  Graph graph_;
  std::vector<FoundProcessor> found_;
  Selection selection_;
  std::vector<std::unique_ptr<Processor>> processors_;
  std::vector<std::string> dropped_;
  std::unique_ptr<Planning> planning_;
  int64_t context_ = 0;
  std::filesystem::file_time_type opened_ = std::filesystem::file_time_type::clock::now();
};

/// One sequence: what was fed so far, and the logits behind its last token.
class Session {
 public:
  ~Session();

  /// Appends tokens. Prompts are cut into passes. On an error or a cancellation, the tokens of the
  /// passes that were completed stay. A processor that fails is dropped (Engine::drop), and the pass
  /// is run again by the others.
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

  /// Compiles ahead what feeding `tokens` tokens, one at a time or together, needs, or starts to do so
  /// behind (EngineOptions::compile). Strategy npu-online compiles while it runs, whatever was
  /// prepared.
  Status prepare(int64_t tokens);
  /// Graphs that are compiled in the background: how many of how many are ready.
  std::pair<int, int> compiling() const;
  /// What the plans of all passes so far were predicted to take; known: all of them were predicted.
  struct Predicted {
    Nanos time{};
    Nanos best_single{};
    bool known = true;
  };
  const Predicted& predicted() const { return predicted_; }
  /// How often plans were changed because a processor had become slower or faster.
  int adaptations() const { return adaptations_; }

  const std::vector<TokenId>& tokens() const { return tokens_; }
  int64_t free_context() const { return engine_.context_ - static_cast<int64_t>(tokens_.size()); }
  Engine& engine() { return engine_; }
  Executor& executor() { return *executor_; }

 private:
  friend class Engine;
  Session(Engine& engine, std::unique_ptr<Executor> executor);
  struct Planned {
    std::optional<Plan> wanted;
    const LinkedPlan* linked = nullptr;
    bool whole = false;  // linked is wanted; else, what of it is compiled so far
    int64_t used = 0;    // when, in calls of plan()
    int seen = 0;        // graphs that the background had made when it was linked
  };
  struct Key {
    bool head = false;
    int64_t tokens = 0;
    bool all_rows = false;  // see Engine::make_plan(); of bodies of several tokens
    auto operator<=>(const Key&) const = default;
  };

  Result<const LinkedPlan*> plan(const Key& key);
  Result<Plan> make_plan(const Key& key);
  Status link(const Key& key, Planned& planned);
  double& share(int64_t tokens) { return npu_share_[tokens == 1 ? 1 : 0]; }
  /// Started when it is first asked for.
  CompileThread& compiler();
  void keep_plans();
  void release_copied();
  Status check(std::span<const TokenId> ids) const;
  /// Whose logits are wanted: nobody's; the last row's, which body() then computes; all rows', by head().
  enum class Wanted { kNone, kLast, kAll };
  Status body(std::span<const TokenId> ids, Wanted logits, const std::atomic<bool>* cancel);
  Status head(int64_t rows, int64_t first_row);
  void count_predicted(const Key& key);
  int64_t rows_of_next_pass(int64_t left);
  Status pass(std::span<const TokenId> ids, Wanted logits, const std::atomic<bool>* cancel);
  Status recover(const Status& why, const std::atomic<bool>* cancel);
  Status follow_engine(const std::atomic<bool>* cancel);
  void adapt(const LinkedPlan& ran, int64_t tokens);
  Status finish_adapting();

  Engine& engine_;
  std::unique_ptr<Executor> executor_;
  std::map<Key, Planned> plans_;
  /// By rows, of passes that a prompt may be cut into; without steps: none is possible.
  std::map<int64_t, Plan> pass_plans_;
  int64_t uses_ = 0;
  std::vector<Executor::WeightPart> copied_;
  std::vector<TokenId> tokens_;
  size_t dropped_ = 0;                       // of Engine::dropped(), those that this session knows of
  double npu_share_[2] = {0.5, 0.5};         // in prefill, in decode
  bool behind_ = false;                      // what is missing is compiled in the background
  std::unique_ptr<CompileThread> compiler_;  // after executor_: it uses the processors
  Adaptation adaptation_;
  int adaptations_ = 0;
  Predicted predicted_;
  struct Pending {  // a new share, as soon as its graphs are compiled
    bool decode = false;
    double share = 0.0;
  };
  std::optional<Pending> pending_;
};

/// The user's cache folder: $XDG_CACHE_HOME/heteroinfer or ~/.cache/heteroinfer; empty if neither
/// is known.
std::string default_cache_dir();

/// How large the cache folder may become: HETERO_CACHE_MB megabytes (10^6 bytes), by default 8000, but at
/// most a tenth of the disk it is on. An error if the variable is not a number from 0 on.
Result<Bytes> default_cache_limit(const std::string& cache_dir);

}  // namespace hetero
