// The commands of `hetero`. Each register_x() adds a subcommand to the parser and returns what
// runs it; a Status it returns is printed as one line and becomes the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "text/sampler.h"

namespace hetero {

using Command = std::function<Status()>;

Command register_devices(CLI::App& app);
Command register_run(CLI::App& app);
Command register_chat(CLI::App& app);
Command register_logprobs(CLI::App& app);
Command register_tokenize(CLI::App& app);
Command register_detokenize(CLI::App& app);
Command register_render(CLI::App& app);
Command register_inspect(CLI::App& app);
Command register_quantize(CLI::App& app);
Command register_perplexity(CLI::App& app);
Command register_import(CLI::App& app);
Command register_simulate(CLI::App& app);
Command register_profile(CLI::App& app);
Command register_plan(CLI::App& app);
Command register_bench(CLI::App& app);
Command register_characterize(CLI::App& app);

/// Set by Ctrl-C. The second one within an unfinished reaction ends the process.
std::atomic<bool>& interrupted();

/// Options of every command that runs a model.
struct ModelOptions {
  std::string model;
  std::string strategy = "auto";
  std::vector<std::string> processors;
  std::string sync = "fast";
  std::string activations = "auto";
  std::string kv_cache = "auto";
  int threads = 0;
  int64_t context = 0;
  bool map = true;
  double memory_ratio = 0.0;
  double npu_share = 0.5;
  std::string profile;
  std::string plan;
  std::vector<std::string> reserve;
  std::string objective = "latency";
  std::string compile = "auto";
  bool adapt = true;
  std::string trace;
  std::string soc;
  bool verbose = false;
};
void add_model_options(CLI::App& command, ModelOptions& options);

/// --kv-cache, and what its text stands for; nullopt: auto.
void add_kv_cache_option(CLI::App& command, std::string& kv_cache);
std::optional<DType> kv_cache_type(const std::string& kv_cache);

/// What the options ask of the engine, without `progress`.
Result<EngineOptions> engine_options(const ModelOptions& options);

struct OpenedModel {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
};
/// Opens the model with progress on stderr, and tells of stand-ins there.
Result<OpenedModel> open_model(const ModelOptions& options);

void add_sampler_options(CLI::App& command, SamplerOptions& options);

/// What generated text must look like, and where it stops.
struct ConstraintOptions {
  std::string grammar_file;
  std::string grammar_text;
  std::string schema_file;
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
};
void add_constraint_options(CLI::App& command, ConstraintOptions& options);
/// Reads and compiles what the options name, into `generate`.
Status apply(const ConstraintOptions& options, GenerateOptions& generate);

/// A progress line on stderr that rewrites itself; silent unless stderr is a terminal and the
/// work takes more than a moment.
class Progress {
 public:
  explicit Progress(bool enabled = true);
  ~Progress() { clear(); }
  void show(const std::string& what, int done, int total);
  void clear();

 private:
  bool enabled_;
  bool shown_ = false;
  Nanos started_{};
  Nanos updated_{};
};

/// Prints one JSON document on stdout. Bytes that are not UTF-8 are replaced.
void print_json(const nlohmann::ordered_json& json);
/// Like print_json, into a string.
std::string dump_json(const nlohmann::ordered_json& json, int indent = 2);

/// {id, kind, name, provider, stand_in, ...} of a processor.
nlohmann::ordered_json info_json(const ProcessorInfo& info);

}  // namespace hetero
