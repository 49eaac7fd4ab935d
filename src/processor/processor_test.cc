#include <gtest/gtest.h>

#include "base/threads.h"
#include "processor/conformance.h"
#include "processor/fake.h"

namespace hetero {
namespace {

void expect_conforms(Processor& processor) {
  const ConformanceReport report = run_conformance(processor, {.only = "", .quick = true});
  EXPECT_GT(report.passed, 100);
  for (const std::string& failure : report.failures) {
    ADD_FAILURE() << failure;
  }
}

TEST(Fake, Conforms) {
  FakeProcessor fake("gpu0", "gpu");
  expect_conforms(fake);
}

TEST(Fake, ConformsWithMemoryOfItsOwn) {
  FakeScript script;
  script.traits.coherent = false;
  FakeProcessor fake("gpu0", "gpu", script);
  expect_conforms(fake);
  EXPECT_GT(fake.transfers(), 100);
}

TEST(Conformance, FindsAWrongResult) {
  FakeScript script;
  script.error = 1e-3f;
  FakeProcessor fake("gpu0", "gpu", script);
  for (const char* kind : {"linear Q4_0", "linear F32", "rms_norm", "rope ", "attention", "gated", "embed"}) {
    const ConformanceReport report = run_conformance(fake, {.only = kind, .quick = true});
    EXPECT_GT(report.failures.size(), static_cast<size_t>(report.passed)) << kind;
  }
}

TEST(Conformance, NamesWhatIsSkippedAndWhy) {
  FakeScript script;
  script.refuses = {"attention"};
  FakeProcessor fake("npu0", "npu", script);
  const ConformanceReport report = run_conformance(fake, {.only = "attention", .quick = true});
  EXPECT_EQ(report.passed, 0);
  ASSERT_FALSE(report.skipped.empty());
  EXPECT_NE(report.skipped[0].find("npu0 does not run attention"), std::string::npos);
}

TEST(ControlCpus, AreThoseOnWhichNoProcessorPolls) {
  const std::vector<int> all = available_cpus();
  FakeProcessor quiet("cpu", "cpu");
  FakeScript script;
  script.traits.polls_on = {all.front()};
  FakeProcessor polls("gpu0", "gpu", script);
  EXPECT_TRUE(control_cpus({&quiet}).empty());
  EXPECT_EQ(control_cpus({&quiet, &polls}), std::vector<int>(all.begin() + 1, all.end()));
  script.traits.polls_on = all;
  FakeProcessor everywhere("gpu1", "gpu", script);
  EXPECT_TRUE(control_cpus({&everywhere}).empty());
}

TEST(Fake, AFailurePoisonsTheTimelineForEveryLaterWaiter) {
  HostTimeline timeline;
  const uint64_t first = timeline.next_ticket();
  const uint64_t second = timeline.next_ticket();
  const uint64_t third = timeline.next_ticket();
  timeline.finish({Nanos(1), Nanos(2)});
  timeline.finish({Nanos(3), Nanos(4)}, device_lost("gone"));
  EXPECT_TRUE(timeline.wait(first).ok());
  EXPECT_EQ(timeline.wait(second).message(), "gone");
  EXPECT_EQ(timeline.wait(third).message(), "gone");
  EXPECT_TRUE(timeline.done(third));
  EXPECT_EQ(timeline.interval(first).end, Nanos(2));
}

TEST(HostTimeline, WaitUntilEndsWithTheWorkOrAtTheTime) {
  HostTimeline timeline;
  EXPECT_TRUE(timeline.wakes());
  const uint64_t first = timeline.next_ticket();
  const uint64_t second = timeline.next_ticket();
  const Nanos soon = now() + std::chrono::milliseconds(2);
  timeline.wait_until(first, soon);
  EXPECT_GE(now(), soon);
  EXPECT_FALSE(timeline.done(first));
  const Nanos late = now() + std::chrono::hours(1);
  std::thread worker([&] {
    timeline.finish({});
    timeline.finish({}, device_lost("gone"));
  });
  timeline.wait_until(first, late);
  EXPECT_TRUE(timeline.done(first));
  timeline.wait_until(second, late);
  EXPECT_EQ(timeline.wait(second).message(), "gone");
  worker.join();
  EXPECT_LT(now(), late);
}

}  // namespace
}  // namespace hetero
