// What was measured (or modelled, for simulated chips) of the processors of one machine: how long
// each operator of a model takes on each of them, what a hand-off between two costs, how they slow
// each other down, and what compiling costs. The solver plans by nothing else.
//
// Values only; profiler.h measures them. JSON names carry their units: _ns, gbps, watts.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "base/status.h"
#include "graph/graph.h"

namespace hetero {

/// What decides an operator's time besides tokens and context. Operators of equal work take equally
/// long, so it is measured once.
struct Work {
  std::string kind;   // kind_name() of the operator
  std::string dtype;  // of its weights, "Q4_0"; of stacked ones that differ "Q4_K+Q6_K"; "" without any
  int64_t n = 0;      // output columns; of a slice, the slice's
  int64_t k = 0;      // input columns that make one output element (Linear); Attention and Rope: kv
                      // heads * head_dim; otherwise the number of inputs
  auto operator<=>(const Work&) const = default;
};

/// The work of output columns [begin, end) of an operator.
Work work_of(const Graph& graph, int op, int64_t begin, int64_t end);
inline Work work_of(const Graph& graph, int op) {
  return work_of(graph, op, 0, graph.output_cols(op));
}

/// Bytes of weights that output columns [begin, end) of an operator are made from; of an Embed, one row.
Bytes weight_bytes(const Graph& graph, int op, int64_t begin, int64_t end);

/// "linear Q4_0 [4096,14336]"
std::string to_string(const Work& work);

/// One measurement. context: rows of the KV cache that the last token sees (position + tokens), 0
/// for operators that do not read it.
struct Point {
  int64_t tokens = 0;
  int64_t context = 0;
  /// Computed with its operands in exchanged order, [M,N]x[N,K] = ([K,N]x[N,M])^T: NPUs that hold
  /// one operand still are several times faster in one of the two (NPU-2).
  bool exchanged = false;
  Nanos median{};
  Nanos spread{};  // median distance from the median
  int samples = 0;
};

struct Series {
  Work work;
  std::vector<Point> points;  // sorted by exchanged, tokens, context
};

struct CompileTime {
  Work work;
  int64_t tokens = 0;
  Nanos time{};
};

struct ProfiledProcessor {
  // As ProcessorInfo has them.
  std::string id;
  std::string kind;
  std::string name;
  std::string provider;
  std::string driver;
  bool stand_in = false;
  std::string setting;  // what else its times hold for: "cpus 0-3, f32"
  /// Executables take exactly the number of tokens they were compiled for: times between measured
  /// lengths are those of the next one (NPU-1), not interpolated (GPU-1).
  bool static_shapes = false;
  /// Holds a copy of the weights it computes with, rather than reading the model's own.
  bool copies_weights = false;
  /// Between the host's memory and its own, where it does not see the host's; 0: it does. Then what
  /// crosses is copied, and the KV cache stays on one processor during a pass.
  double copy_gbps = 0.0;
  std::vector<int64_t> lengths;  // standard lengths, for which graphs exist; ascending
  int64_t grid = 32;             // columns: cuts of a Linear lie on multiples of it
  /// Where each cut needs a graph of its own, only ratios of whole numbers up to this are used: with 3
  /// it shares 1:1, 1:2, 1:3, 2:3 and the other way round. 0: any ratio on the grid.
  int ratios = 0;
  Nanos submit{};               // of the control thread, for one submission
  std::optional<double> watts;  // while it works, above idle
  std::vector<Series> series;
  std::vector<CompileTime> compile_times;
};

/// The host's control thread, as the receiver of a hand-off.
inline constexpr const char* kHost = "host";

/// From the end of one processor's work to the start of another's that waited for it, or until the
/// waiting control thread goes on; with it, what the waiting work takes longer than it does in a queue.
struct Handoff {
  std::string from;
  std::string to;    // or kHost
  std::string sync;  // "fast" or "driver"
  Nanos median{};
  Nanos spread{};
  int visits = 1;  // times, apart from each other, that these are medians of
};

/// One processor while all of a set work at once.
struct Share {
  std::string id;
  double gbps = 0.0;      // of memory bandwidth that it gets, reading weights
  double slowdown = 1.0;  // of work that is not bound by memory, against working alone
  int visits = 1;         // times, apart from each other, that these are medians of
};
struct Together {
  std::vector<Share> processors;  // sorted by id; one alone as well
};

/// For what the profile holds. Another machine, driver, model shape or setting needs another one.
struct ProfileIdentity {
  std::string machine;  // CPU name and number of CPUs; a simulated chip's name
  std::string model;    // model_shape_key()
  std::string date;     // "2026-11-25"
  bool simulated = false;
};

/// Widths, depths and dtypes of all operators in one line: equal for models that take equally long.
std::string model_shape_key(const Graph& graph);

struct Profile {
  ProfileIdentity identity;
  std::vector<ProfiledProcessor> processors;
  std::vector<Handoff> handoffs;
  std::vector<Together> together;
  bool complete = true;  // false: measuring was stopped before the end

  const ProfiledProcessor* find(const std::string& id) const;

  /// Of a dependency between two processors. By the other sync mode if this one was not measured; 0 if
  /// neither was, or for from == to.
  Nanos handoff(const std::string& from, const std::string& to, const std::string& sync) const;

  /// How `id` fares while all of `set` (which it belongs to) work. nullptr if that was not measured.
  const Share* share(const std::string& id, std::span<const std::string> set) const;
};

/// What one execution takes.
struct Timing {
  double ns = 0.0;
  int64_t padded = 0;      // rows that are computed
  bool exchanged = false;  // the order of operands that it is the time of
};

/// Times of all widths n of one kind of work on one processor, for one number of tokens, in each order of
/// operands that was measured.
class WidthCurve {
 public:
  /// Of `work`, whatever its n. Measured points as they are; else, in this order:
  /// - tokens: static shapes by stage, the next longer length; otherwise linear between the
  ///   neighbours, and on by the last two's slope. Attention: linear in the pairs of query and key,
  ///   which its work is proportional to, with both neighbours at the same position.
  /// - n, for Linear, the only operators that can be cut: linear between measured widths of equal
  ///   kind, dtype and k, on by the last two, and in proportion where there is only one or where
  ///   narrower ones would gain more than that. Widths measured with fewer rows only count last.
  static WidthCurve of(const ProfiledProcessor& processor, const Work& work, int64_t tokens, int64_t context);

  /// In the faster order; where both are equal the exchanged one, in which arrays usually hold less. Nothing
  /// where nothing like it was measured, or tokens exceed the longest static shape.
  std::optional<Timing> at(int64_t n) const;
  /// In one order; where that was not measured, in the other.
  std::optional<Timing> at(int64_t n, bool exchanged) const;
  bool empty() const { return orders_[0].empty() && orders_[1].empty(); }

 private:
  struct Width {
    int64_t n;
    Timing timing;
  };
  std::optional<Timing> in_order(int64_t n, bool exchanged) const;

  std::array<std::vector<Width>, 2> orders_;  // default and exchanged; each ascending
  bool cuttable_ = false;
};

/// Time of `work` for `tokens` rows on a processor, by its WidthCurve.
std::optional<Timing> time_of(const ProfiledProcessor& processor, const Work& work, int64_t tokens,
                              int64_t context);

/// `alone_ns` of work that reads `bytes` of weights, while all of `set` work: the part of it that is
/// reading grows as the processor's bandwidth shrinks, the rest by its slowdown.
double contended_ns(const Profile& profile, const std::string& id, std::span<const std::string> set,
                    double alone_ns, Bytes bytes);

/// Compile time of the nearest measured shape, scaled by the weight's size; 0 if none was measured.
Nanos compile_time(const ProfiledProcessor& processor, const Work& work, int64_t tokens);

nlohmann::ordered_json to_json(const Profile& profile);
/// Errors name the place: "profile: processors[1].series[3].points[0].median_ns: expected ...".
Result<Profile> profile_from_json(const nlohmann::ordered_json& json);

}  // namespace hetero
