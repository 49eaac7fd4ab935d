#include "report/report.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "report/svg.h"

namespace hetero {
namespace {

using svg::escape;

// Okabe and Ito's colours, which remain distinct with the common forms of colour blindness, darker
// on white and lighter on black.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --bg: #fff; --fg: #1c1c1e; --soft: #5b5f66; --rule: #dfe1e5; --box: #f4f5f7;
  --s0: #0072b2; --s1: #d55e00; --s2: #00805c; --s3: #b0568f; --s4: #9a6a00; --s5: #2b90c9; --s6: #555b66; --s7: #7a4fc0; }
@media (prefers-color-scheme: dark) { :root { --bg: #15171a; --fg: #e8e9eb; --soft: #a4a9b1; --rule: #353a41; --box: #1f2328;
  --s0: #4fb3f0; --s1: #ff8a3d; --s2: #2fd0a0; --s3: #e58fc4; --s4: #f0bf3d; --s5: #8ad4ff; --s6: #b5bac3; --s7: #b79bf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 900px; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4em 0 .1em; } h2 { font-size: 1.25rem; margin: 2em 0 .3em; }
h3 { font-size: 1rem; margin: 1.4em 0 .2em; } p { margin: .4em 0; } .sub, .note { color: var(--soft); }
.note { font-size: .875rem; } .box { background: var(--box); border-left: 4px solid var(--s0); padding: 8px 14px; margin: 14px 0; }
figure { margin: 0 0 1.2em; } svg { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--soft); } .grid { stroke: var(--rule); } .axis { stroke: var(--soft); } .l { fill: none; stroke-width: 2; }
.dash { stroke-dasharray: 6 5; } .narrow { display: none; } .m { stroke: var(--bg); stroke-width: .6; }
@media (max-width: 600px) { .wide { display: none; } .narrow { display: block; } body { padding: 12px; } }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .875rem; margin: .2em 0; padding: 0; list-style: none; }
.legend svg { display: inline-block; width: 22px; height: 12px; vertical-align: -1px; margin-right: 6px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; margin: .4em 0; }
th, td { padding: 3px 10px 3px 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { font-size: .875rem; color: var(--soft); } summary { cursor: pointer; }
)css";

bool reads_as_number(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.,-+%x/ e") == std::string::npos &&
         cell.find_first_of("0123456789") != std::string::npos;
}

std::string table_html(const ReportTable& table) {
  std::vector<bool> numeric(table.columns.size(), true);
  for (const auto& row : table.rows) {
    for (size_t c = 0; c < row.size() && c < numeric.size(); ++c) {
      numeric[c] = numeric[c] && (reads_as_number(row[c]) || row[c].empty() || row[c] == "-");
    }
  }
  const auto cell = [&](const char* tag, size_t c, const std::string& text) {
    const bool right = c < numeric.size() && numeric[c] && !table.rows.empty();
    return fmt::format("<{}{}>{}</{}>", tag, right ? " class=\"n\"" : "", escape(text), tag);
  };
  std::string out = "<div class=\"scroll\"><table><thead><tr>";
  for (size_t c = 0; c < table.columns.size(); ++c) {
    out += cell("th", c, table.columns[c]);
  }
  out += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      out += cell("td", c, row[c]);
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

/// A sample of a series' colour (and line) for the legend.
std::string swatch(size_t i, bool line, bool dashed) {
  const size_t c = i % svg::kColours;
  if (line) {
    return fmt::format(
        "<svg viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path d=\"M0 6H22\" class=\"l s{}{}\"/></svg>", c,
        dashed ? " dash" : "");
  }
  return fmt::format(
      "<svg viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect x=\"4\" width=\"12\" height=\"12\" class=\"m "
      "s{}\"/></svg>",
      c);
}

template <class Plot>
std::string figure(const Plot& plot, size_t points, const std::vector<std::string>& legend,
                   const ReportTable& numbers) {
  std::string out =
      fmt::format("<figure class=\"plot\" data-points=\"{}\"><h3>{}</h3>\n", points, escape(plot.title));
  if (legend.size() > 1) {
    out += "<ul class=\"legend\">";
    for (const std::string& entry : legend) {
      out += "<li>" + entry + "</li>";
    }
    out += "</ul>\n";
  }
  out += "<div class=\"wide\">" + svg::draw(plot, 860) + "</div><div class=\"narrow\">" +
         svg::draw(plot, 366) + "</div>\n";
  if (!plot.note.empty()) {
    out += "<p class=\"note\">" + escape(plot.note) + "</p>\n";
  }
  if (!numbers.rows.empty()) {
    out += "<details><summary>Numbers</summary>" + table_html(numbers) + "</details>\n";
  }
  return out + "</figure>\n";
}

}  // namespace

std::string short_number(double v) {
  if (!std::isfinite(v)) {
    return "-";
  }
  const double size = std::abs(v);
  if (size >= 1e6) {
    return fmt::format("{:.3g}", v);
  }
  std::string s = size == 0.0   ? "0"
                  : size >= 100 ? fmt::format("{:.0f}", v)
                  : size >= 10  ? fmt::format("{:.1f}", v)
                  : size >= 1   ? fmt::format("{:.2f}", v)
                  : size >= 1e-4
                      ? fmt::format("{:.{}f}", v, 3 - static_cast<int>(std::floor(std::log10(size))) - 1)
                      : fmt::format("{:.2e}", v);
  if (s.find('.') != std::string::npos && s.find('e') == std::string::npos) {
    s.erase(s.find_last_not_of('0') + 1);
    if (s.back() == '.') {
      s.pop_back();
    }
  }
  return s;
}

Report::Report(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Report::summary(const std::vector<std::string>& sentences) {
  body_ += "<div class=\"box\">";
  for (const std::string& s : sentences) {
    body_ += "<p>" + escape(s) + "</p>\n";
  }
  body_ += "</div>\n";
}

void Report::heading(const std::string& text) {
  body_ += "<h2>" + escape(text) + "</h2>\n";
}

void Report::text(const std::string& paragraph) {
  body_ += "<p>" + escape(paragraph) + "</p>\n";
}

void Report::add(const LinePlot& plot) {
  std::vector<std::string> legend;
  ReportTable numbers{"", "", {"series", plot.x_label, plot.y_label}, {}};
  size_t points = 0;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const LineSeries& s = plot.series[i];
    legend.push_back(swatch(i, s.line, s.dashed) + escape(s.name));
    points += s.points.size();
    for (const PlotPoint& p : s.points) {
      numbers.rows.push_back({s.name, short_number(p.x), short_number(p.y)});
      if (std::isfinite(p.low)) {
        numbers.rows.back().back() += fmt::format(" ({} to {})", short_number(p.low), short_number(p.high));
      }
    }
  }
  body_ += figure(plot, points, legend, numbers);
}

void Report::add(const BarPlot& plot) {
  std::vector<std::string> legend;
  ReportTable numbers{"", "", {plot.y_label}, {}};
  size_t points = 0;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    legend.push_back(swatch(i, false, false) + escape(plot.series[i].name));
    numbers.columns.push_back(plot.series[i].name);
    for (const double v : plot.series[i].values) {
      points += std::isfinite(v) ? 1 : 0;
    }
  }
  for (size_t g = 0; g < plot.groups.size(); ++g) {
    std::vector<std::string> row = {plot.groups[g]};
    for (const BarSeries& s : plot.series) {
      row.push_back(g < s.values.size() ? short_number(s.values[g]) : "-");
    }
    numbers.rows.push_back(std::move(row));
  }
  body_ += figure(plot, points, legend, numbers);
}

void Report::add(const GanttPlot& plot) {
  std::vector<std::string> legend;
  for (size_t i = 0; i < plot.kinds.size(); ++i) {
    legend.push_back(swatch(i, false, false) + escape(plot.kinds[i]));
  }
  body_ += figure(plot, plot.bars.size(), legend, {});
}

void Report::add(const ReportTable& table) {
  if (!table.title.empty()) {
    body_ += "<h3>" + escape(table.title) + "</h3>\n";
  }
  body_ += table_html(table);
  if (!table.note.empty()) {
    body_ += "<p class=\"note\">" + escape(table.note) + "</p>\n";
  }
}

std::string Report::html() const {
  std::string style = kStyle;
  for (size_t i = 0; i < svg::kColours; ++i) {
    style += fmt::format(".m.s{0} {{ fill: var(--s{0}); }} .l.s{0} {{ stroke: var(--s{0}); }}\n", i);
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n<title>{0}</title>\n<style>{2}</style></head>\n"
      "<body><h1>{0}</h1><p class=\"sub\">{1}</p>\n{3}</body></html>\n",
      escape(title_), escape(subtitle_), style, body_);
}

Status Report::write(const std::string& path) const {
  std::ofstream file(path, std::ios::binary);
  file << html();
  file.close();
  if (!file) {
    return io_error("cannot write the report to " + path);
  }
  return {};
}

}  // namespace hetero
