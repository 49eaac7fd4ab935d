#include "profile/soc_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace hetero {
namespace {

nlohmann::ordered_json number(double value, const char* unit, const std::string& source) {
  return {
      {"value", value}, {"unit", unit}, {"basis", "measured"}, {"source", "hetero characterize: " + source}};
}

double micros(Nanos t) {
  return static_cast<double>(t.count()) / 1e3;
}

double rounded(double value) {
  return std::round(value * 1000.0) / 1000.0;
}

}  // namespace

nlohmann::ordered_json soc_file(const Characterization& c, const ControlThread& control) {
  const Profile& profile = c.profile;
  double dram = 0.0;
  for (const Together& t : profile.together) {
    dram = std::max(dram, total_gbps(t));
  }
  auto processors = nlohmann::ordered_json::array();
  for (const ProductSpeeds& products : c.products) {
    const ProfiledProcessor& p = *profile.find(products.id);
    const std::string alone[] = {p.id};
    const Share* share = profile.share(p.id, alone);
    const ProductTime* first = products.by_rows.empty() ? nullptr : &products.by_rows.front();
    double gbps = share == nullptr ? 0.0 : share->gbps;
    if (gbps <= 0.0 && first != nullptr) {
      // One row: all of its time goes into reading the weights, 4.5 bits each.
      gbps = first->gflops() / 2.0 * 4.5 / 8.0;
    }
    auto curve = nlohmann::ordered_json::array();
    Nanos compile{};
    for (const ProductTime& t : products.by_rows) {
      curve.push_back(
          {{"rows", number(static_cast<double>(t.product.m), "rows", "by rows")},
           {"gflops", number(rounded(t.gflops()), "GFLOPS",
                             fmt::format("a product with weights [{},{}]", t.product.n, t.product.k))}});
      compile = std::max(compile, t.compile);
    }
    nlohmann::ordered_json json = {
        {"id", p.id},
        {"kind", p.kind},
        {"name", p.name + (p.stand_in ? " (stand-in)" : "")},
        {"model", "roofline"},
        {"static_shapes", p.static_shapes},
        {"gbps", number(rounded(gbps), "GB/s", "reading weights in decode, alone")},
        {"submit_us", number(rounded(micros(p.submit)), "us", "median of submissions")},
        {"finish_us", number(rounded(micros(profile.handoff(p.id, kHost, "driver"))), "us",
                             "the driver's wait, after the work")},
        {"curve", curve}};
    auto operators = nlohmann::ordered_json::array();
    for (const Series& s : p.series) {
      auto times = nlohmann::ordered_json::array();
      for (const Point& t : s.points) {
        const auto same = std::find_if(s.points.begin(), s.points.end(), [&](const Point& o) {
          return o.exchanged != t.exchanged && o.tokens == t.tokens && o.context == t.context;
        });
        const bool both = same != s.points.end();
        if (!both || !t.exchanged) {  // of two orders of operands, the faster one's time
          times.push_back(
              {t.tokens, t.context, rounded(micros(both ? std::min(t.median, same->median) : t.median))});
        }
      }
      std::sort(times.begin(), times.end());
      if (!times.empty()) {
        operators.push_back(
            {{"op", s.work.kind}, {"out", s.work.n}, {"in", s.work.k}, {"times", std::move(times)}});
      }
    }
    json["operators"] = std::move(operators);
    if (p.static_shapes && !p.lengths.empty()) {
      json["lengths"] = p.lengths;
    }
    if (p.static_shapes) {
      json["compile_ms"] = number(rounded(micros(compile) / 1e3), "ms", "the longest of the products");
    }
    processors.push_back(std::move(json));
  }
  return {
      {"name", "this-machine"},
      {"title", profile.identity.machine + " (measured)"},
      {"note", "made by hetero characterize on " + profile.identity.date},
      {"chip", {{"activation_bytes", number(4, "B", "activations are F32")}}},
      {"dram",
       {{"gbps", number(rounded(dram), "GB/s", "the most that any set of processors read together")}}},
      {"control",
       {{"sleep_grain_us",
         number(rounded(std::max(micros(control.sleep_grain), 0.001)), "us", "by which a sleep ends late")},
        {"poll_us", number(rounded(std::max(micros(control.poll), 0.001)), "us", "one look at a fence")}}},
      {"processors", processors}};
}

}  // namespace hetero
