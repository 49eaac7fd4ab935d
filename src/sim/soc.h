// A chip as numbers: what soc/*.json holds. The model behind each number is in docs/simulation.md.
//
// In the file every number says where it is from:
//   {"value": 43.3, "unit": "GB/s", "source": "paper, section 3: GPU alone", "tag": "Memory-1",
//    "basis": "published"}
// basis: "published" (a figure that somebody measured or announced), "fitted" (by
// `hetero simulate --calibrate`, from the published figures that the source names), "scaled" (from
// another chip by the ratio of published peaks), "measured" (by `hetero characterize --as-soc`) or
// "assumed" (nothing published; the source says why this value).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hetero {

/// Which model of computing a processor follows.
enum class SocModel {
  /// Throughput grows with the rows of a product until it is flat: time of a product of m rows
  /// is 2 n k (m + half_rows) / gflops, or m times that of one row, which is bound by memory, where
  /// that is less. With a measured curve, that instead.
  kRoofline,
  /// Weight-stationary arrays of fixed-size tiles.
  kSystolic,
};

struct SocProcessor {
  std::string id;    // "gpu0"
  std::string kind;  // "cpu", "gpu", "npu"
  std::string name;
  SocModel model = SocModel::kRoofline;
  bool static_shapes = false;
  std::vector<int64_t> lengths;  // for which its graphs are made ahead, ascending; empty: not told

  double gbps = 0.0;            // of memory bandwidth, working alone
  double submit_us = 0.0;       // of the control thread's time, for each submission
  double idle_submit_us = 0.0;  // the same where the queue has run empty; 0: as submit_us
  double finish_us = 0.0;       // by which the driver's blocking wait ends later than the work
  double copy_us = 0.0;         // of a copy through the driver, whatever its size; 0: two submissions
  int ratios = 0;               // ProfiledProcessor::ratios

  // Roofline
  double gflops = 0.0;     // of products with many rows
  double half_rows = 0.0;  // rows of a product that reaches half of it
  struct CurvePoint {
    double rows = 0.0;
    double gflops = 0.0;
  };
  std::vector<CurvePoint> curve;  // measured; ascending rows; between them time is linear
  /// Operators whose times were measured; these count before all formulas.
  struct Measured {
    std::string op;  // kind_name()
    int64_t out = 0;
    int64_t in = 0;
    struct Time {
      double rows = 0.0;
      double context = 0.0;  // attention: tokens in the cache with the pass's own; else 0
      double us = 0.0;
    };
    std::vector<Time> times;  // ascending rows, then context
  };
  std::vector<Measured> operators;

  // Systolic
  double tile = 0.0;                    // rows and columns of an array
  double array_gflops = 0.0;            // while rows stream through and nothing is loaded
  double stream_rows = 0.0;             // rows that stream before the held tile is exchanged
  double held_kib = 0.0;                // buffer of held tiles beside the array
  double load_ns = 0.0;                 // of a held tile from that buffer
  double reload_ns = 0.0;               // of a held tile from memory
  double least_columns = 0.0;           // columns of tiles that preparing the weights takes as long as
  double compile_ms = 0.0;              // of a graph, whatever its size
  double compile_us_per_element = 0.0;  // of a graph's activations, in and out

  double watts = 0.0;        // while it computes
  double stall_watts = 0.0;  // while it waits for memory
};

/// A game beside the model: frames at a fixed rate, each some work on the GPU.
struct SocGame {
  double fps = 0.0;          // that it wants
  double frame_ms = 0.0;     // of GPU work for a frame
  double batches = 0.0;      // submissions of a frame
  double queue_depth = 0.0;  // submissions that the GPU has taken over and works off in order
  double burst = 0.0;        // that are taken from one app in turn
};

struct Soc {
  std::string name;
  std::string title;
  std::string note;               // what the user must know: "scaled from published peaks"
  double dram_gbps = 0.0;         // all processors together, at best
  double activation_bytes = 0.0;  // of one number
  double w4_bits = 0.0;           // of a weight that the file holds as Q4_0; 0: as there, 4.5
  double profile_alone = 0.0;     // other than 0: ProfilerOptions::alone
  double sleep_grain_us = 0.0;    // of the control thread
  double poll_us = 0.0;           // one look at a flag
  double dram_pj_per_byte = 0.0;
  double base_watts = 0.0;     // of everything else that is on
  double control_watts = 0.0;  // of the control thread's core while it is awake
  std::vector<SocProcessor> processors;
  SocGame game;

  const SocProcessor* find(const std::string& id) const;
};

/// Where a number of a file is from.
struct SocSource {
  std::string path;  // "npu0.load_ns"
  double value = 0.0;
  std::string unit;
  std::string source;
  std::string tag;  // of the paper's facts: "NPU-1", "Table 3"; empty: none
  std::string basis;
};

/// Reads and checks a chip. Errors name the place: "soc: npu0.tile: expected a number above 0, ...".
Result<Soc> soc_from_json(const nlohmann::ordered_json& json);
/// All numbers of a chip's file with their sources.
std::vector<SocSource> soc_sources(const nlohmann::ordered_json& json);
/// Changes one number in a chip's JSON: "npu.tflops=34", "dram.gbps=77", "gpu0.submit_us=20". Kinds
/// stand for all processors of that kind; tflops is 1000 gflops.
Status soc_set(nlohmann::ordered_json& json, const std::string& assignment);

/// Names of the chips that come with the program.
std::vector<std::string> soc_names();
/// The JSON of a chip that comes with the program, or of a file ("my.json", "./phone").
Result<nlohmann::ordered_json> soc_json(const std::string& name_or_path);
/// The chip itself, with the numbers in `set` changed (soc_set).
Result<Soc> load_soc(const std::string& name_or_path, const std::vector<std::string>& set = {});

}  // namespace hetero
