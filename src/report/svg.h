// The drawing behind report.h: axes and marks as SVG text.
#pragma once

#include <string>
#include <vector>

#include "report/report.h"

namespace hetero::svg {

std::string escape(const std::string& text);

/// SVG of a plot, `width` units wide. Colours come from the page's CSS classes s0, s1, ...
std::string draw(const LinePlot& plot, int width);
std::string draw(const BarPlot& plot, int width);
std::string draw(const GanttPlot& plot, int width);

constexpr size_t kColours = 8;

}  // namespace hetero::svg
