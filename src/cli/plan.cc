// hetero plan: who does what, and why.
#include <fmt/format.h>

#include <fstream>

#include "cli/commands.h"
#include "engine/passes.h"
#include "engine/planning.h"
#include "engine/simulator.h"
#include "graph/model.h"
#include "graph/shapes.h"
#include "plan/columns.h"

namespace hetero {
namespace {

struct PlanCommand {
  std::string model;
  std::string shape;
  std::string profile;
  std::string soc;
  std::vector<std::string> set;
  std::string kv_cache = "auto";
  int64_t tokens = 256;
  std::string phase = "prefill";
  int64_t position = -1;
  std::string strategy = "auto";
  std::vector<std::string> processors;
  std::vector<std::string> reserve;
  std::string objective = "latency";
  std::string sync = "fast";
  int64_t copy_limit = -1;
  double memory_ratio = 0.0;
  std::string output;
  bool json = false;
};

double millis(Nanos t) {
  return static_cast<double>(t.count()) / 1e6;
}
double micros(Nanos t) {
  return static_cast<double>(t.count()) / 1e3;
}

Result<SolveOptions> solve_options(const PlanCommand& o, const Profile& profile) {
  SolveOptions out;
  if (o.strategy != "auto") {
    out.strategy = strategy_from_name(o.strategy);
    if (!out.strategy) {
      return invalid_argument(
          fmt::format("--strategy: \"{}\" is not one of auto, cpu, gpu, npu-online, "
                      "npu-padding, npu-pipe, layer, tensor",
                      o.strategy));
    }
  }
  for (const auto* list : {&o.processors, &o.reserve}) {
    for (const std::string& name : *list) {
      const bool known = std::any_of(profile.processors.begin(), profile.processors.end(),
                                     [&](const auto& p) { return p.id == name || p.kind == name; });
      if (!known) {
        return invalid_argument(fmt::format("\"{}\" is not a processor of the profile", name));
      }
    }
  }
  out.processors = o.processors;
  out.reserve = o.reserve;
  out.objective = o.objective == "energy" ? Objective::kEnergy : Objective::kLatency;
  out.predict.sync = o.sync;
  out.copy_limit = o.copy_limit;
  out.beyond_paper = !profile.identity.simulated;  // as runs do
  return out;
}

/// What a run has graphs for; its plans for all lengths, and memory, depend on it.
Result<CompiledColumns> columns_for_run(const Graph& graph, const Profile& profile,
                                        const SolveOptions& options) {
  if (options.strategy && options.strategy != Strategy::kTensor) {
    return invalid_argument(
        fmt::format("--memory-ratio: plans of strategy {} go by fixed rules; auto and tensor can be told",
                    strategy_name(*options.strategy)));
  }
  SolveOptions usual = options;
  usual.predict.position = 0;
  return choose_columns(graph, profile, usual_passes(kMaxPassTokens), usual);
}

nlohmann::ordered_json alternatives_json(const std::vector<Alternative>& list, bool in_micros) {
  auto json = nlohmann::ordered_json::array();
  for (const Alternative& a : list) {
    json.push_back({{"strategy", a.strategy},
                    {in_micros ? "predicted_us" : "predicted_ms",
                     in_micros ? micros(a.predicted) : millis(a.predicted)}});
  }
  return json;
}

nlohmann::ordered_json operators_json(const Solution& solution) {
  auto json = nlohmann::ordered_json::array();
  for (const OperatorChoice& c : solution.operators) {
    if (c.kind != "linear" && c.kind != "expert_linear") {
      continue;
    }
    nlohmann::ordered_json share;
    for (const auto& [id, part] : c.share) {
      share[id] = part;
    }
    json.push_back({{"op", c.op},
                    {"weight", {c.out, c.in}},
                    {"tokens", c.tokens},
                    {"strategy", c.strategy},
                    {"share", std::move(share)},
                    {"exchanged", c.exchanged},
                    {"predicted_us", micros(c.predicted)},
                    {"rejected", alternatives_json(c.rejected, true)}});
  }
  return json;
}

/// Both plans of the pass, body and head, by strategy.
std::vector<Alternative> added(const Solution& body, const Solution& head) {
  std::vector<Alternative> out;
  for (const Alternative& b : body.alternatives) {
    for (const Alternative& h : head.alternatives) {
      if (h.strategy == b.strategy) {
        out.push_back({b.strategy, b.predicted + h.predicted});
      }
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Alternative& a, const Alternative& b) { return a.predicted < b.predicted; });
  return out;
}

std::string shares(const OperatorChoice& c) {
  std::string text;
  for (const auto& [id, part] : c.share) {
    const bool exchanged = std::find(c.exchanged.begin(), c.exchanged.end(), id) != c.exchanged.end();
    text += fmt::format("{}{} {:.0f}%{}", text.empty() ? "" : ", ", id, 100.0 * part, exchanged ? "*" : "");
  }
  return text;
}

void print_table(const PlanCommand& o, const Solution& body, const Solution& head, const Profile& profile) {
  fmt::print("{} of {} {}{}: {:.2f} ms predicted, {:.2f} ms by the best single processor{}\n", o.phase,
             o.tokens, o.tokens == 1 ? "token" : "tokens", o.phase == "decode" ? " in the cache" : "",
             millis(body.predicted + head.predicted),
             millis(body.plan.best_single_predicted + head.plan.best_single_predicted),
             profile.identity.simulated ? " (simulated)" : "");
  fmt::print("\n{:<26} {:<16} {:<19} {:>12}  {:<24} {}\n", "operator", "weight", "strategy", "predicted",
             "share", "rejected");
  for (const Solution* s : {&body, &head}) {
    for (const OperatorChoice& c : s->operators) {
      std::string rejected;
      for (const Alternative& r : c.rejected) {
        rejected += fmt::format("{}{} {:.0f}", rejected.empty() ? "" : ", ", r.strategy, micros(r.predicted));
      }
      fmt::print("{:<26} {:<16} {:<19} {:>9.0f} us  {:<24} {}\n", c.op,
                 c.in > 0 ? fmt::format("[{},{}]", c.out, c.in) : "", c.strategy, micros(c.predicted),
                 shares(c), rejected);
    }
  }
  if (std::any_of(body.operators.begin(), body.operators.end(),
                  [](const OperatorChoice& c) { return !c.exchanged.empty(); })) {
    fmt::print("* with the operands in exchanged order: y^T = W x^T\n");
  }
  fmt::print("\nwhole plans:");
  for (const Alternative& a : added(body, head)) {
    fmt::print("  {} {:.2f} ms", a.strategy, millis(a.predicted));
  }
  fmt::print("\n");
  for (const Solution* s : {&body, &head}) {
    for (const std::string& work : s->unmeasured) {
      fmt::print("not in the profile, counted as nothing: {}\n", work);
    }
  }
  for (const ProfiledProcessor& p : profile.processors) {
    if (p.stand_in) {
      fmt::print("{} is a stand-in: {} ({})\n", p.id, p.name, p.provider);
    }
  }
}

Status run(const PlanCommand& o) {
  std::shared_ptr<const GgufFile> file;
  Graph graph;
  if (!o.shape.empty()) {
    HETERO_TRY(graph, graph_of_shape(o.shape, DType::kQ4_0, 0, kv_cache_type(o.kv_cache)));
  } else {
    HETERO_TRY(file, GgufFile::open(o.model));
    HETERO_TRY(graph, build_graph(*file, 0, kv_cache_type(o.kv_cache)));
  }
  Profile profile;
  if (o.soc.empty()) {
    HETERO_TRY(profile, read_profile(o.profile));
  } else {
    HETERO_TRY(Soc soc, load_soc(o.soc, o.set));
    HETERO_TRY(const auto simulator, Simulator::create(std::move(soc), graph));
    HETERO_TRY(const Profile* const simulated, simulator->profile());
    profile = *simulated;
  }
  HETERO_TRY(SolveOptions options, solve_options(o, profile));
  const bool decode = o.phase == "decode";
  options.predict.position = o.position >= 0 ? o.position : decode ? o.tokens : 0;
  CompiledColumns columns;
  if (o.memory_ratio > 0.0) {
    HETERO_TRY(columns, columns_for_run(graph, profile, options));
    options.compiled = [&](const std::string& id, int op) { return columns.of(id, op); };
    options.twice_limit = decode ? twice_limit(graph, false, o.memory_ratio) : -1;
  }
  options.last_row = !profile.identity.simulated;  // as runs do, once columns are chosen
  HETERO_TRY(const Solution body, solve(graph, profile, false, decode ? 1 : o.tokens, options));
  options.predict.position = 0;
  options.twice_limit = o.memory_ratio > 0.0 ? twice_limit(graph, true, o.memory_ratio) : -1;
  HETERO_TRY(const Solution head, solve(graph, profile, true, 1, options));
  if (!o.output.empty()) {
    std::ofstream out(o.output, std::ios::binary);
    const nlohmann::ordered_json plans = {{"plans", {to_json(graph, body.plan), to_json(graph, head.plan)}}};
    out << dump_json(plans, 1) << "\n";
    if (!out.flush()) {
      return io_error(o.output + ": cannot be written");
    }
  }
  if (!o.json) {
    print_table(o, body, head, profile);
    return {};
  }
  auto steps = to_json(graph, body.plan)["steps"];
  const auto of_head = to_json(graph, head.plan);
  for (const auto& step : of_head["steps"]) {
    steps.push_back(step);
  }
  auto operators = operators_json(body);
  for (const auto& op : operators_json(head)) {
    operators.push_back(op);
  }
  print_json({{"strategy", body.plan.strategy},
              {"phase", o.phase},
              {"tokens", o.tokens},
              {"simulated", profile.identity.simulated},
              {"predicted_ms", millis(body.predicted + head.predicted)},
              {"best_single_predicted_ms",
               millis(body.plan.best_single_predicted + head.plan.best_single_predicted)},
              {"copied_bytes", body.copied_bytes + head.copied_bytes},
              {"twice_bytes", body.twice_bytes + head.twice_bytes},
              {"alternatives", alternatives_json(added(body, head), false)},
              {"operators", std::move(operators)},
              {"unmeasured", body.unmeasured},
              {"steps", std::move(steps)}});
  return {};
}

}  // namespace

Command register_plan(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "Tell who computes what, and why, by a profile");
  auto o = std::make_shared<PlanCommand>();
  auto* model = command->add_option("-m,--model", o->model, "Model file (GGUF)");
  auto* shape = command->add_option("--shape", o->shape,
                                    "Instead of a file: llama-3-8b, llama-2-7b, llama-3.2-3b, "
                                    "llama-3.2-1b, internlm-1.8b, qwen2.5-1.5b, smollm2-135m");
  model->excludes(shape);
  auto* profile = command->add_option("--profile", o->profile, "Profile to plan by (hetero profile)");
  auto* soc = command->add_option("--soc", o->soc, "Plan for a simulated chip instead (hetero simulate)");
  profile->excludes(soc);
  command->add_option("--set", o->set, "Change a number of that chip: npu.tflops=34; may be repeated")
      ->needs(soc);
  add_kv_cache_option(*command, o->kv_cache);
  command->add_option("--tokens", o->tokens, "Prefill: tokens of the prompt; decode: tokens in the KV cache")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--phase", o->phase, "prefill or decode")
      ->check(CLI::IsMember({"prefill", "decode"}))
      ->capture_default_str();
  command
      ->add_option("--position", o->position,
                   "Tokens in the KV cache before the pass (default: by the phase)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command
      ->add_option("--strategy", o->strategy,
                   "auto (the best of everything), tensor (the solver, GPU and NPU), or one by fixed rules")
      ->capture_default_str();
  command->add_option("--processors", o->processors, "Only these take part")->delimiter(',');
  command->add_option("--reserve", o->reserve, "Leave these free for other apps: ids or kinds")
      ->delimiter(',');
  command->add_option("--objective", o->objective, "latency or energy")
      ->check(CLI::IsMember({"latency", "energy"}))
      ->capture_default_str();
  command->add_option("--sync", o->sync, "fast or driver")
      ->check(CLI::IsMember({"fast", "driver"}))
      ->capture_default_str();
  command->add_option("--copy-limit", o->copy_limit, "Bytes of weights that processors may hold copies of");
  command
      ->add_option("--memory-ratio", o->memory_ratio,
                   "Plan as a run does that may hold so many times the model's weights in memory; 1: once")
      ->check(CLI::Range(1.0, 1000.0));
  command->add_option("-o,--output", o->output, "Write the plan to FILE, for \"run --plan FILE\"");
  command->add_flag("--json", o->json, "Print one JSON document");
  command->footer(
      "Examples:\n"
      "  hetero plan -m model.gguf --profile p.json --tokens 300\n"
      "  hetero plan --shape llama-3-8b --profile phone.json --phase decode --tokens 256 --json\n"
      "  hetero plan --shape llama-3-8b --soc snapdragon-8-gen-3 --tokens 300");
  command->callback([model, shape, profile, soc] {
    if (model->count() + shape->count() == 0) {
      throw CLI::RequiredError("-m MODEL or --shape NAME");
    }
    if (profile->count() + soc->count() == 0) {
      throw CLI::RequiredError("--profile FILE or --soc NAME");
    }
  });
  return [o] { return run(*o); };
}

}  // namespace hetero
