// The paper's published figures beside those of the simulated chip.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/simulator.h"
#include "report/report.h"

namespace hetero {

struct PaperEntry {
  std::string id;    // of shared/design.md: "prefill_llama8b_256_tensor"
  std::string what;  // precisely what is compared
  std::string unit;
  double paper = 0.0;
  double simulated = 0.0;
  bool calibration = false;  // otherwise a prediction

  /// Simulated over paper. Where the paper's figure is 0 (frames per second): of the frames that are
  /// lost, out of 60.
  double ratio() const;
};

/// A series of the paper's comparisons, for plots.
struct PaperCurves {
  struct Line {
    std::string name;
    std::vector<PlotPoint> points;
  };
  std::vector<Line> prefill;  // Llama-8B tok/s by length, for each strategy
  std::vector<Line> decode;   // tok/s of each model, x = its index in `models`
  std::vector<std::string> models;
  std::vector<std::pair<std::string, double>> ablation;  // ms at 320 tokens
};

struct PaperResult {
  std::vector<PaperEntry> entries;  // in the order of the design's list
  PaperCurves curves;
};

/// Runs everything on one chip (the calibrated Snapdragon 8 Gen 3, or with what the user set).
/// `progress`: what, done, total.
Result<PaperResult> run_paper(const Soc& soc,
                              const std::function<void(const std::string&, int, int)>& progress = {});

/// Tokens of prompt and answer, end to end, of the paper's three workloads: seconds by strategy for
/// each of its four models.
struct Workload {
  std::string name;
  std::string model;
  int64_t prompt = 0;
  int64_t decode = 0;
  double tensor = 0.0;
  std::vector<std::pair<std::string, double>> others;  // gpu, npu-online, npu-padding
  const std::pair<std::string, double>& best() const;
};
Result<std::vector<Workload>> run_workloads(
    const Soc& soc, const std::function<void(const std::string&, int, int)>& progress = {});

Report paper_report(const Soc& soc, const PaperResult& result, const std::vector<Workload>& workloads);

}  // namespace hetero
