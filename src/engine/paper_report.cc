// The HTML page of `simulate --paper`.
#include <fmt/format.h>

#include <cmath>

#include "engine/paper.h"

namespace hetero {
namespace {

class Page {
 public:
  Page(const Soc& soc, const PaperResult& result)
      : result_(result),
        report_("The paper's figures, simulated",
                fmt::format(
                    "{}, {}. Everything named simulated here is a prediction of a model, not a measurement.",
                    soc.title, soc.note)) {}

  Report write(const std::vector<Workload>& workloads) {
    summary();
    table();
    report_.heading("Prefill by length and strategy");
    lines("Llama-8B, prefill speed (simulated)", "tokens of the prompt", "tok/s", result_.curves.prefill,
          "The paper's figure at 256 tokens, tensor: 247.9 tok/s.");
    report_.heading("Prompts of any length");
    bars("525 tokens: tensor over other ways, Llama-8B", "x",
         {{"p525_over_online_prepare", "graphs on the fly"},
          {"p525_over_padding", "padding"},
          {"p525_over_pipe", "pipe"}});
    bars("Making graphs for a length, 4 graphs of Llama-8B", "ms",
         {{"online_prepare_graph_ms_135", "135 tokens"}, {"online_prepare_graph_ms_1000", "1000 tokens"}});
    report_.heading("Decoding");
    bars("Decoding speed, tensor", "tok/s",
         {{"decode_llama8b_tensor", "Llama-8B"},
          {"decode_llama3b_tensor", "Llama-3B"},
          {"decode_internlm_tensor", "InternLM-1.8B"}});
    decode_by_strategy();
    report_.heading("Synchronization");
    bars("Fast over driver", "x",
         {{"sync_prefill_tensor_256", "prefill 256, tensor"},
          {"sync_prefill_layer_mean", "prefill mean, layer"},
          {"sync_prefill_tensor_mean", "prefill mean, tensor"},
          {"sync_decode_llama8b", "decode"}});
    report_.heading("Ablation");
    ablation();
    bars("What each step gains, Llama-8B at 320 tokens", "x",
         {{"ablation_activation_centric", "activation-centric"},
          {"ablation_order", "operand order"},
          {"ablation_weight_centric", "weight-centric"},
          {"ablation_sync", "fast sync"}});
    report_.heading("Bandwidth, energy, a game beside it");
    bars("Memory bandwidth while decoding", "GB/s",
         {{"bandwidth_gpu_alone", "GPU"}, {"bandwidth_gpu_npu", "GPU and NPU"}});
    bars("Energy of tensor over others, 256 tokens of prompt and 32 decoded", "x",
         {{"energy_tensor_vs_gpu", "GPU only"}, {"energy_tensor_vs_layer", "layer"}});
    bars("Frames per second of a 60 Hz game", "fps",
         {{"game_fps_gpu_only_prefill", "prefill, GPU only"},
          {"game_fps_tensor_prefill", "prefill, tensor"},
          {"game_fps_gpu_only_decode", "decode, GPU only"}});
    if (!workloads.empty()) {
      table(workloads);
    }
    return std::move(report_);
  }

 private:
  const PaperEntry& entry(const std::string& id) const {
    for (const PaperEntry& e : result_.entries) {
      if (e.id == id) {
        return e;
      }
    }
    static const PaperEntry kNone;
    return kNone;
  }

  void summary() {
    int calibration = 0, met = 0, validation = 0, within15 = 0, within30 = 0;
    for (const PaperEntry& e : result_.entries) {
      const double off = std::abs(e.ratio() - 1.0);
      if (e.calibration) {
        ++calibration;
        met += off <= 0.1 ? 1 : 0;
      } else {
        ++validation;
        within15 += off <= 0.15 ? 1 : 0;
        within30 += off <= 0.3 ? 1 : 0;
      }
    }
    report_.summary({fmt::format("The chip's numbers were fitted to micro-measurements only (section 3 and "
                                 "Table 3 of the paper): {} of "
                                 "{} calibration figures are met within 10%.",
                                 met, calibration),
                     fmt::format("Of {} figures that it was not fitted to, {} come out within 15% of the "
                                 "paper and {} within 30%.",
                                 validation, within15, within30)});
  }

  void table() {
    ReportTable t{"All figures",
                  "ratio: simulated over paper. Why some miss stands in docs/simulation.md.",
                  {"id", "what", "unit", "paper", "simulated", "ratio", "used for"},
                  {}};
    for (const PaperEntry& e : result_.entries) {
      t.rows.push_back({e.id, e.what, e.unit, short_number(e.paper), short_number(e.simulated),
                        fmt::format("{:.2f}", e.ratio()), e.calibration ? "calibration" : "validation"});
    }
    report_.add(t);
  }

  void table(const std::vector<Workload>& workloads) {
    ReportTable t{"Whole workloads (simulated)",
                  "tensor against the best of gpu, npu-online and npu-padding, prompt and answer.",
                  {"model", "workload", "prompt", "answer", "tensor, s", "gpu, s", "npu-online, s",
                   "npu-padding, s", "gain"},
                  {}};
    for (const Workload& w : workloads) {
      t.rows.push_back({w.model, w.name, std::to_string(w.prompt), std::to_string(w.decode),
                        fmt::format("{:.2f}", w.tensor), fmt::format("{:.2f}", w.others[0].second),
                        fmt::format("{:.2f}", w.others[1].second), fmt::format("{:.2f}", w.others[2].second),
                        fmt::format("{:.2f}x", w.best().second / w.tensor)});
    }
    report_.add(t);
  }

  void lines(const char* title, const char* x, const char* y, const std::vector<PaperCurves::Line>& from,
             const char* note) {
    LinePlot plot{.title = title, .note = note, .x_label = x, .y_label = y};
    for (const PaperCurves::Line& line : from) {
      plot.series.push_back({line.name, line.points});
    }
    report_.add(plot);
  }

  void bars(const char* title, const char* unit,
            const std::vector<std::pair<std::string, std::string>>& ids) {
    BarPlot plot{.title = title,
                 .note = "",
                 .y_label = unit,
                 .groups = {},
                 .series = {{"paper", {}, {}, {}}, {"simulated", {}, {}, {}}}};
    for (const auto& [id, name] : ids) {
      plot.groups.push_back(name);
      plot.series[0].values.push_back(entry(id).paper);
      plot.series[1].values.push_back(entry(id).simulated);
    }
    report_.add(plot);
  }

  void decode_by_strategy() {
    BarPlot plot{.title = "Decoding speed by strategy (simulated)",
                 .note = "",
                 .y_label = "tok/s",
                 .groups = result_.curves.models,
                 .series = {}};
    for (const PaperCurves::Line& line : result_.curves.decode) {
      BarSeries series{line.name, {}, {}, {}};
      for (const PlotPoint& p : line.points) {
        series.values.push_back(p.y);
      }
      plot.series.push_back(std::move(series));
    }
    report_.add(plot);
  }

  void ablation() {
    BarPlot plot{.title = "Prefill of Llama-8B at 320 tokens (simulated)",
                 .note = "",
                 .y_label = "ms",
                 .groups = {},
                 .series = {{"simulated", {}, {}, {}}}};
    for (const auto& [name, ms] : result_.curves.ablation) {
      plot.groups.push_back(name);
      plot.series[0].values.push_back(ms);
    }
    report_.add(plot);
  }

  const PaperResult& result_;
  Report report_;
};

}  // namespace

Report paper_report(const Soc& soc, const PaperResult& result, const std::vector<Workload>& workloads) {
  return Page(soc, result).write(workloads);
}

}  // namespace hetero
