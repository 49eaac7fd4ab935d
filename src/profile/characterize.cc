#include "profile/characterize.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "profile/bench_pass.h"

namespace hetero {
namespace {

/// A graph of one product, with weights.
struct ProductGraph {
  PageMemory weights;
  Graph graph;

  static Result<std::unique_ptr<ProductGraph>> create(DType dtype, const Product& p) {
    auto out = std::make_unique<ProductGraph>();
    const Bytes bytes = p.n * row_bytes(dtype, p.k);
    HETERO_TRY(out->weights, PageMemory::allocate(bytes));
    // Bytes that make small, finite numbers in every type.
    std::minstd_rand random(7);
    for (Bytes i = 0; i < bytes; ++i) {
      out->weights.data()[i] = static_cast<std::byte>(random() >> 12 & 0x3f);
    }
    Graph& g = out->graph;
    g.shape.layers = 1;
    g.values = {{"x", Rows::kTokens, p.k, DType::kF32}, {"y", Rows::kTokens, p.n, DType::kF32}};
    g.weights = {{"w", dtype, p.n, p.k, out->weights.data()}};
    Op op;
    op.name = fmt::format("product [{},{}]", p.n, p.k);
    op.layer = 0;
    op.params = Linear{};
    op.inputs = {0};
    op.outputs = {1};
    op.weights = {0};
    g.ops.push_back(std::move(op));
    g.head_begin = 1;
    return out;
  }
};

class ProductMeter {
 public:
  ProductMeter(std::span<Processor* const> processors, const CharacterizeOptions& options)
      : processors_(processors),
        o_(options),
        clock_(processors.front()->clock()),
        end_(clock_.now() + options.products_budget) {
    for (Processor* p : processors) {
      ProductSpeeds s;
      s.id = p->info().id;
      if (const auto peak = o_.peaks.find(s.id); peak != o_.peaks.end()) {
        s.peak = peak->second;
      }
      speeds_.push_back(std::move(s));
    }
  }

  /// False: stopped before the end.
  Result<bool> run() {
    HETERO_RETURN_IF_ERROR(by_rows());
    HETERO_RETURN_IF_ERROR(by_order());
    HETERO_RETURN_IF_ERROR(by_shape());
    return !stopped();
  }
  std::vector<ProductSpeeds> take() { return std::move(speeds_); }

 private:
  bool stopped() {
    stopped_ = stopped_ || clock_.now() >= end_ || (o_.cancel != nullptr && *o_.cancel);
    return stopped_;
  }

  /// Nothing where the processor refuses it, or the time is over. `exchanged`: OpSlice::exchanged; nullopt:
  /// as usual.
  Result<std::optional<ProductTime>> measure(size_t index, DType dtype, const Product& product,
                                             std::optional<bool> exchanged = std::nullopt) {
    if (stopped()) {
      return std::optional<ProductTime>();
    }
    Processor& processor = *processors_[index];
    HETERO_TRY(const auto scene, ProductGraph::create(dtype, product));
    const OpSlice slice{
        0, 0, product.n,
        exchanged.value_or(usually_exchanged(processor.traits().orders, product.m, product.n))};
    if (const Status can = processor.supports(scene->graph, slice); !can.ok()) {
      speeds_[index].refused.push_back(can.message());
      return std::optional<ProductTime>();
    }
    HETERO_TRY(const auto pass, BenchPass::create(scene->graph, processor, product.m, product.m));
    HETERO_RETURN_IF_ERROR(pass->prepare(std::span(&slice, 1), product.m));
    ProductTime out;
    out.product = product;
    for (const CompileTime& c : pass->compile_times()) {
      out.compile += c.time;
    }
    std::vector<Nanos> samples;
    const Nanos begin = clock_.now();
    // Rows of some submissions, as plans have them; the first one warms up.
    for (int round = 0; round < 2 || (round < 12 && clock_.now() - begin < std::chrono::milliseconds(60));
         ++round) {
      const std::vector<OpSlice> row(3, slice);
      HETERO_RETURN_IF_ERROR(pass->submit(row, product.m, 0));
      HETERO_TRY(const std::vector<OpTime> times, pass->collect());
      for (const OpTime& t : times) {
        if (round > 0) {
          samples.push_back(t.time);
        }
      }
    }
    const Summary summary = summary_of(std::move(samples));
    out.median = summary.median;
    out.spread = summary.spread;
    out.samples = summary.samples;
    return std::optional<ProductTime>(out);
  }

  void tell(const char* what, size_t done, size_t total) const {
    if (o_.progress) {
      o_.progress(what, static_cast<int>(done), static_cast<int>(total));
    }
  }

  Status by_rows() {
    // Close enough together at the start to show tiles of 8, 16 or 32 rows.
    std::vector<int64_t> rows;
    for (int64_t m = 1; m <= o_.rows;) {
      rows.push_back(m);
      m += m < 4 ? m : m < 8 ? 4 : m < 80 ? 8 : m < 128 ? 16 : m < 256 ? 32 : 64;
    }
    for (size_t step = 0; step < rows.size(); ++step) {
      for (size_t i = 0; i < processors_.size(); ++i) {  // in turns: a busy moment strikes all alike
        tell("products by rows", step, rows.size());
        HETERO_TRY(const auto time, measure(i, o_.dtype, {rows[step], o_.width, o_.width}));
        if (time) {
          speeds_[i].by_rows.push_back(*time);
        }
      }
    }
    return {};
  }

  Status by_shape() {
    const int64_t m = std::min<int64_t>(o_.rows, 128);
    std::vector<int64_t> depths;
    for (int64_t k = o_.width * 4; k >= o_.width / 8 && k >= 256; k /= 2) {
      depths.push_back(k);
    }
    for (size_t step = 0; step < depths.size(); ++step) {
      for (size_t i = 0; i < processors_.size(); ++i) {
        tell("products by shape", step, depths.size());
        const int64_t n = o_.width * o_.width / depths[step];
        HETERO_TRY(const auto time, measure(i, o_.dtype, {m, depths[step], n}));
        if (time) {
          speeds_[i].by_shape.push_back(*time);
        }
      }
    }
    return {};
  }

  Status by_order() {
    const int64_t k = o_.width / 2;
    const int64_t n = o_.width;
    const std::vector<int64_t> rows = {32, 128, 512};
    for (size_t step = 0; step < rows.size(); ++step) {
      for (size_t i = 0; i < processors_.size(); ++i) {
        tell("products by order of operands", step, rows.size());
        const bool told = processors_[i]->traits().orders != OperandOrders::kOne;
        const Product product{rows[step], k, n};
        const Product turned{n, k, rows[step]};
        HETERO_TRY(const auto given, measure(i, DType::kF16, product, false));
        HETERO_TRY(auto exchanged, measure(i, DType::kF16, told ? product : turned, told));
        if (given && exchanged) {
          exchanged->product = turned;
          speeds_[i].by_order.emplace_back(*given, *exchanged);
        }
      }
    }
    return {};
  }

  std::span<Processor* const> processors_;
  const CharacterizeOptions& o_;
  Clock& clock_;
  Nanos end_;
  bool stopped_ = false;
  std::vector<ProductSpeeds> speeds_;
};

double rate(const Product& p, Nanos time) {
  return 2.0 * static_cast<double>(p.m * p.k * p.n) / std::max(static_cast<double>(time.count()), 1.0);
}

nlohmann::ordered_json product_json(const ProductTime& p, const Peak& peak) {
  nlohmann::ordered_json json = {{"m", p.product.m},
                                 {"k", p.product.k},
                                 {"n", p.product.n},
                                 {"median_ns", p.median.count()},
                                 {"spread_ns", p.spread.count()},
                                 {"samples", p.samples},
                                 {"compile_ns", p.compile.count()},
                                 {"gflops", p.gflops()}};
  if (peak.gflops > 0.0) {
    json["of_peak"] = p.gflops() / peak.gflops;
  }
  return json;
}

}  // namespace

double ProductTime::gflops() const {
  return rate(product, median);
}
double ProductTime::gflops_low() const {
  return rate(product, median + spread);
}
double ProductTime::gflops_high() const {
  return rate(product, std::max(median - spread, Nanos(1)));
}

double total_gbps(const Together& set) {
  double total = 0.0;
  for (const Share& s : set.processors) {
    total += s.gbps;
  }
  return total;
}

Result<Characterization> characterize(const Graph& model, std::span<Processor* const> processors,
                                      const ProfileIdentity& identity, const CharacterizeOptions& options) {
  if (processors.empty()) {
    return invalid_argument("characterize: no processors");
  }
  Clock& clock = processors.front()->clock();
  const Nanos begin = clock.now();
  Characterization c;
  c.model = model.shape.name;
  c.dtype = traits(options.dtype).name;
  ProfilerOptions profiler = options.profiler;
  profiler.time_limit = options.profile_budget;
  profiler.progress = options.progress;
  profiler.cancel = options.cancel;
  HETERO_TRY(c.profile, measure(model, processors, identity, profiler));
  ProductMeter meter(processors, options);
  HETERO_TRY(const bool all, meter.run());
  c.products = meter.take();
  c.complete = all && c.profile.complete;
  c.seconds = std::chrono::duration<double>(clock.now() - begin).count();
  return c;
}

nlohmann::ordered_json to_json(const Characterization& c) {
  auto products = nlohmann::ordered_json::array();
  for (const ProductSpeeds& p : c.products) {
    const auto list = [&](const std::vector<ProductTime>& times) {
      auto json = nlohmann::ordered_json::array();
      for (const ProductTime& t : times) {
        json.push_back(product_json(t, p.peak));
      }
      return json;
    };
    auto orders = nlohmann::ordered_json::array();
    for (const auto& [given, exchanged] : p.by_order) {
      orders.push_back(
          {{"given", product_json(given, p.peak)}, {"exchanged", product_json(exchanged, p.peak)}});
    }
    products.push_back(
        {{"id", p.id},
         {"peak", {{"gflops", p.peak.gflops}, {"gbps", p.peak.gbps}, {"source", p.peak.source}}},
         {"by_rows", list(p.by_rows)},
         {"by_shape", list(p.by_shape)},
         {"by_order", orders},
         {"refused", p.refused}});
  }
  auto predictions = nlohmann::ordered_json::array();
  for (const PredictedPass& pass : c.predictions) {
    auto strategies = nlohmann::ordered_json::array();
    for (const PredictedStrategy& s : pass.strategies) {
      strategies.push_back({{"strategy", s.strategy},
                            {"predicted_ms", static_cast<double>(s.predicted.count()) / 1e6},
                            {"shares", s.shares}});
    }
    predictions.push_back({{"tokens", pass.tokens}, {"strategies", strategies}});
  }
  return {{"model", c.model},
          {"dtype", c.dtype},
          {"seconds", c.seconds},
          {"complete", c.complete},
          {"products", products},
          {"predictions", predictions},
          {"profile", to_json(c.profile)}};
}

}  // namespace hetero
