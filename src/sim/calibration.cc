#include "sim/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "gguf/dtype.h"
#include "sim/cost.h"

namespace hetero {
namespace {

constexpr const char* kGpu = "gpu0";
constexpr const char* kNpu = "npu0";

/// Of a weight [n, k], 4-bit as the paper's are.
double q4_bytes(const Soc& soc, int64_t n, int64_t k) {
  return stored_bytes(soc, DType::kQ4_0, n, k);
}

/// Submitted, run alone, waited for in the driver's way: microseconds.
double alone_us(const Soc& soc, const char* id, int64_t n, int64_t k, int64_t m) {
  const SocProcessor& p = *soc.find(id);
  const double submit = p.idle_submit_us > 0.0 ? p.idle_submit_us : p.submit_us;
  return submit + alone_ns(p, product_cost(soc, p, n, k, m, q4_bytes(soc, n, k))) / 1e3 + p.finish_us;
}

struct Row {
  int64_t n, k, m;
  double gpu, npu;  // microseconds; 0: not given
  double weight;
};
// Table 3. Lengths that the paper gives as ranges: their ends.
constexpr Row kTable3[] = {
    {4096, 4096, 1, 511, 693, 1},          {28672, 4096, 1, 1903, 3886, 1},
    {4096, 14336, 1, 1467, 6506, 1},       {4096, 4096, 128, 7306, 912, 1},
    {4096, 4096, 193, 9000, 1200, 0.5},    {4096, 4096, 255, 11000, 1900, 0.5},
    {4096, 4096, 256, 10841, 1884, 1},     {4096, 14336, 256, 35231, 23445, 1},
    {4096, 14336, 384, 50000, 32000, 0.5},
};

/// The paper gives the ratio of NPU-2 for sequences of length K without saying which; 128 is the
/// shortest standard length of Table 3.
constexpr int64_t kOrderLength = 128;

/// Decoding with `share` of a large weight on the NPU and the rest on the GPU at the same time:
/// GB/s together. Both read at their own pace as far as memory lets them.
double together_gbps(const Soc& soc, double share) {
  const SocProcessor& gpu = *soc.find(kGpu);
  const SocProcessor& npu = *soc.find(kNpu);
  const int64_t n = 28672, k = 4096;
  const auto npu_n = static_cast<int64_t>(static_cast<double>(n) * share);
  const Cost a = product_cost(soc, gpu, n - npu_n, k, 1, q4_bytes(soc, n - npu_n, k));
  const Cost b = product_cost(soc, npu, npu_n, k, 1, q4_bytes(soc, npu_n, k));
  const double slower = std::max({alone_ns(gpu, a), alone_ns(npu, b), (a.bytes + b.bytes) / soc.dram_gbps});
  return (a.bytes + b.bytes) / slower;
}

/// The four graphs of a Llama-8B layer, compiled for `m` tokens: milliseconds.
double graphs_ms(const Soc& soc, int64_t m) {
  const SocProcessor& npu = *soc.find(kNpu);
  double ns = 0.0;
  for (const auto& [n, k] : {std::pair{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}}) {
    ns += compile_ns(npu, n, k, m);
  }
  return ns / 1e6;
}

/// Minimizes by trying a step up and down along each number in turn, and along the last successful
/// direction (Hooke and Jeeves, 1961). `x` holds positive numbers; steps are relative.
void minimize(std::vector<double>& x, const std::function<double(const std::vector<double>&)>& error) {
  const auto explore = [&](std::vector<double> at, double step) {
    double best = error(at);
    for (double& v : at) {
      for (const double factor : {1.0 + step, 1.0 / (1.0 + step)}) {
        const double old = v;
        v = old * factor;
        const double e = error(at);
        if (e < best) {
          best = e;
          break;
        }
        v = old;
      }
    }
    return at;
  };
  for (double step = 0.25; step > 1e-5;) {
    std::vector<double> next = explore(x, step);
    if (!(error(next) < error(x))) {
      step /= 2;
      continue;
    }
    for (;;) {
      std::vector<double> ahead = next;
      for (size_t i = 0; i < x.size(); ++i) {
        ahead[i] = next[i] * next[i] / x[i];
      }
      x = next;
      ahead = explore(ahead, step);
      if (!(error(ahead) < error(x))) {
        break;
      }
      next = ahead;
    }
  }
}

double squared_error(const Soc& soc, const std::string& processor) {
  double sum = 0.0;
  for (const CalibrationFigure& f : calibration_figures(soc)) {
    if (f.id.find(processor) != std::string::npos) {
      const double e = f.simulated / f.paper - 1.0;
      sum += f.weight * f.weight * e * e;
    }
  }
  return sum;
}

SocProcessor& processor(Soc& soc, const char* id) {
  return *std::find_if(soc.processors.begin(), soc.processors.end(),
                       [&](const auto& p) { return p.id == id; });
}

}  // namespace

std::vector<CalibrationFigure> calibration_figures(const Soc& soc) {
  std::vector<CalibrationFigure> out;
  const SocProcessor& npu = *soc.find(kNpu);
  for (const Row& r : kTable3) {
    const std::string shape = fmt::format("{}x{}_m{}", r.n, r.k, r.m);
    const std::string what = fmt::format("product with a weight [{},{}], {} rows", r.n, r.k, r.m);
    // A row alone on the GPU mostly waits for the driver (GPU-2), and its memory speed is Memory-1's:
    // nothing in it is free to be fitted.
    out.push_back({"table3_" + shape + "_gpu0", "Table 3", what + ", GPU", "us", r.gpu,
                   alone_us(soc, kGpu, r.n, r.k, r.m), r.m > 1 ? r.weight : 0.0});
    // 193 rows take the NPU as long as 256 where they are padded, as the row's strategy says: the lower
    // end of the range that the paper gives for its time is not a time of these rows.
    out.push_back({"table3_" + shape + "_npu0", "Table 3", what + ", NPU", "us", r.npu,
                   alone_us(soc, kNpu, r.n, r.k, r.m), r.m == 193 ? 0.0 : r.weight});
  }
  const double bytes = q4_bytes(soc, 14336, 4096);
  const auto array = [&](OperandOrder order) {
    return product_cost(soc, npu, 14336, 4096, kOrderLength, bytes, order).compute_ns;
  };
  out.push_back({"npu_order_ratio_npu0", "NPU-2",
                 "[K,4096]x[4096,14336] against [14336,4096]x[4096,K], K = 128", "x", 6.0,
                 array(OperandOrder::kGiven) / array(OperandOrder::kExchanged), 1.0});
  out.push_back({"bandwidth_gpu_alone", "Memory-1", "memory bandwidth of the GPU alone, decoding", "GB/s",
                 43.3, soc.find(kGpu)->gbps, 0.0});
  out.push_back({"bandwidth_gpu_npu", "Memory-1", "memory bandwidth of GPU and NPU, 75 to 25", "GB/s", 59.5,
                 together_gbps(soc, 0.25), 0.0});
  out.push_back({"graphs_ms_135", "NPU static graphs", "compiling 4 graphs of Llama-8B for 135 tokens", "ms",
                 408.4, graphs_ms(soc, 135), 1.0});
  out.push_back({"graphs_ms_1000", "NPU static graphs", "compiling 4 graphs of Llama-8B for 1000 tokens",
                 "ms", 2050, graphs_ms(soc, 1000), 1.0});
  return out;
}

Calibration calibrate(const Soc& original) {
  Calibration c{original, {}};
  const auto report = [&](const char* id, const char* name, double SocProcessor::*number) {
    c.numbers.push_back(
        {fmt::format("{}.{}", id, name), original.find(id)->*number, c.soc.find(id)->*number});
  };

  SocProcessor& gpu = processor(c.soc, kGpu);
  // Its curve at Table 3's lengths; beyond, it is GPU-1's.
  const int64_t longest =
      std::max_element(std::begin(kTable3), std::end(kTable3), [](const Row& a, const Row& b) {
        return a.m < b.m;
      })->m;
  std::vector<double> x;
  for (const SocProcessor::CurvePoint& point : gpu.curve) {
    if (point.rows <= static_cast<double>(longest)) {
      x.push_back(1000.0);
    }
  }
  const auto set_gpu = [&](const std::vector<double>& v) {
    for (size_t i = 0; i < v.size(); ++i) {
      gpu.curve[i].gflops = v[i];
    }
    return squared_error(c.soc, kGpu);
  };
  minimize(x, set_gpu);
  set_gpu(x);
  for (size_t i = 0; i < x.size(); ++i) {
    c.numbers.push_back(
        {fmt::format("{}.curve.{}.gflops", kGpu, i), original.find(kGpu)->curve[i].gflops, x[i]});
  }

  // Sizes of buffers are powers of two; the times are fitted for each.
  SocProcessor& npu = processor(c.soc, kNpu);
  const auto set_npu = [&](const std::vector<double>& v) {
    npu.submit_us = v[0];
    npu.load_ns = v[1];
    npu.reload_ns = v[2];
    npu.least_columns = v[3];
    return squared_error(c.soc, kNpu);
  };
  std::vector<double> best;
  double least = 0.0;
  for (const double held_kib : {64.0, 128.0, 256.0, 512.0, 1024.0}) {
    for (const double rows : {64.0, 128.0, 256.0, 512.0, 1024.0}) {
      npu.held_kib = held_kib;
      npu.stream_rows = rows;
      x = {50.0, 50.0, 300.0, 2.0};
      minimize(x, set_npu);
      const double e = set_npu(x);
      if (best.empty() || e < least) {
        least = e;
        best = x;
        best.insert(best.end(), {held_kib, rows});
      }
    }
  }
  npu.held_kib = best[4];
  npu.stream_rows = best[5];
  set_npu(best);
  // Two figures of compile time, two numbers.
  const double elements = 4096.0 * 2 + 6144 + 4096 + 28672 + 4096 + 4096 + 14336;
  const double per_token = (2050.0 - 408.4) / (1000 - 135);  // ms for all four graphs
  npu.compile_us_per_element = per_token * 1e3 / elements;
  npu.compile_ms = (408.4 - 135 * per_token) / 4;
  report(kNpu, "submit_us", &SocProcessor::submit_us);
  report(kNpu, "load_ns", &SocProcessor::load_ns);
  report(kNpu, "reload_ns", &SocProcessor::reload_ns);
  report(kNpu, "least_columns", &SocProcessor::least_columns);
  report(kNpu, "held_kib", &SocProcessor::held_kib);
  report(kNpu, "stream_rows", &SocProcessor::stream_rows);
  report(kNpu, "compile_ms", &SocProcessor::compile_ms);
  report(kNpu, "compile_us_per_element", &SocProcessor::compile_us_per_element);
  return c;
}

}  // namespace hetero
