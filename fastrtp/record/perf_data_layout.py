"""What the native loops over perf.data share with their callers: words of their states, layout rows, errors, record types.

W_*: state of perf_data_walk; S_*: of perf_data_samples; L_*: a row that tells one attr's samples. All words are int64.
"""

from __future__ import annotations

W_DATA = 0
W_AT = 1
W_END = 2
W_LOW = 3
W_HIGH = 4
W_SIDES = 5
W_CAPACITY = 6
W_SAMPLES = 7
W_FOUND = 8
W_ERROR_AT = 9
W_WORDS = 10

S_DATA = 0
S_AT = 1
S_STOP = 2
S_END = 3
S_ID_AT = 4
S_IDS = 5
S_ID_ATTRS = 6
S_N_IDS = 7
S_LAYOUTS = 8
S_TYPE_OFFSET = 9
S_PID_OFFSET = 10
S_MIN_RECORD = 11
S_OUT_OFFSET = 12
S_OUT_TIME = 13
S_OUT_TYPE = 14
S_OUT_PID = 15
S_OUT_LENGTH = 16
S_OUT_CPU = 17
S_OUT_TGID = 18
S_OUT_CHAIN = 19
S_CAPACITY = 20
S_COUNT = 21
S_ERROR_AT = 22
S_UNKNOWN = 23
S_WORDS = 24

L_WANTED = 0
L_FIXED = 1
L_TID_AT = 2
L_TIME_AT = 3
L_CPU_AT = 4
L_READ_SIZE = 5
L_READ_UNIT = 6
L_CALLCHAIN = 7
L_SEEN = 8
L_WORDS = 9

OK = 0
NO_HEADER = 1
BAD_SIZE = 2
PAST_END = 3
SHORT_SAMPLE = 4
BAD_READ = 5
BAD_CALLCHAIN = 6
BAD_RAW = 7
SHORT_RAW = 8
BAD_CPU = 9
BAD_CAPACITY = 10

RECORD_HEADER_TRACING_DATA = 66
RECORD_AUXTRACE = 71
MAX_CPU = 65535

CONTEXT_KERNEL = -128
CONTEXT_USER = -512
CONTEXT_MAX = -4095
