// The one interface to whatever computes: CPU, GPU, NPU, simulated or scripted for tests.
//
// A processor imports host memory, compiles slices of operators into executables, and runs
// submitted executables in order on its one queue. Processors do not know of each other: the
// runtime's control thread waits for one and submits to the next (paper section 4: the CPU as the
// control plane).
//
// Threads: all calls on one processor come from one thread at a time, the control thread, except
// these. Any thread may call Timeline::wait and done. One other thread, which compiles ahead, may call
// info(), traits(), supports(), is_cached(), compile() and device_bytes() while the control thread
// does anything, compile() included; an executable may be destroyed on either of the two.
//
// A graph outlives the executables that were compiled from it, buffers and executables outlive the
// work submitted with them, and the processor outlives all three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "base/status.h"
#include "graph/graph.h"

namespace hetero {

struct ProcessorInfo {
  std::string id;         // "cpu", "gpu0", "npu0"; given by the engine
  std::string kind;       // "cpu", "gpu", "npu"
  std::string name;       // as the vendor calls it
  std::string provider;   // "native", "opencl", "openvino", "fake"
  std::string driver;     // version, for reports and cache keys
  bool stand_in = false;  // a CPU that plays a GPU or an NPU through the same interface
  Bytes memory_bytes = 0;
  bool unified_memory = false;
  std::vector<std::string> features;  // "fp16", "subgroups", "avx2", ...
};

/// In which order of operands (OpSlice::exchanged) a processor computes products.
enum class OperandOrders {
  kOne,           // its own: OpSlice::exchanged changes nothing
  kBoth,          // as it is told; which is faster, a profile says
  kSmallerStays,  // as it is told, and by its build it is faster where the smaller operand stays in the array
};

struct Traits {
  /// Executables work for exactly the number of tokens that they were compiled for.
  bool static_shapes = false;
  /// Sees imported host memory without transfers. Otherwise its buffers are copies of its own,
  /// and the runtime moves regions with upload() and download().
  bool coherent = true;
  /// Holds the weights that it uses in its own form: once a slice is compiled, the file's pages of it
  /// are not read any more.
  bool copies_weights = false;
  /// Unit roundoff of the arithmetic inside products: 2^-24 in f32, 2^-11 in fp16. Tolerances
  /// follow from it.
  double unit_roundoff = 0x1p-24;
  /// Runs submissions together with up to so many later ones where that saves time and their memory
  /// allows it: the later ones' outputs must not lie where the earlier ones' inputs do.
  int joined = 0;
  /// May run a token's layers and the head behind them together, if nothing is flushed between.
  bool joins_head = false;
  OperandOrders orders = OperandOrders::kOne;
  /// Logical CPUs of the host that it keeps busy while it waits for work: the control thread stays off them.
  std::vector<int> polls_on;
};

/// A processor's view of host memory.
class Buffer {
 public:
  virtual ~Buffer() = default;
};

/// Something compiled, ready to be submitted any number of times.
class Executable {
 public:
  virtual ~Executable() = default;
};

/// Output columns [begin, end) of operator `op`. All columns, except for Linear operators, which
/// may be cut anywhere.
struct OpSlice {
  int op = 0;
  int64_t begin = 0;
  int64_t end = 0;
  /// Of a Linear: y^T = W x^T, and back, in place of y = x W^T. The result is the same; NPUs that hold
  /// one operand still are several times faster in one of the two orders (paper, NPU-2). Only where
  /// traits().orders says so; processors of one order compute as always.
  bool exchanged = false;

  auto operator<=>(const OpSlice&) const = default;
};

/// The order for `rows` rows and `columns` columns where no profile tells: OpSlice::exchanged.
inline bool usually_exchanged(OperandOrders orders, int64_t rows, int64_t columns) {
  return orders == OperandOrders::kSmallerStays && rows < columns;
}

/// Row 0, column 0 (of the slice) of a value inside a buffer. In elements of the value's dtype.
struct Binding {
  Buffer* buffer = nullptr;
  int64_t offset = 0;
  int64_t stride = 0;  // from one row to the next
};

/// One submission. Bindings follow op.inputs and op.outputs. KV caches are bound at position 0.
struct Launch {
  int64_t tokens = 0;
  int64_t position = 0;
  std::span<const Binding> inputs;
  std::span<const Binding> outputs;
};

struct Interval {
  Nanos begin{};
  Nanos end{};
};

/// The progress of one processor's queue: submission number n (a ticket, from 1) is done when all
/// up to n are. A failure poisons the timeline: it and every later ticket give the same error.
class Timeline {
 public:
  virtual ~Timeline() = default;
  /// Blocks until the ticket is done.
  virtual Status wait(uint64_t ticket) = 0;
  /// True once wait() would return at once. Never blocks.
  virtual bool done(uint64_t ticket) = 0;
  /// Whether whoever finishes the work wakes threads that wait for it, at no cost meanwhile. Only then
  /// wait_until() may be called: it blocks until the ticket is done, or until `time` (of now()).
  virtual bool wakes() const { return false; }
  virtual void wait_until(uint64_t /*ticket*/, Nanos /*time*/) {}
  /// When the ticket's work ran. Only for tickets that are done, and only the last
  /// kKeptIntervals of them; otherwise zeros.
  virtual Interval interval(uint64_t ticket) = 0;

  static constexpr uint64_t kKeptIntervals = 4096;
};

struct Fence {
  Timeline* timeline = nullptr;  // nullptr: done
  uint64_t ticket = 0;

  Status wait() const { return timeline == nullptr ? Status() : timeline->wait(ticket); }
  bool done() const { return timeline == nullptr || timeline->done(ticket); }
  bool wakes() const { return timeline != nullptr && timeline->wakes(); }
};

/// Rows of bytes inside a buffer.
struct Region {
  Bytes offset = 0;     // of the first byte
  Bytes row_bytes = 0;  // to move in each row
  Bytes stride = 0;     // from one row to the next
  int64_t rows = 0;
};

class Processor {
 public:
  virtual ~Processor() = default;

  virtual const ProcessorInfo& info() const = 0;
  virtual const Traits& traits() const = 0;

  /// Ok, or why this processor cannot run the slice.
  virtual Status supports(const Graph& graph, const OpSlice& slice) const = 0;

  /// A view of page-aligned host memory that outlives it. Copies nothing where traits().coherent.
  virtual Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) = 0;

  /// May take seconds. `tokens`: exactly that many with static_shapes, otherwise at most so many.
  /// Weights are shared between executables, and read in place where the device can.
  virtual Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                                      int64_t tokens) = 0;

  /// Whether compile() will be quick: there is little to do, or the cache on disk has it.
  virtual bool is_cached(const Graph& /*graph*/, const OpSlice& /*slice*/, int64_t /*tokens*/) {
    return true;
  }

  /// Appends to the queue. Reads inputs that this queue wrote before, and whatever the host sees
  /// at this moment. Never compiles or waits for the work; an error is also the timeline's.
  virtual Result<Fence> submit(const Executable& executable, const Launch& launch) = 0;

  /// Starts everything submitted, where the driver would otherwise collect it.
  virtual void flush() {}

  /// Something is about to be submitted: whatever serves the queue should be awake. Cheap, since it is called
  /// again and again for as long as that is so.
  virtual void rouse() {}

  /// Only without traits().coherent: appends a copy of the region from or to the host memory
  /// behind the buffer. The host side must stay untouched until the fence is done.
  virtual Result<Fence> upload(Buffer& buffer, const Region& region);
  virtual Result<Fence> download(Buffer& buffer, const Region& region);
  /// Such copies of this buffer will come again and again. Nothing else may use its host memory meanwhile,
  /// and this may wait for what was submitted.
  virtual void expect_copies(Buffer& /*buffer*/) {}

  /// The two halves of the ordinary hand-over, for comparison (--sync driver); the runtime's own way
  /// uses neither. finish() blocks in the driver until all that was submitted is done (clFinish);
  /// remap() maps a part of the buffer for the host and gives it back (a blocking map, an unmap), in
  /// bytes. Nothing to do where there is no such driver.
  virtual Status finish() { return {}; }
  virtual Status remap(Buffer& /*buffer*/, Bytes /*offset*/, Bytes /*size*/) { return {}; }

  virtual Timeline& timeline() = 0;

  /// On which the timeline's intervals lie, and by which to wait for it. Processors that work
  /// together have one clock.
  virtual Clock& clock() { return system_clock(); }

  /// Device or driver-side memory held for weights and graphs, as far as this code knows it.
  virtual Bytes device_bytes() const { return 0; }
};

/// Where the thread that submits to these and waits for them may run: all CPUs but those on which processors
/// poll. Empty: anywhere, since none does, or there is no other CPU.
std::vector<int> control_cpus(const std::vector<Processor*>& processors);

struct OpenOptions {
  int threads = 0;                // CPU threads or compute units to use; 0: all
  std::vector<int> cpus;          // confine work on the CPU to these; empty: anywhere
  bool int8_activations = false;  // CPU: round activations to 8 bits in products, for speed
  std::string cache_dir;          // for compiled programs and graphs; empty: no cache on disk
};

/// A processor of this machine that may be opened. info.id is empty until the engine names it.
struct FoundProcessor {
  ProcessorInfo info;
  std::function<Result<std::unique_ptr<Processor>>(const ProcessorInfo& info, const OpenOptions& options)>
      open;
};

}  // namespace hetero
