#include "engine/paper.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "graph/shapes.h"
#include "sim/calibration.h"

namespace hetero {
namespace {

constexpr const char* kLlama8 = "llama-3-8b";
constexpr const char* kLlama7 = "llama-2-7b";
constexpr const char* kLlama3 = "llama-3.2-3b";
constexpr const char* kInternLm = "internlm-1.8b";
constexpr int64_t kLengths[] = {32, 64, 128, 256, 512, 1024};
constexpr int64_t kSyncLengths[] = {64, 256, 1024};  // of its figure 16
constexpr int64_t kDecoded = 16;

/// Simulators by model, and what was run on them.
class Runs {
 public:
  explicit Runs(const Soc& soc) : soc_(soc) {}

  Result<SimResult> operator()(const char* shape, const SimRun& run) {
    std::unique_ptr<Simulator>& simulator = simulators_[shape];
    if (simulator == nullptr) {
      HETERO_TRY(Graph graph, graph_of_shape(shape));
      HETERO_TRY(simulator, Simulator::create(soc_, std::move(graph)));
    }
    const Key key{shape,
                  run.prompt,
                  run.decode,
                  run.strategy ? static_cast<int>(*run.strategy) : -1,
                  static_cast<int>(run.sync),
                  static_cast<int>(run.order),
                  run.activation_centric_only,
                  run.game};
    const auto found = done_.find(key);
    if (found != done_.end()) {
      return found->second;
    }
    HETERO_TRY(const SimResult result, simulator->run(run));
    return done_.emplace(key, result).first->second;
  }

  Result<double> prefill_tps(const char* shape, Strategy strategy, int64_t prompt, Sync sync = Sync::kFast) {
    HETERO_TRY(
        const SimResult r,
        (*this)(
            shape,
            {.prompt = prompt, .decode = 0, .strategy = strategy, .sync = sync, .planned_for = Sync::kFast}));
    return r.prefill.tps();
  }
  Result<double> decode_tps(const char* shape, Strategy strategy, Sync sync = Sync::kFast) {
    HETERO_TRY(const SimResult r, (*this)(shape, {.prompt = 256,
                                                  .decode = kDecoded,
                                                  .strategy = strategy,
                                                  .sync = sync,
                                                  .planned_for = Sync::kFast}));
    return r.decode.tps();
  }

 private:
  using Key = std::tuple<std::string, int64_t, int64_t, int, int, int, bool, bool>;
  const Soc& soc_;
  std::map<std::string, std::unique_ptr<Simulator>> simulators_;
  std::map<Key, SimResult> done_;
};

/// GB/s of a large decoding product, `npu_share` of it on the NPU and the rest on the GPU.
double bandwidth(const Soc& soc, double npu_share) {
  World world(soc);
  const auto index = [&](const char* kind) {
    return static_cast<size_t>(std::find_if(soc.processors.begin(), soc.processors.end(),
                                            [&](const SocProcessor& p) { return p.kind == kind; }) -
                               soc.processors.begin());
  };
  constexpr int64_t kOut = 28672, kIn = 4096;
  const auto npu_out = static_cast<int64_t>(static_cast<double>(kOut) * npu_share);
  const auto start = [&](const char* kind, int64_t n) {
    const double bytes = stored_bytes(soc, DType::kQ4_0, n, kIn);
    return world.enqueue(index(kind), product_cost(soc, soc.processors[index(kind)], n, kIn, 1, bytes), {});
  };
  const uint64_t gpu = start("gpu", kOut - npu_out);
  const uint64_t npu = npu_out > 0 ? start("npu", npu_out) : 0;
  (void)world.run_until_done(index("gpu"), gpu);
  if (npu > 0) {
    (void)world.run_until_done(index("npu"), npu);
  }
  return world.bytes() / static_cast<double>(world.now().count());
}

/// The paper's fixed lengths fit graphs that were made ahead (its section 5.3.1), and 64 is one of them.
Soc with_graphs_for_fixed_lengths(Soc soc) {
  for (SocProcessor& p : soc.processors) {
    if (p.static_shapes && p.lengths.empty()) {
      p.lengths = {1, 32, 64, 128, 256, 512, 1024};
    }
  }
  return soc;
}

/// Fast synchronization on and off, and the ablation's steps, are compared under the plan that the
/// engine has with it: one mechanism at a time. A solver that knew of slow hand-offs would avoid them.
class Paper {
 public:
  Paper(const Soc& soc, const std::function<void(const std::string&, int, int)>& progress)
      : soc_(soc),
        fixed_soc_(with_graphs_for_fixed_lengths(soc)),
        runs_(soc_),
        fixed_(fixed_soc_),
        progress_(progress) {}

  Result<PaperResult> run() {
    for (const auto& part : {&Paper::micro, &Paper::prefill, &Paper::decode, &Paper::dynamic, &Paper::sync,
                             &Paper::ablation, &Paper::energy, &Paper::game}) {
      if (progress_) {
        progress_("simulating the paper's figures", done_++, 8);
      }
      HETERO_RETURN_IF_ERROR((this->*part)());
    }
    sort();
    return std::move(result_);
  }

 private:
  void add(const char* id, std::string what, const char* unit, double paper, double simulated,
           bool calibration = false) {
    result_.entries.push_back({id, std::move(what), unit, paper, simulated, calibration});
  }

  Status micro() {
    add("bandwidth_gpu_alone", "memory bandwidth of the GPU alone, one row times a [28672,4096] weight",
        "GB/s", 43.3, bandwidth(soc_, 0.0), true);
    add("bandwidth_gpu_npu", "the same with a quarter of the weight on the NPU at the same time", "GB/s",
        59.5, bandwidth(soc_, 0.25), true);
    for (const CalibrationFigure& f : calibration_figures(soc_)) {
      if (f.id.starts_with("npu_order_ratio")) {
        add("npu_order_ratio", "time of " + f.what, "x", f.paper, f.simulated, true);
      } else if (f.id == "graphs_ms_135") {
        add("online_prepare_graph_ms_135", f.what, "ms", f.paper, f.simulated, true);
      } else if (f.id == "graphs_ms_1000") {
        add("online_prepare_graph_ms_1000", f.what, "ms", f.paper, f.simulated, true);
      }
    }
    return {};
  }

  Status prefill() {
    HETERO_TRY(const double llama, runs_.prefill_tps(kLlama8, Strategy::kTensor, 256));
    add("prefill_llama8b_256_tensor", "prefill of Llama-8B, 256 tokens, tensor", "tok/s", 247.9, llama);
    HETERO_TRY(const double intern, runs_.prefill_tps(kInternLm, Strategy::kTensor, 256));
    add("prefill_internlm_256_tensor", "prefill of InternLM-1.8B, 256 tokens, tensor", "tok/s", 1092, intern);
    double sum = 0.0;
    for (const auto& [strategy, name] : {std::pair{Strategy::kGpu, "gpu"},
                                         {Strategy::kNpuOnline, "npu-online"},
                                         {Strategy::kNpuPadding, "npu-padding"},
                                         {Strategy::kNpuPipe, "npu-pipe"},
                                         {Strategy::kLayer, "layer"},
                                         {Strategy::kTensor, "tensor"}}) {
      PaperCurves::Line line{name, {}};
      for (const int64_t length : {32, 64, 128, 192, 256, 320, 384, 525, 700, 1000}) {
        HETERO_TRY(const double tps, runs_.prefill_tps(kLlama8, strategy, length));
        line.points.push_back({static_cast<double>(length), tps});
      }
      result_.curves.prefill.push_back(std::move(line));
    }
    for (const int64_t length : kLengths) {
      HETERO_TRY(const double tensor, fixed_.prefill_tps(kLlama8, Strategy::kTensor, length));
      HETERO_TRY(const double layer, fixed_.prefill_tps(kLlama8, Strategy::kLayer, length));
      sum += tensor / layer;
      if (length == 32) {
        add("tensor_over_layer_32", "prefill speed of Llama-8B at 32 tokens, tensor over layer", "x", 1.408,
            tensor / layer);
      }
    }
    add("tensor_over_layer_mean",
        "prefill speed of Llama-8B, tensor over layer, mean over 32, 64, 128, 256, 512 and 1024 tokens", "x",
        1.302, sum / static_cast<double>(std::size(kLengths)));
    return {};
  }

  Status decode() {
    HETERO_TRY(const double llama8, runs_.decode_tps(kLlama8, Strategy::kTensor));
    HETERO_TRY(const double llama3, runs_.decode_tps(kLlama3, Strategy::kTensor));
    HETERO_TRY(const double intern, runs_.decode_tps(kInternLm, Strategy::kTensor));
    HETERO_TRY(const double layer8, runs_.decode_tps(kLlama8, Strategy::kLayer));
    add("decode_llama8b_tensor", "decoding of Llama-8B behind 256 tokens, tensor", "tok/s", 14.01, llama8);
    add("decode_llama3b_tensor", "decoding of Llama-3B behind 256 tokens, tensor", "tok/s", 29.9, llama3);
    add("decode_internlm_tensor", "decoding of InternLM-1.8B behind 256 tokens, tensor", "tok/s", 51.12,
        intern);
    add("decode_tensor_over_layer_llama8b", "decoding speed of Llama-8B, tensor over layer", "x", 1.22,
        llama8 / layer8);
    result_.curves.models = {"Llama-8B", "Llama-3B", "InternLM-1.8B"};
    for (const auto& [strategy, name] :
         {std::pair{Strategy::kGpu, "gpu"}, {Strategy::kLayer, "layer"}, {Strategy::kTensor, "tensor"}}) {
      PaperCurves::Line line{name, {}};
      for (const char* shape : {kLlama8, kLlama3, kInternLm}) {
        HETERO_TRY(const double tps, runs_.decode_tps(shape, strategy));
        line.points.push_back({static_cast<double>(line.points.size()), tps});
      }
      result_.curves.decode.push_back(std::move(line));
    }
    return {};
  }

  Status dynamic() {
    HETERO_TRY(const double tensor, runs_.prefill_tps(kLlama8, Strategy::kTensor, 525));
    for (const auto& [id, strategy, name, paper] :
         {std::tuple{"p525_over_online_prepare", Strategy::kNpuOnline,
                     "making graphs for the length (npu-online)", 2.24},
          {"p525_over_padding", Strategy::kNpuPadding, "npu-padding (to 1024)", 2.21},
          {"p525_over_pipe", Strategy::kNpuPipe, "npu-pipe (512, then 13 padded to 32)", 1.35}}) {
      HETERO_TRY(const double other, runs_.prefill_tps(kLlama8, strategy, 525));
      add(id, fmt::format("prefill speed of Llama-8B at 525 tokens, tensor over {}", name), "x", paper,
          tensor / other);
    }
    return {};
  }

  Result<double> sync_gain(Strategy strategy, int64_t length) {
    HETERO_TRY(const double fast, fixed_.prefill_tps(kLlama8, strategy, length));
    HETERO_TRY(const double driver, fixed_.prefill_tps(kLlama8, strategy, length, Sync::kDriver));
    return fast / driver;
  }

  Status sync() {
    HETERO_TRY(const double at256, sync_gain(Strategy::kTensor, 256));
    add("sync_prefill_tensor_256", "prefill speed of Llama-8B at 256 tokens, tensor, sync fast over driver",
        "x", 236.92 / 196.44, at256);
    for (const auto& [id, strategy, name, paper] :
         {std::tuple{"sync_prefill_layer_mean", Strategy::kLayer, "layer", 1.158},
          {"sync_prefill_tensor_mean", Strategy::kTensor, "tensor", 1.243}}) {
      double sum = 0.0;
      for (const int64_t length : kSyncLengths) {
        HETERO_TRY(const double gain, sync_gain(strategy, length));
        sum += gain;
      }
      add(id,
          fmt::format("prefill speed of Llama-8B, {}, sync fast over driver, mean over 64, 256 and 1024 "
                      "tokens",
                      name),
          "x", paper, sum / static_cast<double>(std::size(kSyncLengths)));
    }
    HETERO_TRY(const double fast, runs_.decode_tps(kLlama8, Strategy::kTensor));
    HETERO_TRY(const double driver, runs_.decode_tps(kLlama8, Strategy::kTensor, Sync::kDriver));
    add("sync_decode_llama8b", "decoding speed of Llama-8B, tensor, sync fast over driver", "x", 4.01,
        fast / driver);
    return {};
  }

  Status ablation() {
    const auto time = [&](const char* name, const SimRun& run) -> Result<double> {
      HETERO_TRY(const SimResult r, runs_(kLlama8, run));
      const double ms = static_cast<double>(r.prefill.time.count()) / 1e6;
      result_.curves.ablation.emplace_back(name, ms);
      return ms;
    };
    SimRun run{.prompt = 320,
               .decode = 0,
               .strategy = Strategy::kGpu,
               .sync = Sync::kDriver,
               .planned_for = Sync::kFast};
    HETERO_TRY([[maybe_unused]] const double gpu, time("GPU only", run));
    run.strategy = Strategy::kNpuOnline;
    run.order = OperandOrder::kGiven;
    HETERO_TRY(const double naive, time("NPU, graphs on the fly", run));
    run.strategy = Strategy::kTensor;
    run.activation_centric_only = true;
    HETERO_TRY(const double activation, time("+ activation-centric", run));
    run.order = OperandOrder::kExchanged;
    HETERO_TRY(const double order, time("+ operand order", run));
    run.activation_centric_only = false;
    HETERO_TRY(const double weight, time("+ weight-centric", run));
    run.sync = Sync::kFast;
    HETERO_TRY(const double fast, time("+ fast synchronization", run));
    const auto what = [](const char* step) {
      return fmt::format("prefill of Llama-8B at 320 tokens, speed gained by {}", step);
    };
    add("ablation_activation_centric", what("cutting the sequence instead of making graphs on the fly"), "x",
        2.05, naive / activation);
    add("ablation_order", what("exchanging the operands"), "x", 1.79, activation / order);
    add("ablation_weight_centric", what("cutting weights as well"), "x", 1.20, order / weight);
    add("ablation_sync", what("fast synchronization"), "x", 1.19, weight / fast);
    return {};
  }

  Status energy() {
    std::map<Strategy, double> joules;
    for (const Strategy s : {Strategy::kGpu, Strategy::kLayer, Strategy::kTensor}) {
      HETERO_TRY(const SimResult r, runs_(kLlama8, {.prompt = 256, .decode = 32, .strategy = s}));
      joules[s] = r.prefill.joules + r.decode.joules;
    }
    const std::string what = "energy of Llama-8B, 256 tokens of prompt and 32 decoded, tensor over ";
    add("energy_tensor_vs_gpu", what + "GPU only", "x", 0.45,
        joules[Strategy::kTensor] / joules[Strategy::kGpu]);
    add("energy_tensor_vs_layer", what + "layer", "x", 0.872,
        joules[Strategy::kTensor] / joules[Strategy::kLayer]);
    return {};
  }

  Status game() {
    std::map<Strategy, SimResult> played;
    for (const Strategy s : {Strategy::kGpu, Strategy::kTensor}) {
      HETERO_TRY(played[s], runs_(kLlama8, {.prompt = 256, .decode = 32, .strategy = s, .game = true}));
    }
    HETERO_TRY(const SimResult alone,
               runs_(kLlama8, {.prompt = 256, .decode = 32, .strategy = Strategy::kTensor}));
    const SimResult& gpu = played[Strategy::kGpu];
    const SimResult& tensor = played[Strategy::kTensor];
    const std::string what = "frames per second of a 60 Hz game beside Llama-8B, 256 tokens: ";
    add("game_fps_gpu_only_prefill", what + "prefill, GPU only", "fps", 0.0, gpu.prefill.game->fps());
    add("game_fps_tensor_prefill", what + "prefill, tensor", "fps", 60.0, tensor.prefill.game->fps());
    add("game_fps_gpu_only_decode", what + "decoding, GPU only", "fps", 46.0, gpu.decode.game->fps());
    add("decode_slowdown_with_game", "time of decoding with the game over without, tensor", "x",
        1.0 / (1.0 - 0.177), alone.decode.tps() / tensor.decode.tps());
    return {};
  }

  /// In the order in which the design lists them.
  void sort() {
    static const std::vector<std::string> kOrder = {"bandwidth_gpu_alone",
                                                    "bandwidth_gpu_npu",
                                                    "npu_order_ratio",
                                                    "prefill_llama8b_256_tensor",
                                                    "prefill_internlm_256_tensor",
                                                    "tensor_over_layer_mean",
                                                    "tensor_over_layer_32",
                                                    "decode_llama8b_tensor",
                                                    "decode_llama3b_tensor",
                                                    "decode_internlm_tensor",
                                                    "decode_tensor_over_layer_llama8b",
                                                    "p525_over_online_prepare",
                                                    "p525_over_padding",
                                                    "p525_over_pipe",
                                                    "online_prepare_graph_ms_135",
                                                    "online_prepare_graph_ms_1000",
                                                    "sync_prefill_tensor_256",
                                                    "sync_prefill_layer_mean",
                                                    "sync_prefill_tensor_mean",
                                                    "sync_decode_llama8b",
                                                    "ablation_activation_centric",
                                                    "ablation_order",
                                                    "ablation_weight_centric",
                                                    "ablation_sync",
                                                    "energy_tensor_vs_gpu",
                                                    "energy_tensor_vs_layer",
                                                    "game_fps_gpu_only_prefill",
                                                    "game_fps_tensor_prefill",
                                                    "game_fps_gpu_only_decode",
                                                    "decode_slowdown_with_game"};
    const auto place = [](const PaperEntry& e) { return std::find(kOrder.begin(), kOrder.end(), e.id); };
    std::stable_sort(result_.entries.begin(), result_.entries.end(),
                     [&](const PaperEntry& a, const PaperEntry& b) { return place(a) < place(b); });
  }

  const Soc& soc_;
  const Soc fixed_soc_;
  Runs runs_;
  Runs fixed_;  // at the lengths that graphs were made for
  std::function<void(const std::string&, int, int)> progress_;
  PaperResult result_;
  int done_ = 0;
};

}  // namespace

double PaperEntry::ratio() const {
  constexpr double kFrames = 60.0;
  return paper == 0.0 ? (kFrames - simulated) / kFrames : simulated / paper;
}

Result<PaperResult> run_paper(const Soc& soc,
                              const std::function<void(const std::string&, int, int)>& progress) {
  for (const char* id : {"gpu0", "npu0"}) {
    if (soc.find(id) == nullptr) {
      return invalid_argument(fmt::format("the paper's figures need a {}, which {} lacks", id, soc.name));
    }
  }
  return Paper(soc, progress).run();
}

const std::pair<std::string, double>& Workload::best() const {
  return *std::min_element(others.begin(), others.end(),
                           [](const auto& a, const auto& b) { return a.second < b.second; });
}

Result<std::vector<Workload>> run_workloads(
    const Soc& soc, const std::function<void(const std::string&, int, int)>& progress) {
  std::vector<Workload> out;
  int done = 0;
  for (const auto& [shape, model] : {std::pair{kLlama8, "Llama-8B"},
                                     {kLlama7, "Llama-7B"},
                                     {kLlama3, "Llama-3B"},
                                     {kInternLm, "InternLM-1.8B"}}) {
    Runs runs(soc);
    for (const auto& [name, prompt, decode] :
         {std::tuple{"BELLE", 54, 374}, {"GSM8K", 296, 340}, {"LongBench-TriviaQA", 1787, 5}}) {
      if (progress) {
        progress("simulating workloads", done++, 12);
      }
      Workload w{name, model, prompt, decode, 0.0, {}};
      const auto seconds = [&](Strategy s) -> Result<double> {
        HETERO_TRY(const SimResult r, runs(shape, {.prompt = w.prompt, .decode = w.decode, .strategy = s}));
        return static_cast<double>((r.prefill.time + r.decode.time).count()) / 1e9;
      };
      HETERO_TRY(w.tensor, seconds(Strategy::kTensor));
      for (const Strategy s : {Strategy::kGpu, Strategy::kNpuOnline, Strategy::kNpuPadding}) {
        HETERO_TRY(const double t, seconds(s));
        w.others.emplace_back(strategy_name(s), t);
      }
      out.push_back(std::move(w));
    }
  }
  return out;
}

}  // namespace hetero
