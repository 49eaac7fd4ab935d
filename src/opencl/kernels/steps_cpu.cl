// Operators as steps of one kernel, on devices of type CPU with one compute unit: one work-item does step after
// step as the host publishes them, and polls for the next one before it leaves, so that nothing is submitted to
// the driver and nobody is woken in between. Included after all that defines tasks, with STEPS.
//
// A step is STEP_WORDS words: its code, the work-groups along both dimensions, its ticket (0: more of the same
// submission follows), and the arguments of the kernel that it stands for, one word each (opencl_steps.h). Addresses
// are the host's, so the device must see memory as the host does.
//
// Defined by the host, of StepMemory in opencl_steps.h: STEP_WORDS, STEP_HEAD, STEP_ROOM, STEP_TIMES; where things lie, in
// bytes: STATE_AT, POSITION_AT, FLAG_AT, TIMES_AT, STEPS_AT.

// Of StepCode in kernel_call.h.
#define STEP_EMBED 1
#define STEP_ROPE_TABLE 2
#define STEP_NORM 3
#define STEP_LINEAR 4
#define STEP_ROPE 5
#define STEP_ATTENTION 6
#define STEP_GATED 7
#define STEP_SOFT_CAP 8
#define STEP_ROUTE 9
#define STEP_EXPERT_LINEAR 10
#define STEP_EXPERT_SUM 11
#define STEP_LINEAR_TILE 12
#define STEP_LEAVE 13

#define COUNT_MASK 0x7fffffffu

#define INT(i) (int)word[i]
#define LONG(i) (long)word[i]
#define FLOAT(i) as_float((uint)word[i])
#define FLOATS_AT(i) (global float*)word[i]
#define BYTES_AT(i) (global uchar*)word[i]
#define ROWS_OF(TYPE, i) (global TYPE*)word[i], LONG((i) + 1), LONG((i) + 2)
#define EACH_GROUP                                    \
  for (int group1 = 0; group1 < groups1; ++group1)    \
    for (int group0 = 0; group0 < groups0; ++group0)

inline ulong ticks(void) { return __builtin_readcyclecounter(); }

// `patience`: for how long to poll for another step, in ticks.
kernel LANE_GROUP void run_steps(global uchar* memory, ulong patience) {
  volatile global uint* state_word = (volatile global uint*)(memory + STATE_AT);
  volatile global uint* position = (volatile global uint*)(memory + POSITION_AT);
  volatile global uint* flag = (volatile global uint*)(memory + FLAG_AT);
  uint at = *position;
  ulong begin = 0;  // of the submission whose steps are being done
  ulong since = ticks();
  for (int leave = 0; !leave;) {
    const uint state = *state_word;
    if (state >> 1 == at) {
      // The host starts another kernel if it finds that none serves.
      leave = ticks() - since >= patience &&
              atomic_cmpxchg(state_word, state, state & ~1u) == state;
      continue;
    }
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    global const ulong* step = (global const ulong*)(memory + STEPS_AT) + at % STEP_ROOM * STEP_WORDS;
    global const ulong* word = step + STEP_HEAD;
    const int groups0 = (int)step[1], groups1 = (int)step[2];
    begin = begin ? begin : ticks();
    switch ((int)step[0]) {
      case STEP_EMBED:
        EACH_GROUP embed(ROWS_OF(int, 0), ROWS_OF(float, 3), BYTES_AT(6), LONG(7), INT(8), INT(9), FLOAT(10),
                         INT(11), group0, group1);
        break;
      case STEP_ROPE_TABLE:
        EACH_GROUP rope_table(ROWS_OF(float, 0), FLOATS_AT(3), INT(4), FLOAT(5), INT(6), INT(7), group0, group1);
        break;
      case STEP_NORM:
        EACH_GROUP rms_norm(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(float, 9),
                            FLOATS_AT(12), INT(13), INT(14), FLOAT(15), INT(16), group0, group1);
        break;
      case STEP_LINEAR:
        EACH_GROUP linear_vector(ROWS_OF(float, 0), ROWS_OF(float, 3), BYTES_AT(6), LONG(7), FLOATS_AT(8), INT(9),
                                 INT(10), INT(11), INT(12), group0, group1);
        break;
      case STEP_ROPE:
        EACH_GROUP rope(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(uchar, 9),
                        ROWS_OF(uchar, 12), FLOATS_AT(15), INT(16), FLOAT(17), INT(18), INT(19), INT(20), INT(21),
                        INT(22), INT(23), INT(24), INT(25), group0, group1);
        break;
      case STEP_ATTENTION:
        EACH_GROUP attention(ROWS_OF(float, 0), ROWS_OF(CACHE_TYPE, 3), ROWS_OF(CACHE_TYPE, 6), ROWS_OF(float, 9),
                             INT(12), FLOAT(13), FLOAT(14), INT(15), INT(16), INT(17), group0, group1);
        break;
      case STEP_GATED:
        EACH_GROUP gated(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), INT(7), INT(8), INT(9), group0, group1);
        break;
      case STEP_SOFT_CAP:
        EACH_GROUP soft_cap(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), FLOAT(7), INT(8), INT(9), group0, group1);
        break;
      case STEP_ROUTE:
        EACH_GROUP route(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), INT(7), INT(8), INT(9), FLOAT(10), INT(11),
                         group0, group1);
        break;
      case STEP_EXPERT_LINEAR:
        EACH_GROUP expert_linear(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), BYTES_AT(9), LONG(10),
                                 INT(11), INT(12), INT(13), INT(14), INT(15), INT(16), group0, group1);
        break;
      case STEP_EXPERT_SUM:
        EACH_GROUP expert_sum(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(float, 9), INT(12),
                              INT(13), INT(14), INT(15), INT(16), group0, group1);
        break;
      case STEP_LINEAR_TILE:
        EACH_GROUP linear_tile(ROWS_OF(float, 0), ROWS_OF(float, 3), BYTES_AT(6), LONG(7), FLOATS_AT(8), INT(9),
                               INT(10), INT(11), INT(12), group0, group1);
        break;
      case STEP_LEAVE:
        leave = 1;
        break;
    }
    since = ticks();
    at = (at + 1) & COUNT_MASK;
    const ulong ticket = step[3];
    if (ticket) {
      global ulong* times = (global ulong*)(memory + TIMES_AT) + ticket % STEP_TIMES * 2;
      times[0] = begin;
      times[1] = since;
      begin = 0;
    }
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    *position = at;
    if (ticket) {
      *flag = (uint)ticket;
    }
  }
}
