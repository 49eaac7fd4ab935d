// hetero simulate: a model on a chip that nobody has to own, and the paper's figures.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/commands.h"
#include "cli/simulate_report.h"
#include "engine/paper.h"
#include "engine/simulator.h"
#include "graph/model.h"
#include "graph/shapes.h"
#include "sim/calibration.h"

namespace hetero {
namespace {

struct SimulateOptions {
  std::string soc = "snapdragon-8-gen-3";
  std::vector<std::string> set;
  std::string shape;
  std::string model;
  std::string type = "Q4_0";
  std::string kv_cache = "auto";
  std::string prompt = "256";
  int64_t decode = 32;
  std::string strategy = "auto";
  std::string sync = "fast";
  std::vector<std::string> processors;
  std::optional<double> game;  // ms of GPU work for a frame; 0: as the chip's file says
  std::string trace;
  std::string html;
  bool paper = false;
  bool workloads = false;
  bool calibrate = false;
  bool json = false;
};

double millis(Nanos t) {
  return static_cast<double>(t.count()) / 1e6;
}

/// "256", or "1:1024:32": from, to and step.
Result<std::vector<int64_t>> prompts(const std::string& text) {
  std::vector<int64_t> numbers;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  while (at < end) {
    int64_t n = 0;
    const auto [next, error] = std::from_chars(at, end, n);
    if (error != std::errc() || n < 1 || (next < end && *next != ':') || next + 1 == end) {
      numbers.clear();
      break;
    }
    numbers.push_back(n);
    at = next + 1;
  }
  if (numbers.size() == 1) {
    return numbers;
  }
  if (numbers.size() != 3 || numbers[1] < numbers[0]) {
    return invalid_argument(
        fmt::format("--prompt {}: expected tokens (256) or FROM:TO:STEP (1:1024:32)", text));
  }
  std::vector<int64_t> out;
  for (int64_t n = numbers[0]; n <= numbers[1]; n += numbers[2]) {
    out.push_back(n);
  }
  if (out.size() > 4096) {
    return invalid_argument(fmt::format("--prompt {}: {} lengths, at most 4096", text, out.size()));
  }
  return out;
}

Result<Graph> graph(const SimulateOptions& o) {
  if (!o.model.empty()) {
    HETERO_TRY(const auto file, GgufFile::open(o.model, {}));
    HETERO_TRY(Graph graph, build_graph(*file, 0, kv_cache_type(o.kv_cache)));
    for (Weight& w : graph.weights) {
      w.data = nullptr;  // the file is closed; only its shapes count
    }
    return graph;
  }
  const auto type = dtype_from_name(o.type);
  if (!type) {
    return invalid_argument(fmt::format("--type: \"{}\" is not a tensor type", o.type));
  }
  return graph_of_shape(o.shape, *type, 0, kv_cache_type(o.kv_cache));
}

nlohmann::ordered_json phase_json(const SimPhase& phase) {
  nlohmann::ordered_json json = {{"tokens", phase.tokens},     {"time_ms", millis(phase.time)},
                                 {"tps", phase.tps()},         {"compile_ms", millis(phase.compiling)},
                                 {"energy_j", phase.joules},   {"watts", phase.watts()},
                                 {"memory_gbps", phase.gbps()}};
  if (phase.game) {
    json["game_fps"] = phase.game->fps();
    json["game_dropped_frames"] = phase.game->dropped;
  }
  return json;
}

nlohmann::ordered_json result_json(const Simulator& simulator, const SimResult& r, const SimRun& run) {
  return {{"simulated", true},
          {"soc", simulator.soc().name},
          {"note", simulator.soc().note},
          {"model", simulator.graph().shape.name},
          {"prompt_tokens", r.prefill.tokens},
          {"decoded_tokens", r.decode.tokens},
          {"strategy", r.strategy},
          {"sync", sync_name(run.sync)},
          {"prefill_tps", r.prefill.tps()},
          {"decode_tps", r.decode.tps()},
          {"ttft_ms", millis(r.prefill.time)},
          {"energy_j", r.prefill.joules + r.decode.joules},
          {"prefill", phase_json(r.prefill)},
          {"decode", phase_json(r.decode)}};
}

nlohmann::ordered_json timeline_json(const Trace& trace) {
  auto list = nlohmann::ordered_json::array();
  for (const Trace::Event& e : trace.events()) {
    list.push_back({{"processor", e.processor},
                    {"op", e.name},
                    {"tokens", e.tokens},
                    {"begin_ms", millis(e.interval.begin - trace.events().front().interval.begin)},
                    {"end_ms", millis(e.interval.end - trace.events().front().interval.begin)}});
  }
  return list;
}

Status run_model(const SimulateOptions& o, Soc soc) {
  HETERO_TRY(const std::vector<int64_t> lengths, prompts(o.prompt));
  SimRun run{.decode = o.decode, .game = o.game.has_value(), .game_frame_ms = o.game.value_or(0.0)};
  if (o.strategy != "auto") {
    run.strategy = strategy_from_name(o.strategy);
    if (!run.strategy) {
      return invalid_argument(
          fmt::format("--strategy: \"{}\" is not one of auto, cpu, gpu, npu-online, npu-padding, "
                      "npu-pipe, layer, tensor",
                      o.strategy));
    }
  }
  const auto sync = sync_from_name(o.sync);
  if (!sync) {
    return invalid_argument(fmt::format("--sync: \"{}\" is not one of fast, driver", o.sync));
  }
  run.sync = *sync;
  HETERO_TRY(Graph g, graph(o));
  HETERO_TRY(const auto simulator, Simulator::create(std::move(soc), std::move(g), o.processors));
  Progress progress;
  std::vector<SimResult> results;
  Trace trace;
  run.trace = lengths.size() == 1 ? &trace : nullptr;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (interrupted()) {
      return cancelled("stopped");
    }
    progress.show("simulating", static_cast<int>(i), static_cast<int>(lengths.size()));
    run.prompt = lengths[i];
    HETERO_TRY(SimResult result, simulator->run(run));
    results.push_back(std::move(result));
  }
  progress.clear();
  if (!o.trace.empty()) {
    if (lengths.size() > 1) {
      return invalid_argument("--trace: one prompt length at a time");
    }
    HETERO_RETURN_IF_ERROR(trace.write(o.trace));
  }
  if (!o.html.empty()) {
    HETERO_RETURN_IF_ERROR(simulate_report(*simulator, results, run, trace).write(o.html));
  }
  if (o.json && lengths.size() == 1) {
    nlohmann::ordered_json json = result_json(*simulator, results[0], run);
    json["timeline"] = timeline_json(trace);
    print_json(json);
    return {};
  }
  if (o.json) {
    auto list = nlohmann::ordered_json::array();
    for (const SimResult& r : results) {
      list.push_back(result_json(*simulator, r, run));
    }
    print_json({{"simulated", true}, {"sweep", std::move(list)}});
    return {};
  }
  fmt::print("simulated: {} on {}\n({})\nstrategy {}, sync {}\n\n", simulator->graph().shape.name,
             simulator->soc().title, simulator->soc().note, results[0].strategy, o.sync);
  fmt::print("{:>8} {:>12} {:>12} {:>10} {:>10} {:>9} {:>9}{}\n", "prompt", "prefill t/s", "decode t/s",
             "ttft ms", "energy J", "GB/s dec", "W prefill", run.game ? "  game fps prefill, decode" : "");
  for (const SimResult& r : results) {
    fmt::print("{:>8} {:>12.1f} {:>12.2f} {:>10.1f} {:>10.2f} {:>9.1f} {:>9.2f}", r.prefill.tokens,
               r.prefill.tps(), r.decode.tps(), millis(r.prefill.time), r.prefill.joules + r.decode.joules,
               r.decode.gbps(), r.prefill.watts());
    if (run.game) {
      fmt::print("  {:.1f}, {:.1f}", r.prefill.game->fps(), r.decode.game->fps());
    }
    fmt::print("\n");
  }
  return {};
}

nlohmann::ordered_json workloads_json(const std::vector<Workload>& workloads) {
  auto list = nlohmann::ordered_json::array();
  for (const Workload& w : workloads) {
    nlohmann::ordered_json others;
    for (const auto& [name, s] : w.others) {
      others[name] = s;
    }
    list.push_back({{"simulated", true},
                    {"model", w.model},
                    {"workload", w.name},
                    {"prompt_tokens", w.prompt},
                    {"decoded_tokens", w.decode},
                    {"tensor_s", w.tensor},
                    {"others_s", std::move(others)},
                    {"best_other", w.best().first},
                    {"gain", w.best().second / w.tensor}});
  }
  return list;
}

Status run_published(const SimulateOptions& o, const Soc& soc) {
  Progress progress;
  const auto show = [&](const std::string& what, int done, int total) { progress.show(what, done, total); };
  PaperResult result;
  if (o.paper) {
    HETERO_TRY(result, run_paper(soc, show));
  }
  std::vector<Workload> workloads;
  if (o.workloads || !o.html.empty()) {
    HETERO_TRY(workloads, run_workloads(soc, show));
  }
  progress.clear();
  if (!o.html.empty()) {
    HETERO_RETURN_IF_ERROR(paper_report(soc, result, workloads).write(o.html));
  }
  if (o.json && o.paper) {
    auto list = nlohmann::ordered_json::array();
    for (const PaperEntry& e : result.entries) {
      list.push_back({{"id", e.id},
                      {"what", e.what},
                      {"unit", e.unit},
                      {"paper", e.paper},
                      {"simulated", e.simulated},
                      {"ratio", e.ratio()},
                      {"used_for", e.calibration ? "calibration" : "validation"}});
    }
    print_json(list);
    return {};
  }
  if (o.json) {
    print_json(workloads_json(workloads));
    return {};
  }
  fmt::print("simulated: {} ({})\n\n", soc.title, soc.note);
  if (o.paper) {
    fmt::print("{:<34} {:>9} {:>10} {:>6}  {:<6} {}\n", "id", "paper", "simulated", "ratio", "unit",
               "used for");
    for (const PaperEntry& e : result.entries) {
      fmt::print("{:<34} {:>9.4g} {:>10.4g} {:>6.2f}  {:<6} {}\n", e.id, e.paper, e.simulated, e.ratio(),
                 e.unit, e.calibration ? "calibration" : "validation");
    }
  }
  if (o.workloads) {
    fmt::print("{}{:<14} {:<20} {:>7} {:>7} {:>9} {:>9} {:>11} {:>12} {:>7}\n", o.paper ? "\n" : "", "model",
               "workload", "prompt", "answer", "tensor s", "gpu s", "npu-online", "npu-padding", "gain");
    for (const Workload& w : workloads) {
      fmt::print("{:<14} {:<20} {:>7} {:>7} {:>9.2f} {:>9.2f} {:>11.2f} {:>12.2f} {:>6.2f}x\n", w.model,
                 w.name, w.prompt, w.decode, w.tensor, w.others[0].second, w.others[1].second,
                 w.others[2].second, w.best().second / w.tensor);
    }
  }
  return {};
}

Status run_calibration(const SimulateOptions& o, const Soc& soc) {
  if (soc.find("gpu0") == nullptr || soc.find("npu0") == nullptr ||
      soc.find("npu0")->model != SocModel::kSystolic || soc.find("gpu0")->curve.empty()) {
    return invalid_argument(fmt::format(
        "--calibrate: {} is not a chip like the paper's, with gpu0 (a curve) and npu0 (systolic)", soc.name));
  }
  const Calibration c = calibrate(soc);
  const std::vector<CalibrationFigure> figures = calibration_figures(c.soc);
  if (o.json) {
    auto numbers = nlohmann::ordered_json::array();
    for (const FittedNumber& n : c.numbers) {
      numbers.push_back({{"number", n.path}, {"in_file", n.in_file}, {"fitted", n.fitted}});
    }
    auto list = nlohmann::ordered_json::array();
    for (const CalibrationFigure& f : figures) {
      list.push_back({{"id", f.id},
                      {"tag", f.tag},
                      {"what", f.what},
                      {"unit", f.unit},
                      {"paper", f.paper},
                      {"simulated", f.simulated},
                      {"ratio", f.simulated / f.paper},
                      {"weight", f.weight}});
    }
    print_json({{"simulated", true},
                {"soc", soc.name},
                {"numbers", std::move(numbers)},
                {"figures", std::move(list)}});
    return {};
  }
  fmt::print("{:<30} {:>12} {:>12}\n", "number", "in the file", "fitted");
  for (const FittedNumber& n : c.numbers) {
    fmt::print("{:<30} {:>12.4g} {:>12.4g}\n", n.path, n.in_file, n.fitted);
  }
  fmt::print("\n{:<28} {:<18} {:>9} {:>10} {:>6} {:>7}  {}\n", "figure", "tag", "paper", "simulated", "ratio",
             "weight", "unit");
  for (const CalibrationFigure& f : figures) {
    fmt::print("{:<28} {:<18} {:>9.4g} {:>10.4g} {:>6.2f} {:>7.1f}  {}\n", f.id, f.tag, f.paper, f.simulated,
               f.simulated / f.paper, f.weight, f.unit);
  }
  return {};
}

Status run(const SimulateOptions& o) {
  HETERO_TRY(Soc soc, load_soc(o.soc, o.set));
  if (o.calibrate) {
    return run_calibration(o, soc);
  }
  if (o.paper || o.workloads) {
    return run_published(o, soc);
  }
  return run_model(o, std::move(soc));
}

}  // namespace

Command register_simulate(CLI::App& app) {
  CLI::App* command = app.add_subcommand("simulate", "Run a model on a simulated chip, in virtual time");
  auto o = std::make_shared<SimulateOptions>();
  command
      ->add_option("--soc", o->soc,
                   "Chip: snapdragon-8-gen-3 (calibrated), snapdragon-8-elite, dimensity-9300, apple-a18 "
                   "(scaled), or a file")
      ->capture_default_str();
  command->add_option("--set", o->set,
                      "Change a number of the chip: npu.tflops=34, dram.gbps=77; may be repeated");
  auto* shape = command->add_option("--shape", o->shape,
                                    "Model by name: llama-3-8b, llama-2-7b, llama-3.2-3b, llama-3.2-1b, "
                                    "internlm-1.8b, qwen2.5-1.5b, smollm2-135m");
  auto* model = command->add_option("-m,--model", o->model, "Model by the header of a GGUF file");
  shape->excludes(model);
  command->add_option("--type", o->type, "Tensor type of a model by name")->capture_default_str();
  add_kv_cache_option(*command, o->kv_cache);
  command->add_option("--prompt", o->prompt, "Tokens of the prompt, or FROM:TO:STEP")->capture_default_str();
  command->add_option("--decode", o->decode, "Tokens to decode")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--strategy", o->strategy,
                   "auto, cpu, gpu, npu-online, npu-padding, npu-pipe, layer, tensor")
      ->capture_default_str();
  command->add_option("--sync", o->sync, "fast, or driver: the ordinary way, for comparison")
      ->capture_default_str();
  command
      ->add_option("--processors", o->processors, "Only these, for example gpu0 (default: all but the CPU)")
      ->delimiter(',');
  command
      ->add_option(
          "--game", o->game,
          "A 60 Hz game beside it, with so many ms of GPU work in each frame (0: as the chip's file says)")
      ->check(CLI::Range(0.0, 1000.0));
  command->add_option("--trace", o->trace, "Write the timeline to FILE (Chrome trace format)");
  command->add_option("--html", o->html, "Write a page with plots to FILE");
  command->add_flag("--paper", o->paper,
                    "All published figures of the HeteroInfer paper beside the simulated ones");
  command->add_flag("--workloads", o->workloads, "The paper's three workloads on its four models");
  command->add_flag("--calibrate", o->calibrate, "Fit the chip's free numbers again, and show to what");
  command->add_flag("--json", o->json, "Print one JSON document");
  command->footer(
      "Examples:\n"
      "  hetero simulate --shape llama-3-8b --prompt 525 --strategy tensor\n"
      "  hetero simulate --shape llama-3.2-1b --prompt 32:1024:32 --html sweep.html\n"
      "  hetero simulate --shape llama-3-8b --set npu.tflops=34 --set dram.gbps=77\n"
      "  hetero simulate --paper --html paper.html\n"
      "Everything it prints is simulated; docs/simulation.md describes the model.");
  command->callback([o] {
    if (o->shape.empty() && o->model.empty() && !o->paper && !o->workloads && !o->calibrate) {
      throw CLI::RequiredError("--shape NAME, -m MODEL, --paper, --workloads or --calibrate");
    }
  });
  return [o] { return run(*o); };
}

}  // namespace hetero
