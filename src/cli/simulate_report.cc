#include "cli/simulate_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace hetero {
namespace {

double millis(Nanos t) {
  return static_cast<double>(t.count()) / 1e6;
}

/// What ran where, in the part of the trace with passes of `tokens` rows or of one row.
GanttPlot timeline(const Trace& trace, bool decode, Nanos length) {
  GanttPlot plot{
      .title = decode ? "Decoding, the first moments (simulated)" : "Prefill, the first moments (simulated)",
      .note = "Hover over a bar for its operator.",
      .x_label = "ms",
      .lanes = {},
      .kinds = {"products", "attention", "norms and the rest"},
      .bars = {}};
  std::optional<Nanos> begin;
  for (const Trace::Event& e : trace.events()) {
    // Passes of one row with an embedding begin a decoded token.
    const bool embed = e.name.starts_with("token_embd");
    if (!begin && embed && (e.tokens == 1) == decode) {
      begin = e.interval.begin;
    }
    if (!begin || e.interval.begin - *begin > length) {
      continue;
    }
    auto lane = std::find(plot.lanes.begin(), plot.lanes.end(), e.processor);
    if (lane == plot.lanes.end()) {
      plot.lanes.push_back(e.processor);
      lane = plot.lanes.end() - 1;
    }
    const std::string op = e.name.substr(e.name.rfind('.') + 1);
    const bool product = op.starts_with("attn_qkv") || op == "attn_output" || op.starts_with("ffn_gate_up") ||
                         op.starts_with("ffn_down") || op == "output";
    plot.bars.push_back({static_cast<size_t>(lane - plot.lanes.begin()), millis(e.interval.begin - *begin),
                         millis(e.interval.end - *begin), fmt::format("{}, {} rows", e.name, e.tokens),
                         product             ? 0u
                         : op == "attention" ? 1u
                                             : 2u});
  }
  return plot;
}

}  // namespace

Report simulate_report(const Simulator& simulator, const std::vector<SimResult>& results, const SimRun& run,
                       const Trace& trace) {
  const Soc& soc = simulator.soc();
  Report report(fmt::format("{}, simulated", simulator.graph().shape.name),
                fmt::format("{}: {}. Strategy {}, sync {}. All figures are simulated.", soc.title, soc.note,
                            results[0].strategy, sync_name(run.sync)));
  const SimResult& first = results.front();
  std::vector<std::string> sentences = {
      fmt::format("Simulated: {} tokens of prompt at {:.1f} tok/s, the first token after {:.0f} ms.",
                  first.prefill.tokens, first.prefill.tps(), millis(first.prefill.time))};
  if (first.decode.tokens > 0) {
    sentences.push_back(
        fmt::format("Decoding at {:.2f} tok/s moves {:.1f} GB/s, {:.0f}% of what the memory can do.",
                    first.decode.tps(), first.decode.gbps(), 100.0 * first.decode.gbps() / soc.dram_gbps));
  }
  report.summary(sentences);
  ReportTable table{"Results (simulated)",
                    "",
                    {"prompt", "prefill tok/s", "decode tok/s", "first token, ms", "energy, J", "prefill, W"},
                    {}};
  LineSeries prefill{"prefill", {}};
  LineSeries decode{"decode", {}};
  for (const SimResult& r : results) {
    table.rows.push_back({std::to_string(r.prefill.tokens), short_number(r.prefill.tps()),
                          short_number(r.decode.tps()), short_number(millis(r.prefill.time)),
                          short_number(r.prefill.joules + r.decode.joules), short_number(r.prefill.watts())});
    prefill.points.push_back({static_cast<double>(r.prefill.tokens), r.prefill.tps()});
    decode.points.push_back({static_cast<double>(r.prefill.tokens), r.decode.tps()});
  }
  report.add(table);
  if (results.size() > 1) {
    report.add(LinePlot{.title = "Prefill speed by length (simulated)",
                        .x_label = "tokens of the prompt",
                        .y_label = "tok/s",
                        .series = {prefill}});
    if (run.decode > 0) {
      report.add(LinePlot{.title = "Decoding speed by length of the prompt (simulated)",
                          .x_label = "tokens of the prompt",
                          .y_label = "tok/s",
                          .series = {decode}});
    }
    return report;
  }
  const int layers = std::max(1, simulator.graph().shape.layers);
  report.heading("Who computes when");
  report.add(timeline(trace, false, first.prefill.time * 2 / layers));
  if (first.decode.tokens > 0) {
    report.add(timeline(trace, true, first.decode.time / first.decode.tokens * 2 / layers));
  }
  return report;
}

}  // namespace hetero
