#include "engine/planning.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>

#include "base/date.h"
#include "base/files.h"
#include "base/json_file.h"
#include "plan/replace.h"

namespace hetero {
namespace {

/// Tokens in the KV cache for which decoding is planned: plans differ little over contexts.
constexpr int64_t kUsualContext = 256;

/// Decoding may take this part of its time longer if that saves the memory of a second copy of weights.
constexpr int kWorthMemory = 4;

/// What a processor's times hold for besides its name and driver.
std::string setting_of(const OpenOptions& options) {
  std::string cpus;
  for (const int cpu : options.cpus) {
    cpus += (cpus.empty() ? "cpus " : ",") + std::to_string(cpu);
  }
  return fmt::format("{}{}{}", cpus, cpus.empty() ? "" : "; ", options.int8_activations ? "q8" : "f32");
}

std::string machine_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  std::string name = "unknown CPU";
  while (std::getline(file, line)) {
    if (line.starts_with("model name") && line.find(':') != std::string::npos) {
      name = line.substr(line.find(':') + 2);
      break;
    }
  }
  return fmt::format("{}, {} CPUs", name, sysconf(_SC_NPROCESSORS_ONLN));
}

ProfileIdentity identity_of(const Graph& graph, std::span<const OpenProcessor> processors) {
  const bool simulated = std::any_of(processors.begin(), processors.end(), [](const OpenProcessor& p) {
    return p.processor->info().provider == "sim";
  });
  return {machine_name(), model_shape_key(graph), today(), simulated};
}

/// Whether a profile that was cut short has what planning needs: every operator for one row and for
/// many, and what hand-offs cost.
bool usable(const Profile& profile, const Graph& graph) {
  const size_t count = profile.processors.size();
  const bool handoffs = count < 2 || profile.handoffs.size() >= count * (count - 1);
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    const bool any =
        std::any_of(profile.processors.begin(), profile.processors.end(), [&](const ProfiledProcessor& p) {
          return time_of(p, work_of(graph, op), graph.in_head(op) ? 1 : 256, 256).has_value();
        });
    if (!any) {
      return false;
    }
  }
  return handoffs;
}

}  // namespace

Status profile_fits(const Profile& profile, const Graph& graph, std::span<const OpenProcessor> processors) {
  if (profile.identity.model != model_shape_key(graph)) {
    return invalid_argument(fmt::format("it is of another model: {}", profile.identity.model));
  }
  for (const OpenProcessor& p : processors) {
    const ProcessorInfo& info = p.processor->info();
    const ProfiledProcessor* found = profile.find(info.id);
    if (found == nullptr) {
      return invalid_argument(fmt::format("it does not have {}", info.id));
    }
    if (found->name != info.name || found->driver != info.driver || found->setting != setting_of(p.options)) {
      return invalid_argument(fmt::format("its {} is {} ({}; {}), this one is {} ({}; {})", info.id,
                                          found->name, found->driver, found->setting, info.name, info.driver,
                                          setting_of(p.options)));
    }
  }
  return {};
}

std::string profile_cache_file(const Graph& graph, std::span<const OpenProcessor> processors,
                               const std::string& cache_dir) {
  if (cache_dir.empty()) {
    return "";
  }
  std::string key = machine_name() + "\n" + model_shape_key(graph);
  for (const OpenProcessor& p : processors) {
    const ProcessorInfo& info = p.processor->info();
    key += fmt::format("\n{} {} {} {} {}", info.id, info.name, info.provider, info.driver,
                       setting_of(p.options));
  }
  return fmt::format("{}/profiles/{:016x}.json", cache_dir, text_hash(key));
}

std::string columns_cache_file(const Graph& graph, std::span<const OpenProcessor> processors,
                               const std::string& cache_dir) {
  const std::string profile = profile_cache_file(graph, processors, cache_dir);
  return profile.empty() ? "" : cache_dir + "/columns" + profile.substr(profile.rfind('/'));
}

Result<Profile> read_profile(const std::string& file) {
  HETERO_TRY(const nlohmann::ordered_json json, read_json_file(file));
  auto profile = profile_from_json(json);
  if (!profile.ok()) {
    return profile.status().with_prefix(file);
  }
  return profile;
}

Status write_profile(const Profile& profile, const std::string& file) {
  return replace_file(
      file, to_json(profile).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

Result<Profile> measure_profile(const Graph& graph, std::span<const OpenProcessor> processors,
                                const ProfilerOptions& options, const std::string& file,
                                const Profile* known) {
  ProfilerOptions all = options;
  std::vector<Processor*> list;
  for (const OpenProcessor& p : processors) {
    list.push_back(p.processor);
    all.settings.push_back(setting_of(p.options));
  }
  if (!file.empty()) {
    all.save = [&](const Profile& so_far) {
      Profile part = so_far;
      part.complete = false;
      return write_profile(part, file);
    };
  }
  HETERO_TRY(Profile profile, measure(graph, list, identity_of(graph, processors), all, known));
  if (!file.empty()) {
    HETERO_RETURN_IF_ERROR(write_profile(profile, file));
  }
  return profile;
}

Result<std::unique_ptr<Planning>> Planning::create(const Graph& graph, const Selection& selection,
                                                   bool automatic, std::span<const OpenProcessor> processors,
                                                   const PlanningOptions& options,
                                                   std::vector<std::string>& notices) {
  std::unique_ptr<Planning> planning(new Planning(graph, automatic, options));
  HETERO_RETURN_IF_ERROR(planning->read_plans(processors));
  if (!options.profile_file.empty()) {
    HETERO_TRY(planning->profile_, read_profile(options.profile_file));
    HETERO_RETURN_IF_ERROR(profile_fits(*planning->profile_, graph, processors)
                               .with_prefix("--profile " + options.profile_file));
  } else if (const std::string file = profile_cache_file(graph, processors, options.cache_dir);
             !file.empty()) {
    if (auto cached = read_profile(file); cached.ok() && profile_fits(*cached, graph, processors).ok()) {
      planning->profile_ = std::move(cached).value();
    } else if (cached.status().code() == Code::kMalformed) {
      spdlog::debug("cached profile not used: {}", cached.status().message());
    }
    const bool solved = automatic || selection.strategy == Strategy::kTensor;
    planning->lacks_profile_ = !planning->profile_ && solved && processors.size() > 1;
    if (planning->lacks_profile_ && options.measure_within > Nanos{}) {
      HETERO_RETURN_IF_ERROR(planning->measure_once(processors, options.measure_within, options.cancel));
      HETERO_TRY(planning->profile_, read_profile(file));
    }
  }
  if (planning->profile_ && !usable(*planning->profile_, graph)) {
    notices.push_back(
        "the profile of these processors was cut off before it could be planned by, so plans go by fixed "
        "rules; \"hetero profile\" with the same model and options completes it");
    planning->profile_.reset();
  }
  if (planning->profile_) {
    HETERO_RETURN_IF_ERROR(
        planning->choose_compiled(selection, columns_cache_file(graph, processors, options.cache_dir)));
  }
  if (options.memory_ratio > 0.0) {
    HETERO_RETURN_IF_ERROR(planning->check_memory(selection, processors));
  }
  return planning;
}

Status Planning::check_memory(const Selection& selection, std::span<const OpenProcessor> processors) {
  std::set<std::pair<bool, int64_t>> passes = {{true, 1}};
  for (const ExpectedPass& pass : usual_passes(options_.longest_pass)) {
    passes.insert({false, pass.tokens});
  }
  for (const auto& [pass, plan] : given_) {
    passes.insert(pass);
  }
  std::vector<Plan> plans;
  for (const auto& [head, tokens] : passes) {
    HETERO_TRY(Plan plan, this->plan(selection, head, tokens, false));
    plans.push_back(std::move(plan));
  }
  const double ratio = weight_ratio(graph_, plans, [&](const std::string& id) {
    return std::any_of(processors.begin(), processors.end(), [&](const OpenProcessor& p) {
      return p.processor->info().id == id && p.processor->traits().copies_weights;
    });
  });
  return ratio <= options_.memory_ratio + 1e-9
             ? Status()
             : invalid_argument(fmt::format(
                   "--memory-ratio {:g}: with these plans ({}) weights take at least {:.3f} times the "
                   "model's",
                   options_.memory_ratio,
                   options_.plan_file.empty() ? strategy_name(selection.strategy) : options_.plan_file,
                   std::ceil(ratio * 1000.0) / 1000.0));
}

Status Planning::measure_once(std::span<const OpenProcessor> processors, Nanos within,
                              const std::atomic<bool>* cancel) {
  ProfilerOptions how;
  how.time_limit = within;
  how.rounds = 1;
  how.lengths = {1, 32, 64, 128, 256, options_.longest_pass};
  how.cancel = cancel;
  how.progress = options_.progress;
  lacks_profile_ = false;
  return measure_profile(graph_, processors, how, profile_cache_file(graph_, processors, options_.cache_dir),
                         nullptr)
      .status();
}

Status Planning::read_plans(std::span<const OpenProcessor> processors) {
  if (options_.plan_file.empty()) {
    return {};
  }
  HETERO_TRY(const nlohmann::ordered_json json, read_json_file(options_.plan_file));
  const auto list =
      json.is_object() && json.contains("plans") ? json["plans"] : nlohmann::ordered_json::array({json});
  for (const auto& one : list) {
    auto plan = plan_from_json(graph_, one);
    if (!plan.ok()) {
      return plan.status().with_prefix(options_.plan_file);
    }
    for (const std::string& id : plan->processors) {
      if (std::none_of(processors.begin(), processors.end(),
                       [&](const OpenProcessor& p) { return p.processor->info().id == id; })) {
        return invalid_argument(fmt::format(
            "{}: it uses {}, which takes no part (--processors names who does)", options_.plan_file, id));
      }
    }
    given_[{plan->head, plan->tokens}] = std::move(plan).value();
  }
  return {};
}

SolveOptions Planning::solve_options(const Selection& selection) const {
  SolveOptions o;
  o.objective = options_.objective;
  if (!automatic_) {
    o.strategy = selection.strategy;
  }
  o.processors.clear();
  for (const std::string& id : {selection.team.cpu, selection.team.gpu, selection.team.npu}) {
    if (!id.empty()) {
      o.processors.push_back(id);
    }
  }
  o.reserve = options_.reserve;
  o.predict.sync = options_.sync;
  o.copy_limit = options_.copy_limit;
  o.can_run = selection.team.can_run;
  o.npu_share = options_.npu_share;
  o.explain = false;
  o.beyond_paper = true;
  if (columns_) {
    o.compiled = [this](const std::string& id, int op) { return columns_->of(id, op); };
  }
  return o;
}

Status Planning::choose_compiled(const Selection& selection, const std::string& file) {
  const std::vector<ExpectedPass> passes = usual_passes(options_.longest_pass);
  const SolveOptions o = solve_options(selection);
  if (o.strategy && *o.strategy != Strategy::kTensor) {
    return {};  // their rules say what is compiled
  }
  // Takes some 0.4 s, so it is kept beside the profile, for as long as all that it follows from is the same.
  const std::string key =
      file.empty() ? "" : fmt::format("{:016x}", text_hash(columns_key(graph_, *profile_, passes, o)));
  if (!file.empty()) {
    if (const auto kept = read_json_file(file);
        kept.ok() && kept->is_object() && kept->value("key", "") == key) {
      if (auto columns = columns_from_json(graph_, kept->value("processors", nlohmann::ordered_json()));
          columns.ok()) {
        columns_ = std::move(columns).value();
        return {};
      }
    }
  }
  HETERO_TRY(columns_, choose_columns(graph_, *profile_, passes, o));
  if (!file.empty() && !columns_->entries.empty()) {
    const nlohmann::ordered_json json = {{"key", key}, {"processors", to_json(*columns_)}};
    if (const Status written = replace_file(file, json.dump() + "\n"); !written.ok()) {
      spdlog::debug("chosen columns not kept: {}", written.message());
    }
  }
  return {};
}

Status Planning::rescale(const Selection& selection, const std::string& id, bool decode, double factor) {
  for (ProfiledProcessor& p : profile_->processors) {
    for (Series& series : p.series) {
      for (Point& point : series.points) {
        if (p.id == id && (point.tokens == 1) == decode) {
          point.median = Nanos(static_cast<int64_t>(static_cast<double>(point.median.count()) * factor));
        }
      }
    }
  }
  return choose_compiled(selection, "");  // of a passing state
}

Result<Plan> Planning::plan(const Selection& selection, bool head, int64_t tokens, bool all_rows) {
  if (const auto given = given_.find({head, tokens}); given != given_.end()) {
    return all_rows && given->second.last_row ? with_all_rows(graph_, given->second) : given->second;
  }
  if (profile_) {
    SolveOptions o = solve_options(selection);
    o.predict.position = !head && tokens == 1 ? kUsualContext : 0;
    o.last_row = !all_rows;
    // What decoding reads stays in memory. Where processors have copies of weights for prompts, the model's
    // own can go if decoding uses the copies as well.
    const bool decode = tokens == 1 && columns_;
    if (decode && options_.memory_ratio > 0.0) {
      o.twice_limit = twice_limit(graph_, head, options_.memory_ratio);
    }
    auto solved = solve(graph_, *profile_, head, tokens, o);
    if (solved.ok() && decode && options_.memory_ratio == 0.0) {
      o.twice_limit = 0;
      if (auto once = solve(graph_, *profile_, head, tokens, o);
          once.ok() && once->predicted <= solved->predicted + solved->predicted / kWorthMemory) {
        solved = std::move(once);
      }
    }
    if (solved.ok()) {
      return std::move(solved->plan);
    }
    spdlog::debug("not planned by the profile: {}", solved.status().message());
  }
  StrategyOptions rules;
  rules.npu_share = options_.npu_share;
  rules.last_row = !all_rows;
  return make_plan(graph_, selection.strategy, selection.team, head, tokens, rules);
}

}  // namespace hetero
