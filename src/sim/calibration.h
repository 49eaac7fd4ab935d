// Fits a chip's free numbers to the paper's micro-measurements: section 1 of the facts (its
// section 3) and Table 3. Nothing else of the paper is known here; whole models, strategies,
// synchronization, energy and games are predictions.
#pragma once

#include <string>
#include <vector>

#include "sim/soc.h"

namespace hetero {

/// One published micro-measurement and what the chip makes of it.
struct CalibrationFigure {
  std::string id;   // "table3_4096x4096_m128_npu"
  std::string tag;  // "Table 3", "NPU-2"
  std::string what;
  std::string unit;
  double paper = 0.0;
  double simulated = 0.0;
  double weight = 1.0;  // in the fit; 0: looked at, not fitted to
};

/// All of them. A row of Table 3 is a product that is submitted, runs alone and is waited for in
/// the driver's way; where the paper gives a range of lengths, its two ends, at half the weight.
std::vector<CalibrationFigure> calibration_figures(const Soc& soc);

struct FittedNumber {
  std::string path;  // "npu0.load_ns"
  double in_file = 0.0;
  double fitted = 0.0;
};

/// Fits the numbers whose basis is "fitted", from scratch, to the figures by least squares of the
/// relative errors.
struct Calibration {
  Soc soc;  // with the fitted numbers
  std::vector<FittedNumber> numbers;
};
Calibration calibrate(const Soc& soc);

}  // namespace hetero
