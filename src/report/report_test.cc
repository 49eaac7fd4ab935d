#include "report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

namespace hetero {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++n;
  }
  return n;
}

TEST(Report, NumbersAreShort) {
  EXPECT_EQ(short_number(0.0), "0");
  EXPECT_EQ(short_number(1234.4), "1234");
  EXPECT_EQ(short_number(12.34), "12.3");
  EXPECT_EQ(short_number(1.0), "1");
  EXPECT_EQ(short_number(0.01234), "0.0123");
  EXPECT_EQ(short_number(-2.5), "-2.5");
  EXPECT_EQ(short_number(kAbsent), "-");
}

TEST(Report, PlotsHaveAMarkForEachPointAndItsValuesOnHovering) {
  Report report("t", "s");
  report.add(LinePlot{.title = "Speed",
                      .x_label = "rows",
                      .y_label = "GFLOPS",
                      .x_scale = Scale::kLog2,
                      .series = {{"gpu", {{1, 10}, {32, 100, 90, 110}, {0, 5}}}}});
  const std::string html = report.html();
  // Twice, for wide and for narrow screens; x = 0 has no place on a logarithmic axis.
  EXPECT_EQ(count(html, "<circle"), 4u);
  EXPECT_EQ(count(html, "gpu: 100 at 32 (90 to 110)"), 2u);
  EXPECT_THAT(html, HasSubstr("data-points=\"3\""));
}

TEST(Report, AbsentBarsAreLeftOut) {
  Report report("t", "s");
  report.add(BarPlot{
      .title = "b", .y_label = "ms", .groups = {"one", "two"}, .series = {{"a", {1.0, kAbsent}, {}, {}}}});
  EXPECT_EQ(count(report.html(), "<title>one, a: 1</title>"), 2u);
  EXPECT_THAT(report.html(), Not(HasSubstr("two, a")));
}

TEST(Report, TextIsEscapedAndNothingIsLoaded) {
  Report report("<b>&", "s\"");
  report.summary({"a < b"});
  report.add(ReportTable{"", "", {"<i>"}, {{"1 & 2"}}});
  report.add(GanttPlot{"g", "", "ms", {"<cpu>"}, {"k"}, {{0, 0.0, 1.0, "<op>", 0}}});
  const std::string html = report.html();
  EXPECT_THAT(html, HasSubstr("<h1>&lt;b&gt;&amp;</h1>"));
  EXPECT_THAT(html, HasSubstr("&lt;op&gt;: 0 to 1"));
  EXPECT_THAT(html, Not(HasSubstr("<cpu>")));
  EXPECT_FALSE(std::regex_search(html, std::regex("(src|href)=\"(?!data:)|@import|url\\(|<script")));
}

TEST(Report, OnePointOrNoneIsAPlotToo) {
  Report report("t", "s");
  report.add(LinePlot{.title = "one", .series = {{"a", {{5, 5}}}}});
  report.add(LinePlot{.title = "none", .series = {{"a", {}}}});
  report.add(BarPlot{});
  report.add(GanttPlot{});
  EXPECT_THAT(report.html(), Not(HasSubstr("nan")));
  EXPECT_THAT(report.html(), Not(HasSubstr("inf")));
}

TEST(Report, WritingWhereNobodyMayIsAnError) {
  EXPECT_EQ(Report("t", "s").write("/nowhere/report.html").code(), Code::kIo);
}

}  // namespace
}  // namespace hetero
