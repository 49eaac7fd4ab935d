// hetero characterize: what the processors of this machine, or of a simulated chip, can do alone and
// together.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "base/date.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cpu/cpu.h"
#include "cpu/roofline.h"
#include "engine/devices.h"
#include "gguf/file.h"
#include "graph/model.h"
#include "graph/shapes.h"
#include "plan/solver.h"
#include "profile/characterize_report.h"
#include "profile/soc_file.h"
#include "sim/sim_processor.h"

namespace hetero {
namespace {

struct CharacterizeCommand {
  std::string model;
  std::string shape;
  std::vector<std::string> processors;
  std::vector<std::string> peaks;
  std::string soc;
  std::string activations = "f32";
  int threads = 0;
  int64_t width = 0;
  double seconds = 130.0;
  std::string output;
  std::string as_soc;
  bool json = false;
};

/// The operators to measure with: a model's own, or those of a named shape with random weights.
struct Operators {
  std::shared_ptr<const GgufFile> file;
  PageMemory weights;
  Graph graph;
};

Result<Operators> operators(const CharacterizeCommand& o) {
  Operators out;
  if (!o.model.empty()) {
    HETERO_TRY(out.file, GgufFile::open(o.model));
    HETERO_TRY(out.graph, build_graph(*out.file));
    if (out.graph.shape.name.empty()) {
      out.graph.shape.name = o.model.substr(o.model.rfind('/') + 1);
    }
    return out;
  }
  // A simulated chip is measured in no time, and large operators show it best.
  const std::string shape =
      !o.shape.empty() ? o.shape : std::string(o.soc.empty() ? "smollm2-135m" : "llama-3.2-1b");
  HETERO_TRY(out.graph, graph_of_shape(shape));
  out.graph.shape.name = shape;
  if (!o.soc.empty()) {
    return out;  // simulated work needs no numbers
  }
  Bytes bytes = 0;
  const auto size = [](const Weight& w) { return (w.rows * row_bytes(w.dtype, w.cols) + 63) / 64 * 64; };
  for (const Weight& w : out.graph.weights) {
    bytes += size(w);
  }
  HETERO_TRY(out.weights, PageMemory::allocate(bytes));
  std::minstd_rand random(1);
  auto* words = reinterpret_cast<uint32_t*>(out.weights.data());
  std::generate(words, words + bytes / 4, [&] { return static_cast<uint32_t>(random()) & 0x3f3f3f3fu; });
  std::byte* next = out.weights.data();
  for (Weight& w : out.graph.weights) {
    w.data = next;
    next += size(w);
  }
  return out;
}

/// Of a machine's products: about as large as most of the model's, a multiple of 256.
int64_t usual_width(const Graph& graph) {
  double logs = 0.0;
  double all = 0.0;
  for (int op = 0; op < graph.head_begin; ++op) {
    if (graph.op(op).is<Linear>()) {
      const auto elements = static_cast<double>(op_macs(graph, op, 0, graph.output_cols(op), 1, 0));
      logs += elements * std::log2(elements) / 2.0;
      all += elements;
    }
  }
  const double width = all > 0.0 ? std::exp2(logs / all) : 1024.0;
  return std::clamp<int64_t>(std::llround(width / 256.0) * 256, 512, 4096);
}

/// Peaks of what runs on the CPU's cores, as many as each of them may use.
std::map<std::string, Peak> measured_peaks(const std::vector<Member>& members) {
  std::map<std::string, Peak> peaks;
  std::map<size_t, cpu::Roofline> by_cores;
  for (const Member& m : members) {
    const std::vector<int>& cpus = m.options.cpus;
    if (cpus.empty()) {
      continue;
    }
    if (!by_cores.contains(cpus.size())) {
      const ScopedAffinity confined(cpus);
      ThreadPool pool(static_cast<int>(cpus.size()), cpus);
      by_cores[cpus.size()] = cpu::measure_roofline(cpu_levels().back(), pool);
    }
    const cpu::Roofline& r = by_cores[cpus.size()];
    const bool q8 = m.options.int8_activations && m.found->info.kind == "cpu";
    const auto& [gflops, what] = q8 && r.bf16_gflops > 0.0 ? std::pair(r.bf16_gflops, "bf16 tiles")
                                 : q8                      ? std::pair(r.int8_gops, "8-bit multiply-adds")
                                                           : std::pair(r.f32_gflops, "f32 multiply-adds");
    peaks[m.found->info.id] = {gflops, r.read_gbs,
                               fmt::format("measured: {} from registers on {} {}", what, cpus.size(),
                                           cpus.size() == 1 ? "core" : "cores")};
  }
  return peaks;
}

Status read_peaks(const std::vector<std::string>& given, std::map<std::string, Peak>& peaks) {
  for (const std::string& text : given) {
    const size_t at = text.find('=');
    char* end = nullptr;
    const double gflops = at == std::string::npos ? 0.0 : std::strtod(text.c_str() + at + 1, &end);
    if (gflops <= 0.0 || end == nullptr || *end != '\0') {
      return invalid_argument(
          fmt::format("--peak: \"{}\": expected ID=GFLOPS, for example gpu0=62000", text));
    }
    Peak& peak = peaks[text.substr(0, at)];
    peak.gflops = gflops;
    peak.source = "given by --peak";
  }
  return {};
}

/// "gpu0 60%, npu0 40%", of the multiplications.
std::string shares(const Graph& graph, const Plan& plan) {
  std::vector<double> macs(plan.processors.size(), 0.0);
  double all = 0.0;
  for (const Step& s : plan.steps) {
    const auto part = static_cast<double>(
        op_macs(graph, s.op, s.out_begin, s.out_end, s.token_end - s.token_begin, s.token_begin));
    macs[static_cast<size_t>(s.processor)] += part;
    all += part;
  }
  std::vector<std::string> texts;
  for (size_t i = 0; i < macs.size(); ++i) {
    texts.push_back(fmt::format("{} {:.0f}%", plan.processors[i], 100.0 * macs[i] / std::max(all, 1.0)));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

/// What the solver expects of each strategy; passes that the profile cannot tell are left out.
std::vector<PredictedPass> predictions(const Graph& graph, const Profile& profile) {
  std::vector<PredictedPass> out;
  for (const int64_t tokens : {int64_t{64}, int64_t{256}, int64_t{512}, int64_t{1}}) {
    const Result<Solution> body = solve(graph, profile, false, tokens);
    const Result<Solution> head = solve(graph, profile, true, 1);
    if (!body.ok() || !head.ok()) {
      continue;
    }
    PredictedPass pass;
    pass.tokens = tokens;
    for (const Alternative& a : body->alternatives) {
      pass.strategies.push_back({a.strategy, a.predicted + head->predicted,
                                 a.strategy == body->plan.strategy ? shares(graph, body->plan) : ""});
    }
    out.push_back(std::move(pass));
  }
  return out;
}

/// By which sleeping ends late, and what a look at the clock and a pause cost.
ControlThread measure_control_thread() {
  std::vector<Nanos> late;
  for (int i = 0; i < 50; ++i) {
    const Nanos until = now() + std::chrono::microseconds(50);
    system_clock().sleep_until(until);
    late.push_back(now() - until);
  }
  constexpr int kLooks = 1000;
  const Nanos begin = now();
  for (int i = 0; i < kLooks; ++i) {
    system_clock().relax();
  }
  return {summary_of(std::move(late)).median, (now() - begin) / kLooks};
}

/// Processors that are open, and what must live as long.
struct Opened {
  std::vector<FoundProcessor> found;
  std::vector<std::unique_ptr<Processor>> processors;
  std::string machine;
  bool simulated = false;
  ControlThread control;
};

/// Opens the machine's own; fills peaks and settings.
Result<Opened> open_real(const CharacterizeCommand& o, Progress& progress, CharacterizeOptions& options) {
  Opened out;
  progress.show("looking for processors", 0, 0);
  out.found = find_processors();
  HETERO_TRY(std::vector<Member> members, members_of(out.found, o.processors, o.threads));
  for (Member& m : members) {
    m.options.int8_activations = o.activations == "q8";
  }
  options.peaks = measured_peaks(members);
  for (const Member& m : members) {
    const ProcessorInfo& info = m.found->info;
    progress.show("opening " + info.id, 0, 0);
    auto processor = m.found->open(info, m.options);  // no cache on disk: compiling is measured
    if (!processor.ok()) {
      return processor.status().with_prefix(info.id);
    }
    out.processors.push_back(std::move(*processor));
    // As an engine calls it (engine/planning.cc), so that --profile takes what --json holds.
    options.profiler.settings.push_back(
        (m.options.cpus.empty() ? "" : fmt::format("cpus {}; ", fmt::join(m.options.cpus, ","))) +
        (m.options.int8_activations ? "q8" : "f32"));
    if (info.stand_in) {
      progress.clear();
      fmt::print(stderr, "hetero: {} is a stand-in: {} ({})\n", info.id, info.name, info.provider);
    }
  }
  const size_t cpus = available_cpus().size();
  out.machine = fmt::format("{}, {} {}", find_cpu().info.name, cpus, cpus == 1 ? "CPU" : "CPUs");
  out.control = measure_control_thread();
  return out;
}

/// A simulated chip's, in virtual time.
Result<Opened> open_simulated(const CharacterizeCommand& o, CharacterizeOptions& options) {
  HETERO_TRY(const nlohmann::ordered_json json, soc_json(o.soc));
  HETERO_TRY(const Soc soc, soc_from_json(json));
  const auto world = std::make_shared<World>(soc);
  Opened out;
  for (const std::string& id : o.processors) {
    if (soc.find(id) == nullptr) {
      return not_found(fmt::format("--processors: \"{}\" is not a processor of {}", id, soc.name));
    }
  }
  for (size_t i = 0; i < soc.processors.size(); ++i) {
    const SocProcessor& p = soc.processors[i];
    if (o.processors.empty() ||
        std::find(o.processors.begin(), o.processors.end(), p.id) != o.processors.end()) {
      out.processors.push_back(make_sim_processor(world, i, sim_info(soc, i), nullptr));
      const double gflops = p.model == SocModel::kSystolic ? p.array_gflops
                            : p.curve.empty()              ? p.gflops
                                                           : p.curve.back().gflops;
      options.peaks[p.id] = {gflops, p.gbps, gflops > 0.0 ? "the chip's file" : ""};
    }
  }
  out.machine = soc.title;
  out.simulated = true;
  out.control = {Nanos(std::llround(soc.sleep_grain_us * 1e3)), Nanos(std::llround(soc.poll_us * 1e3))};
  return out;
}

ProfileIdentity identity(const Graph& graph, const Opened& opened) {
  return {opened.machine, model_shape_key(graph), today(), opened.simulated};
}

Status write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? Status() : io_error(path + ": cannot be written");
}

Status run(const CharacterizeCommand& o) {
  HETERO_TRY(const Operators ops, operators(o));
  Progress progress;
  CharacterizeOptions options;
  HETERO_TRY(const Opened opened,
             o.soc.empty() ? open_real(o, progress, options) : open_simulated(o, options));
  HETERO_RETURN_IF_ERROR(read_peaks(o.peaks, options.peaks));
  std::vector<Processor*> processors;
  for (const auto& p : opened.processors) {
    processors.push_back(p.get());
  }
  options.width = o.width > 0 ? o.width : usual_width(ops.graph);
  options.profile_budget = std::chrono::milliseconds(std::llround(o.seconds * 550.0));
  options.products_budget = std::chrono::milliseconds(std::llround(o.seconds * 450.0));
  options.progress = [&](const std::string& what, int done, int total) { progress.show(what, done, total); };
  options.cancel = &interrupted();
  HETERO_TRY(Characterization c, characterize(ops.graph, processors, identity(ops.graph, opened), options));
  progress.clear();
  c.predictions = predictions(ops.graph, c.profile);

  if (!o.as_soc.empty()) {
    HETERO_RETURN_IF_ERROR(write_text(o.as_soc, dump_json(soc_file(c, opened.control)) + "\n"));
  }
  if (!o.output.empty()) {
    HETERO_RETURN_IF_ERROR(characterize_report(c).write(o.output));
  }
  if (o.json) {
    print_json(to_json(c));
  } else {
    for (const std::string& sentence : summary_of(c)) {
      fmt::print("{}\n", sentence);
    }
    for (const std::string& file : {o.output, o.as_soc}) {
      if (!file.empty()) {
        fmt::print("written to {}\n", file);
      }
    }
  }
  return interrupted() ? cancelled("stopped") : Status();
}

}  // namespace

Command register_characterize(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("characterize", "What the processors can do, alone and together, as a report");
  auto o = std::make_shared<CharacterizeCommand>();
  auto* model = command->add_option("-m,--model", o->model, "Measure with this model's operators (GGUF)");
  command
      ->add_option("--shape", o->shape,
                   "Measure with the operators of a named shape, with random weights (default: smollm2-135m; "
                   "of simulated chips llama-3.2-1b)")
      ->excludes(model);
  command
      ->add_option("--processors", o->processors,
                   "Only these, for example cpu,gpu0,npu0 (default: all but stand-ins)")
      ->delimiter(',');
  command->add_option("--soc", o->soc, "A simulated chip instead of this machine: a name or a chip's file");
  command->add_option("--threads", o->threads, "CPUs to use (default: all)")->check(CLI::Range(1, 4096));
  command
      ->add_option("--activations", o->activations,
                   "What the CPU's products round activations to: f32 (exact) or q8 (8 bits in blocks of 32)")
      ->check(CLI::IsMember({"f32", "q8"}))
      ->capture_default_str();
  command->add_option("--peak", o->peaks, "Known peak of a processor: gpu0=62000 (GFLOPS)")->delimiter(',');
  command->add_option("--width", o->width, "Of the products' matrices (default: about the model's)")
      ->check(CLI::Range(256, 16384));
  command->add_option("--time", o->seconds, "Seconds to measure for")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command->add_option("-o,--output", o->output, "Write the report to FILE: one HTML page");
  command->add_option("--as-soc", o->as_soc, "Write FILE for \"hetero simulate --soc FILE\"");
  command->add_flag("--json", o->json, "Print all that was measured as JSON");
  command->footer(
      "Ctrl-C reports what was measured so far.\n"
      "Examples:\n"
      "  hetero characterize -o report.html\n"
      "  hetero characterize --processors gpu0,npu0 -m model.gguf -o report.html --as-soc machine.json\n"
      "  hetero characterize --soc snapdragon-8-gen-3 -o report.html\n"
      "  hetero characterize --processors cpu,gpu0 --activations q8 --peak gpu0=62000 --json");
  return [o] { return run(*o); };
}

}  // namespace hetero
