#include "engine/engine.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/files.h"
#include "engine/passes.h"
#include "graph/model.h"
#include "processor/failing.h"

namespace hetero {

Result<std::unique_ptr<Engine>> Engine::open(EngineOptions options) {
  std::unique_ptr<Engine> engine(new Engine());
  engine->options_ = std::move(options);
  const EngineOptions& o = engine->options_;
  const auto progress = [&](const char* what) {
    if (o.progress) {
      o.progress(what, 0, 0);
    }
  };
  progress("reading the model");
  GgufOpen how;
  how.map = o.map;
  how.progress = [&](Bytes done, Bytes total) {
    if (o.progress) {
      o.progress("reading the model, MB", static_cast<int>(done / 1'000'000),
                 static_cast<int>(total / 1'000'000));
    }
  };
  HETERO_TRY(engine->file_, GgufFile::open(o.model, how));
  HETERO_TRY(engine->graph_, build_graph(*engine->file_, o.context, o.kv_cache));
  HETERO_TRY(engine->tokenizer_, Tokenizer::load(*engine->file_));
  const ModelShape& shape = engine->graph_.shape;
  if (engine->tokenizer_->size() > shape.vocabulary) {
    return malformed(fmt::format("{}: the tokenizer has {} tokens, but the model only {}", o.model,
                                 engine->tokenizer_->size(), shape.vocabulary));
  }
  engine->context_ = o.context > 0 ? o.context : shape.default_context;
  if (engine->context_ > shape.context) {
    return invalid_argument(fmt::format("-c {}: the model was trained for {} tokens of context",
                                        engine->context_, shape.context));
  }
  progress("looking for processors");
  engine->found_ = o.find ? o.find(needed(o.request)) : find_processors(needed(o.request));
  HETERO_TRY(engine->selection_, select(engine->found_, o.request));
  HETERO_RETURN_IF_ERROR(engine->open_processors(o.cache_dir));
  HETERO_RETURN_IF_ERROR(engine->start_planning());
  return engine;
}

Status Engine::open_member(const Member& member) {
  if (options_.progress) {
    options_.progress("opening " + member.found->info.id, 0, 0);
  }
  auto opened = member.found->open(member.found->info, member.options);
  if (!opened.ok()) {
    return opened.status().with_prefix(member.found->info.id);
  }
  HETERO_TRY(auto processor, fail_if_asked(std::move(opened).value()));
  processors_.push_back(std::move(processor));
  return {};
}

Status Engine::add_cpu(const std::vector<int>& cpus) {
  const auto cpu = std::find_if(found_.begin(), found_.end(),
                                [](const FoundProcessor& p) { return p.info.kind == "cpu"; });
  if (cpu == found_.end()) {
    return unavailable("there is no CPU to do it");
  }
  Member member{&*cpu, {}};
  member.options.cpus = cpus;
  member.options.threads = static_cast<int>(cpus.size());
  HETERO_RETURN_IF_ERROR(open_member(member));
  selection_.team.cpu = cpu->info.id;
  return {};
}

Status Engine::open_processors(const std::string& cache_dir) {
  for (Member& member : selection_.members) {
    member.options.cache_dir = cache_dir;
    HETERO_RETURN_IF_ERROR(open_member(member));
  }
  // A GPU or an NPU may lack an operator, or a dtype of this model; then another does it (the CPU
  // joins where it is needed), and the user is told.
  const auto lacking = [&](const std::string& id, int op) -> Status {
    for (const auto& p : processors_) {
      if (p->info().id == id) {
        return p->supports(graph_, {op, 0, graph_.output_cols(op)});
      }
    }
    return {};
  };
  struct Lack {
    Status first;
    int count = 0;
  };
  const auto lacks = [&](const std::string& id, bool linear_only) {
    Lack lack;
    for (int op = 0; op < static_cast<int>(graph_.ops.size()) && !id.empty(); ++op) {
      if (linear_only && !graph_.op(op).is<Linear>()) {
        continue;
      }
      if (Status status = lacking(id, op); !status.ok() && lack.count++ == 0) {
        lack.first = std::move(status);
      }
    }
    return lack;
  };
  const Lack gpu = lacks(selection_.team.gpu, false);
  if (gpu.count > 0 && selection_.team.cpu.empty()) {
    HETERO_RETURN_IF_ERROR(add_cpu(selection_.members.front().options.cpus));
  }
  if (gpu.count > 0) {
    selection_.notices.push_back(fmt::format("{} cannot run {} operators, the CPU does: {}",
                                             selection_.team.gpu, gpu.count, gpu.first.message()));
  }
  if (const Lack npu = lacks(selection_.team.npu, true); npu.count > 0) {
    selection_.notices.push_back(
        fmt::format("{} cannot run {} linear operators, {} does: {}", selection_.team.npu, npu.count,
                    selection_.team.gpu.empty() ? "the CPU" : selection_.team.gpu, npu.first.message()));
  }
  for (const auto& p : processors_) {
    if (p->info().id == selection_.team.npu) {
      selection_.team.npu_orders = p->traits().orders;
    }
  }
  selection_.team.can_run = [lacking](const std::string& id, int op) { return lacking(id, op).ok(); };
  return {};
}

std::vector<OpenProcessor> Engine::open_list() const {
  std::vector<OpenProcessor> list;
  for (const auto& processor : processors_) {
    OpenOptions how;
    for (const Member& m : selection_.members) {
      how = m.found->info.id == processor->info().id ? m.options : how;
    }
    list.push_back({processor.get(), how});
  }
  return list;
}

Status Engine::start_planning() {
  PlanningOptions o;
  o.profile_file = options_.profile;
  o.plan_file = options_.plan;
  o.cache_dir = options_.cache_dir;
  o.measure_within = options_.measure_within;
  o.sync = sync_name(options_.sync);
  o.objective = options_.objective;
  o.reserve = options_.reserve;
  o.memory_ratio = options_.memory_ratio;
  o.npu_share = options_.npu_share;
  o.longest_pass = kMaxPassTokens;
  o.progress = options_.progress;
  HETERO_TRY(planning_, Planning::create(graph_, selection_, !options_.request.strategy, open_list(), o,
                                         selection_.notices));
  return {};
}

Result<Plan> Engine::make_plan(bool head, int64_t tokens, bool all_rows, double npu_share) const {
  if (planning_ != nullptr && npu_share == options_.npu_share) {  // not adapted since
    return planning_->plan(selection_, head, tokens, all_rows);
  }
  StrategyOptions options;
  options.npu_share = npu_share;
  options.last_row = !all_rows;
  return hetero::make_plan(graph_, selection_.strategy, selection_.team, head, tokens, options);
}

Status Engine::measure_for_next_time(Nanos within, const std::atomic<bool>* cancel) {
  return lacks_profile() ? planning_->measure_once(open_list(), within, cancel) : Status();
}

Status Engine::rescale(const std::string& id, bool decode, double factor) {
  return planning_->rescale(selection_, id, decode, factor);
}

std::string Engine::stand_in_for(int op) const {
  const Team& team = selection_.team;
  const std::string& first = uses_gpu(selection_.strategy) ? team.gpu : team.cpu;
  const std::string& second = uses_gpu(selection_.strategy) ? team.cpu : team.gpu;
  const bool can = !first.empty() && (!team.can_run || team.can_run(first, op));
  return can || second.empty() ? first : second;
}

void Engine::tell(const std::string& what) const {
  if (options_.notice) {
    options_.notice(what);
  }
}

Status Engine::drop(const std::string& id, const Status& why) {
  Team& team = selection_.team;
  const std::vector<int>* cpus = nullptr;
  for (const Member& m : selection_.members) {
    cpus = m.found->info.id == id ? &m.options.cpus : cpus;
  }
  if (id == team.npu) {
    team.npu.clear();
    selection_.strategy = uses_gpu(selection_.strategy) ? Strategy::kGpu : Strategy::kCpu;
  } else if (id == team.gpu) {
    team.gpu.clear();
    selection_.strategy = team.npu.empty() ? Strategy::kCpu : Strategy::kNpuPadding;
  } else {
    return why;  // the CPU, or one that is not in use any more
  }
  dropped_.push_back(id);
  std::string others;
  const bool gpu_alone = selection_.strategy == Strategy::kCpu && !team.gpu.empty();
  if (gpu_alone && team.cpu.empty()) {
    selection_.strategy = Strategy::kGpu;
  } else if (!uses_gpu(selection_.strategy) && team.cpu.empty()) {
    if (const Status added = add_cpu(cpus != nullptr ? *cpus : std::vector<int>()); !added.ok()) {
      return why;
    }
  }
  for (const std::string& other : {team.cpu, team.gpu, team.npu}) {
    const bool used = !other.empty() && (other != team.cpu || !uses_gpu(selection_.strategy));
    others += used ? (others.empty() ? "" : " and ") + other : std::string();
  }
  tell(fmt::format("{} failed and is not used any more, {} does its work: {}", id, others, why.message()));
  return {};
}

std::shared_ptr<const TokenTrie> Engine::token_trie() {
  if (token_trie_ == nullptr) {
    token_trie_ = std::make_shared<const TokenTrie>(*tokenizer_);
  }
  return token_trie_;
}

Bytes Engine::device_bytes() const {
  Bytes bytes = 0;
  for (const auto& p : processors_) {
    bytes += p->device_bytes();
  }
  return bytes;
}

Bytes Engine::weight_bytes() const {
  Bytes bytes = file_->resident_bytes();
  for (const auto& p : processors_) {
    // The CPU's are the panels of its 8-bit products.
    const bool copies = p->traits().copies_weights || p->info().kind == "cpu";
    bytes += copies && p->info().unified_memory ? p->device_bytes() : 0;
  }
  return bytes;
}

DType Engine::kv_cache() const {
  const auto cache = std::find_if(graph_.values.begin(), graph_.values.end(),
                                  [](const Value& v) { return v.rows == Rows::kContext; });
  return cache->dtype;  // every model has one: block_count is at least 1
}

Bytes Engine::kv_cache_bytes() const {
  Bytes bytes = 0;
  for (const Value& v : graph_.values) {
    bytes += v.rows == Rows::kContext ? context_ * row_bytes(v.dtype, v.cols) : 0;
  }
  return bytes;
}

Result<std::unique_ptr<Session>> Engine::new_session() {
  std::vector<Processor*> processors;
  for (const auto& p : processors_) {
    processors.push_back(p.get());
  }
  // A processor may fill rows beyond the prompt's, so memory is for whole standard lengths.
  const RowCapacity capacity{kMaxPassTokens, kMaxHeadRows, context_};
  HETERO_TRY(auto executor, Executor::create(graph_, std::move(processors), capacity));
  executor->set_sync(options_.sync);
  return std::unique_ptr<Session>(new Session(*this, std::move(executor)));
}

Engine::~Engine() {
  planning_.reset();
  processors_.clear();
  trim_cache();
}

void Engine::trim_cache() {
  if (options_.cache_dir.empty() || !options_.cache_limit) {
    return;
  }
  // Graphs and programs, also such that were not written to the end. Profiles and what was found by trying
  // are small, and cost more than their size says.
  const auto expendable = [](std::string_view name) {
    return (name.starts_with("npu-") && name.find(".blob") != name.npos) ||
           (name.starts_with("opencl-") && name.find(".bin") != name.npos);
  };
  if (const Bytes removed = trim_folder(options_.cache_dir, *options_.cache_limit, expendable, opened_);
      removed > 0) {
    spdlog::info("{}: {} MB that were used longest ago are removed", options_.cache_dir, removed / 1000000);
  }
}

Result<Bytes> default_cache_limit(const std::string& cache_dir) {
  constexpr Bytes kMegabyte = 1000000;
  Bytes limit = 8000 * kMegabyte;
  if (const char* text = std::getenv("HETERO_CACHE_MB"); text != nullptr && *text != '\0') {
    const char* end = text + std::strlen(text);
    const auto read = std::from_chars(text, end, limit);
    if (read.ec != std::errc() || read.ptr != end || limit < 0 ||
        limit > std::numeric_limits<Bytes>::max() / kMegabyte) {
      return invalid_argument(
          fmt::format("HETERO_CACHE_MB={}: expected megabytes, a whole number from 0 on", text));
    }
    return limit * kMegabyte;
  }
  // The folder may not exist yet, but some folder above it does.
  std::error_code error;
  std::filesystem::path there = cache_dir;
  while (!there.empty() && there != there.root_path() && !std::filesystem::exists(there, error)) {
    there = there.parent_path();
  }
  const auto space = std::filesystem::space(there, error);
  return error ? limit : std::min(limit, static_cast<Bytes>(space.capacity / 10));
}

std::string default_cache_dir() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/') {
    return std::string(xdg) + "/heteroinfer";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.cache/heteroinfer";
  }
  return "";
}

}  // namespace hetero
