// A processor that is made to fail, for tests and rehearsals: HETERO_FAIL=npu0:100 in the environment
// of the engine.
#pragma once

#include <memory>
#include <string>

#include "processor/processor.h"

namespace hetero {

/// Passes everything on to `real` until submission `at` (from 1), which never reaches it and fails
/// with kDeviceLost, as do all later ones: to the runtime, a device that was lost.
std::unique_ptr<Processor> make_failing(std::unique_ptr<Processor> real, uint64_t at);

/// What HETERO_FAIL asks for, if it names this processor: `processor` itself, or a failing one around
/// it. An error if the variable is not ID:NUMBER.
Result<std::unique_ptr<Processor>> fail_if_asked(std::unique_ptr<Processor> processor);

}  // namespace hetero
