#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>

#include "cli/commands.h"
#include "engine/simulated.h"

namespace hetero {

void add_kv_cache_option(CLI::App& command, std::string& kv_cache) {
  command
      .add_option("--kv-cache", kv_cache,
                  "What the KV cache holds: f16, q8_0 (8 bits in blocks of 32, about half the memory), auto "
                  "(f16; f32 for models in F32)")
      ->check(CLI::IsMember({"auto", "f16", "q8_0"}))
      ->capture_default_str();
}

std::optional<DType> kv_cache_type(const std::string& kv_cache) {
  return kv_cache == "auto" ? std::nullopt : std::optional(kv_cache == "q8_0" ? DType::kQ8_0 : DType::kF16);
}

void add_model_options(CLI::App& command, ModelOptions& o) {
  command.add_option("-m,--model", o.model, "Model file (GGUF)")->required();
  command
      .add_option("--strategy", o.strategy,
                  "Who computes what: auto, cpu, gpu, npu-online, npu-padding, npu-pipe, layer, tensor")
      ->capture_default_str();
  command.add_option("--processors", o.processors, "Only these, for example cpu,gpu0,npu0 (default: auto)")
      ->delimiter(',');
  command
      .add_option(
          "--sync", o.sync,
          "How processors are waited for: fast (predicted sleep, then polling), driver (blocking calls "
          "of the driver, for comparison)")
      ->check(CLI::IsMember({"fast", "driver"}))
      ->capture_default_str();
  command
      .add_option(
          "--activations", o.activations,
          "What the CPU's products round activations to: f32 (exact), q8 (8 bits in blocks of 32, faster), "
          "auto (q8 where --strategy auto takes the CPU alone)")
      ->check(CLI::IsMember({"auto", "f32", "q8"}))
      ->capture_default_str();
  add_kv_cache_option(command, o.kv_cache);
  command.add_option("--threads", o.threads, "CPUs to use (default: all)")->check(CLI::Range(1, 4096));
  command.add_option("-c,--context", o.context, "Tokens of context (default: the model's, at most 4096)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command.add_flag("--mmap,!--no-mmap", o.map,
                   "Map the model file (default), or read it whole into memory: for slow or networked disks");
  command.add_option("--profile", o.profile,
                     "Plan by this profile (default: the one that \"hetero profile\" keeps)");
  command.add_option("--plan", o.plan, "Run the plans in this file (hetero plan -o) for their lengths");
  command.add_option("--reserve", o.reserve, "Leave these processors free for other apps: ids or kinds")
      ->delimiter(',');
  command.add_option("--objective", o.objective, "What plans save: latency or energy")
      ->check(CLI::IsMember({"latency", "energy"}))
      ->capture_default_str();
  command
      .add_option(
          "--memory-ratio", o.memory_ratio,
          "Weights in memory over the model's at most, once a prompt is read; 1: once, as decoding then "
          "uses the copies that an NPU has (default: where that costs less than a quarter of the time)")
      ->check(CLI::Range(1.0, 1000.0));
  command
      .add_option("--npu-share", o.npu_share,
                  "Strategy tensor without a profile: the NPU's part of each weight")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      .add_option(
          "--compile", o.compile,
          "When graphs for an NPU are compiled: ahead of the first token, behind it (others do the NPU's "
          "work until they are ready), auto (behind, unless the cache on disk has them)")
      ->check(CLI::IsMember({"ahead", "behind", "auto"}))
      ->capture_default_str();
  command.add_flag("--adapt,!--no-adapt", o.adapt,
                   "Change the plan when a processor becomes slower or faster (default)");
  command.add_option("--trace", o.trace, "Write what ran where and when to FILE (Chrome trace format)");
  command.add_option("--soc", o.soc,
                     "Simulate this chip instead of using the real processors: same text, the chip's time "
                     "(hetero simulate)");
  command.add_flag("-v,--verbose", o.verbose, "Say more on stderr");
}

void add_sampler_options(CLI::App& command, SamplerOptions& o) {
  command.add_option("--temp", o.temperature, "Temperature; 0 always takes the likeliest token")
      ->capture_default_str();
  command.add_option("--top-k", o.top_k, "Keep the k likeliest tokens; 0: all")->capture_default_str();
  command.add_option("--top-p", o.top_p, "Keep the likeliest tokens up to this probability in sum")
      ->capture_default_str();
  command.add_option("--min-p", o.min_p, "Drop tokens below this part of the likeliest one's probability")
      ->capture_default_str();
  command.add_option("--repeat-penalty", o.repeat_penalty, "Penalty for the last 64 tokens; 1: none")
      ->capture_default_str();
  command.add_option("--seed", o.seed, "Seed of the random choice")->capture_default_str();
}

Result<EngineOptions> engine_options(const ModelOptions& o) {
  EngineOptions options;
  options.model = o.model;
  if (o.strategy != "auto") {
    options.request.strategy = strategy_from_name(o.strategy);
    if (!options.request.strategy) {
      return invalid_argument(
          fmt::format("--strategy: \"{}\" is not one of auto, cpu, gpu, npu-online, npu-padding, "
                      "npu-pipe, layer, tensor",
                      o.strategy));
    }
  }
  options.request.processors = o.processors;
  if (o.activations != "auto") {
    options.request.int8_activations = o.activations == "q8";
  }
  options.kv_cache = kv_cache_type(o.kv_cache);
  options.request.threads = o.threads;
  options.context = o.context;
  options.map = o.map;
  options.memory_ratio = o.memory_ratio;
  options.npu_share = o.npu_share;
  options.profile = o.profile;
  options.plan = o.plan;
  options.reserve = o.reserve;
  options.objective = o.objective == "energy" ? Objective::kEnergy : Objective::kLatency;
  options.adapt = o.adapt;
  options.compile = o.compile == "ahead"    ? EngineOptions::Compile::kAhead
                    : o.compile == "behind" ? EngineOptions::Compile::kBehind
                                            : EngineOptions::Compile::kAuto;
  options.notice = [](const std::string& what) { fmt::print(stderr, "hetero: {}\n", what); };
  options.sync = sync_from_name(o.sync).value_or(Sync::kFast);
  options.cache_dir = default_cache_dir();
  HETERO_TRY(options.cache_limit, default_cache_limit(options.cache_dir));
  if (!o.soc.empty()) {
    HETERO_TRY(auto found, find_simulated(o.soc));
    options.find = [found](const Discovery&) { return found; };
    options.compile = EngineOptions::Compile::kAhead;  // virtual time belongs to one thread
    options.adapt = false;
    options.cache_dir.clear();
    fmt::print(stderr, "hetero: simulated: times are those of {}, not of this machine\n", o.soc);
  }
  return options;
}

Result<OpenedModel> open_model(const ModelOptions& o) {
  spdlog::set_level(o.verbose ? spdlog::level::debug : spdlog::level::warn);
  HETERO_TRY(EngineOptions options, engine_options(o));
  auto progress = std::make_shared<Progress>();
  options.progress = [progress](const std::string& what, int done, int total) {
    if (total > 0 && done == total) {
      progress->clear();
    } else {
      progress->show(what, done, total);
    }
  };
  OpenedModel opened;
  HETERO_TRY(opened.engine, Engine::open(std::move(options)));
  HETERO_TRY(opened.session, opened.engine->new_session());
  progress->clear();
  for (const std::string& notice : opened.engine->selection().notices) {
    fmt::print(stderr, "hetero: {}\n", notice);
  }
  if (o.verbose) {
    const ModelShape& s = opened.engine->graph().shape;
    fmt::print(stderr,
               "hetero: {}: {}, {} layers, width {}, {} heads ({} kv), ffn {}, vocabulary {}, context {}\n",
               o.model, s.architecture, s.layers, s.width, s.heads, s.kv_heads, s.ffn, s.vocabulary,
               opened.engine->context());
    for (const auto& p : opened.engine->processors()) {
      fmt::print(stderr, "hetero: {}: {} ({} {})\n", p->info().id, p->info().name, p->info().provider,
                 p->info().driver);
    }
  }
  return opened;
}

Progress::Progress(bool enabled) : enabled_(enabled && isatty(STDERR_FILENO) != 0), started_(now()) {}

void Progress::show(const std::string& what, int done, int total) {
  const Nanos time = now();
  if (!enabled_ || time - started_ < std::chrono::milliseconds(300) ||
      time - updated_ < std::chrono::milliseconds(50)) {
    return;
  }
  updated_ = time;
  shown_ = true;
  if (total > 0) {
    fmt::print(stderr, "\r\033[K{} {}/{}", what, done, total);
  } else {
    fmt::print(stderr, "\r\033[K{} ...", what);
  }
  std::fflush(stderr);
}

void Progress::clear() {
  if (shown_) {
    fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    shown_ = false;
  }
  started_ = now();
}

std::string dump_json(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void print_json(const nlohmann::ordered_json& json) {
  fmt::print("{}\n", dump_json(json));
}

nlohmann::ordered_json info_json(const ProcessorInfo& info) {
  return {{"id", info.id},
          {"kind", info.kind},
          {"name", info.name},
          {"provider", info.provider},
          {"driver", info.driver},
          {"stand_in", info.stand_in},
          {"memory_bytes", info.memory_bytes},
          {"unified_memory", info.unified_memory},
          {"features", info.features}};
}

}  // namespace hetero
