// What the processors of a chip can do for a language model, alone and together: the paper's figures
// of its chip (section 3), measured on any machine, real or simulated. A profile of a model's
// operators (profiler.h) says what the processors do together; products of many shapes say why.
//
// Values only, but for characterize(); characterize_report.h draws them.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "profile/profiler.h"

namespace hetero {

/// A product [m,k] x [k,n]: weights [n,k], m rows.
struct Product {
  int64_t m = 0;
  int64_t k = 0;
  int64_t n = 0;
};

struct ProductTime {
  Product product;
  Nanos median{};
  Nanos spread{};
  int samples = 0;
  Nanos compile{};  // of its graph; zero where an earlier one served

  double gflops() const;
  /// With the time longer or shorter by `spread`.
  double gflops_low() const;
  double gflops_high() const;
};

/// The most that is known to be possible; 0: unknown.
struct Peak {
  double gflops = 0.0;
  double gbps = 0.0;
  std::string source;  // "measured: f32 multiply-adds from registers, 1 core"
};

/// Of one processor of the profile, in the same order.
struct ProductSpeeds {
  std::string id;
  Peak peak;
  std::vector<ProductTime> by_rows;   // k and n fixed, m ascending
  std::vector<ProductTime> by_shape;  // m and k * n fixed, k descending
  /// The same product in both orders, [m,k] x [k,n] and ([n,k] x [k,m])^T. Processors that hold one
  /// operand still differ in them (paper, NPU-2). Those that cannot be told the order (Traits::orders) get
  /// the n rows as activations.
  std::vector<std::pair<ProductTime, ProductTime>> by_order;
  std::vector<std::string> refused;  // what it cannot run
};

/// What the solver makes of the profile.
struct PredictedStrategy {
  std::string strategy;
  Nanos predicted{};
  /// Who computes how much of the matrices, "gpu0 60%, npu0 40%"; empty where it is not known.
  std::string shares;
};
struct PredictedPass {
  int64_t tokens = 0;                         // 1: decode
  std::vector<PredictedStrategy> strategies;  // fastest first
};

struct Characterization {
  std::string model;  // whose operators the profile holds
  Profile profile;
  std::vector<ProductSpeeds> products;
  std::vector<PredictedPass> predictions;  // filled by who may call the solver
  std::string dtype;                       // of the products' weights; F16 in by_order
  double seconds = 0.0;                    // that it took
  bool complete = true;                    // false: stopped, or out of time
};

struct CharacterizeOptions {
  DType dtype = DType::kQ4_0;
  int64_t width = 2048;  // of the products' matrices
  int64_t rows = 512;    // the largest m
  Nanos profile_budget = std::chrono::seconds(75);
  Nanos products_budget = std::chrono::seconds(60);
  std::map<std::string, Peak> peaks;  // by processor
  /// For the profile: sync modes and settings, see ProfilerOptions.
  ProfilerOptions profiler;
  std::function<void(const std::string&, int, int)> progress;  // what, done, total
  const std::atomic<bool>* cancel = nullptr;
};

/// Measures the processors, which share one clock, with a model's graph and with products. What a
/// processor refuses is noted. Out of time, or cancelled, it returns what there is.
Result<Characterization> characterize(const Graph& model, std::span<Processor* const> processors,
                                      const ProfileIdentity& identity, const CharacterizeOptions& options);

/// Bandwidth of all of a set that decode at once, and of its members; sets as the profile has them.
double total_gbps(const Together& set);

nlohmann::ordered_json to_json(const Characterization& c);

}  // namespace hetero
